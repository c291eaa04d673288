"""Which number format a model trains in, by what the machine computes fast."""

from pathlib import Path

import tensorflow as tf

from kerasformer.errors import InputError

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def dtype_policy(precision: str = "auto") -> str:
    """The Keras dtype policy for `auto`, `float32` or `bfloat16`.

    `auto` takes bfloat16 on a TPU, on GPUs of compute capability 8.0 or above, and on CPUs with avx512_bf16 or amx_bf16
    instructions; elsewhere bfloat16 is emulated and slower than float32.

    Raises:
        InputError: another name.
    """
    if precision == "auto":
        precision = "bfloat16" if _has_bfloat16() else "float32"
    if precision not in POLICIES:
        raise InputError(f"expected a precision of auto, {', '.join(POLICIES)}, got {precision!r}; choose one of them")
    return POLICIES[precision]


def _has_bfloat16() -> bool:
    if tf.config.list_physical_devices("TPU"):
        return True
    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    flags = Path("/proc/cpuinfo")  # absent outside Linux
    return flags.exists() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16"))
