"""What differs from backend to backend: how a function is compiled, and what the machine computes fast."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import keras


def compiled(function: Callable, variables: Sequence[keras.Variable]) -> Callable:
    """A pure function of tensors, compiled once for each shape of its inputs; it reads the variables at each call."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True)
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def stateless(values, *inputs):  # what a jitted function reads by itself becomes a constant in it
            with keras.StatelessScope(zip(variables, values, strict=True)):
                return function(*inputs)

        return lambda *inputs: stateless([variable.value for variable in variables], *inputs)
    return function


def fused(function: Callable) -> Callable:
    """A part of a compiled function, for XLA to compile on TensorFlow, which runs its own kernels otherwise."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


_fusing = ContextVar("fusing", default=False)


@contextmanager
def fusing(on: bool = True) -> Iterator[None]:
    """Within it what is `fusible` is `fused`."""
    token = _fusing.set(on)
    try:
        yield
    finally:
        _fusing.reset(token)


def fusible(function: Callable) -> Callable:
    """A pure function of tensors, many small operations, that is one where a training step asks for it by `fusing`.

    Elsewhere it is what it was: no operation of XLA comes into an export.
    """
    once = functools.cache(lambda: fused(function))

    @functools.wraps(function)
    def call(*tensors: keras.KerasTensor) -> keras.KerasTensor | tuple[keras.KerasTensor, ...]:
        return (once() if _fusing.get() else function)(*tensors)

    return call


def recomputed(
    function: Callable, x: keras.KerasTensor, variables: Sequence[keras.Variable], generators: Sequence
) -> keras.KerasTensor:
    """`function(x)`, of which the backward pass keeps `x` alone: it computes all between anew.

    Args:
        variables: those that `function` reads.
        generators: the SeedGenerators that it draws from, once each. It draws the same both times.
    """
    drawn = [(generator.state, generator.next()) for generator in generators]
    # Under JAX an enclosing scope holds the values, which a scope within it hides.
    held = [(variable, variable.value) for variable in variables] if keras.backend.backend() == "jax" else []

    def stateless(x):
        with keras.StatelessScope(held + drawn):
            return function(x)

    return keras.remat(stateless)(x)


def has_fast_bfloat16() -> bool:
    """Whether the device computes in bfloat16, rather than emulate it: TPUs, GPUs of compute capability 8.0 or above,
    and CPUs with avx512_bf16 or amx_bf16 instructions.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("TPU"):
            return True
        if gpus := tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpus[0])
            return details.get("compute_capability", (0, 0)) >= (8, 0)
    elif keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return device.platform == "tpu" or float(getattr(device, "compute_capability", 0)) >= 8
    flags = Path("/proc/cpuinfo")  # absent outside Linux
    return flags.exists() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16"))
