"""Which number format a model trains in, by what the machine computes fast."""

from kerasformer.errors import InputError
from kerasformer.generation.precision import resolved

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def dtype_policy(precision: str = "auto") -> str:
    """The Keras dtype policy for `auto`, `float32` or `bfloat16`.

    `auto` takes bfloat16 on a TPU, on GPUs of compute capability 8.0 or above, and on CPUs with avx512_bf16 or amx_bf16
    instructions; elsewhere bfloat16 is emulated and slower than float32.

    Raises:
        InputError: another name.
    """
    precision = resolved(precision)
    if precision not in POLICIES:
        raise InputError(f"expected a precision of auto, {', '.join(POLICIES)}, got {precision!r}; choose one of them")
    return POLICIES[precision]
