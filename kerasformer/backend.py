"""What differs from backend to backend: how a function is compiled, and what the machine computes fast."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import keras
import numpy as np

from kerasformer.kernels.probes import fastest

# How the function that is being traced will run; each is set within the functions and contexts of its name.
_fused = ContextVar("fused", default=False)
_fusing = ContextVar("fusing", default=False)
_packed = ContextVar("packed", default=False)


# Of `exp`. The polynomial is off by 1e-7 of e**r at most, the least for its degree and EXP[-1] = 1.
EXP = (0.00829030623, 0.041897976, 0.166676366, 0.499991492, 0.999999707, 1.0)
LOG2_E, LN2_UPPER, LN2_LOWER = 1.44269504, 0.693359375, -2.12194440e-4
EXPONENTS, SMALLEST = 3 * 2.0**22 + 127, -87.0


def compiled(function: Callable, variables: Sequence[keras.Variable]) -> Callable:
    """A pure function of tensors, compiled once for each shape of its inputs; it reads the variables at each call."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True, autograph=False)
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

        return tf.function(_within(_fused, function), jit_compile=True, autograph=False)
    return function


def packed(function: Callable) -> Callable:
    """A part of a compiled function that is dropped before its weights change: `packed_product` serves it."""
    return _within(_packed, function)


@contextmanager
def fusing(on: bool = True) -> Iterator[None]:
    """Within it what is `fusible` is `fused`, unless all is, by a `fused` function around it."""
    with _set(_fusing, on and not _fused.get()):
        yield


def fusible(function: Callable) -> Callable:
    """A pure function of tensors, many small operations, that is one where a training step asks for it by `fusing`.

    Elsewhere it is what it was: no operation of XLA comes into an export.
    """
    once = functools.cache(lambda: fused(function))

    @functools.wraps(function)
    def call(*tensors: keras.KerasTensor) -> keras.KerasTensor | tuple[keras.KerasTensor, ...]:
        return (once() if _fusing.get() else function)(*tensors)

    return call


def is_packed(dtype: str) -> bool:
    """Whether a `packed` function is being traced, and there is a `packed_product` of this dtype."""
    if not (_packed.get() and has_packed_products(dtype)):
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def packed_product(
    x: keras.KerasTensor, rows: keras.KerasTensor, bias: keras.KerasTensor | None = None, activation: str = ""
) -> keras.KerasTensor:
    """`activation(x @ rows.T + bias)`, [M, D] and [R, D] -> [M, R], with the rows of the first call ever after.

    It is what TensorFlow makes of a product with a constant of its graph, which weights of gigabytes cannot be. The
    kernel (oneDNN) keeps the rows in its own layout; to bring them into that takes as long as a product with few x.

    Args:
        activation: oneDNN's name of it, as GeluApproximate; none by default.
    """
    import tensorflow as tf

    dtype = tf.compat.v1.AttrValue(type=x.dtype.as_datatype_enum)
    bias = tf.zeros(rows.shape[:1], x.dtype) if bias is None else bias
    inputs = {"x": x, "rows": rows, "bias": bias}
    places = [tf.compat.v1.NodeDef(name=name, op="Placeholder", attr={"dtype": dtype}) for name in inputs]
    node = tf.compat.v1.NodeDef(name="product", op="_MklNativeFusedMatMul", input=inputs, attr={"T": dtype})
    node.attr["transpose_b"].b = node.attr["is_filter_const"].b = True
    node.attr["num_args"].i = 1
    node.attr["fused_ops"].list.s.extend(name.encode() for name in ("BiasAdd", activation) if name)
    node.attr["_kernel"].s = b"MklNameChangeOp"
    graph = tf.compat.v1.GraphDef(node=[*places, node])  # as the operation has no function in `tf`
    [product] = tf.graph_util.import_graph_def(graph, inputs, ["product:0"], name="")
    return product


@functools.cache
def has_packed_products(dtype: str) -> bool:
    """Whether TensorFlow computes on a CPU, and has the kernel of `packed_product` for this dtype."""
    if not _may_be_onednn(dtype):
        return False
    import tensorflow as tf

    x, rows = np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]])
    return _gives(lambda: packed_product(tf.constant(x, dtype), tf.constant(rows, dtype)), rows.T)


def is_softmax_exact(dtype: str) -> bool:
    """Whether a `fusing` function is being traced, and `keras.ops.softmax` of this dtype computes in float32.

    oneDNN's does, at several times the speed of what XLA makes of it. TensorFlow's own is off by 8 % in bfloat16.
    """
    if not (_fusing.get() and _has_exact_softmax(dtype)):
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()  # the probe was of a graph


@functools.cache
def _has_exact_softmax(dtype: str) -> bool:
    if not _may_be_onednn(dtype):
        return False
    import tensorflow as tf

    logits = np.linspace(-8, 8, 129)  # which bfloat16 holds as they are
    weights = np.exp(logits) / np.exp(logits).sum()
    return _gives(lambda: tf.nn.softmax(tf.constant(logits, dtype)), weights, tolerance=2**-8)


def _may_be_onednn(dtype: str) -> bool:
    # A kernel for a dtype that the CPU does not compute in would end the process: it must not even be tried.
    is_fast = dtype == "float32" or (dtype == "bfloat16" and has_fast_bfloat16())
    return keras.backend.backend() == "tensorflow" and is_fast and not has_accelerator()


def _gives(function: Callable, expected: np.ndarray, tolerance: float = 0.0) -> bool:
    """Whether a function of TensorFlow's is there, and gives what it should but for a relative difference."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # whatever is being traced, or run eagerly
        try:
            given = session.run(function())
        except (ValueError, tf.errors.OpError):
            return False
    return bool(np.allclose(given.astype("float64"), expected, rtol=tolerance, atol=0))


def slice_update(
    x: keras.KerasTensor, start: Sequence[int | keras.KerasTensor], part: keras.KerasTensor
) -> keras.KerasTensor:
    """`x` with `part` at `start` and after; TensorFlow writes into `x` itself where nothing else will read it.

    `keras.ops.slice_update` is an operation of XLA alone on TensorFlow, which no server runs.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.ops.slice_update(x, start, part)
    import tensorflow as tf

    if is_fused_on_cpu() and x.dtype.size == 2:  # as they are, XLA would convert all of x to float32, and back
        bits = keras.ops.slice_update(tf.bitcast(x, tf.int16), start, tf.bitcast(part, tf.int16))
        return tf.bitcast(bits, x.dtype)
    if _fused.get():  # XLA would compile what is below for minutes
        return keras.ops.slice_update(x, start, part)
    begin = tf.stack(start)
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=x, begin=begin, end=begin + tf.shape(part), strides=[1] * len(start), value=part
    )


def argmax(x: keras.KerasTensor) -> keras.KerasTensor:
    """The place of the largest number along the last axis, int32, the first of several; zeros of both signs are equal.

    `keras.ops.argmax` looks for negative zeros, which takes longer than the search.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.argmax(x, axis=-1, output_type=tf.int32)
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.argmax(x, axis=-1).astype("int32")
    return keras.ops.cast(keras.ops.argmax(x, axis=-1), "int32")


def lookup(table: keras.Variable, ids: keras.KerasTensor) -> keras.KerasTensor:
    """The rows of `table` [R, ...] at `ids` [...]; never, as with `keras.ops.take`, from the end for an id below 0.

    An id that is not from 0 to R - 1 is an error of TensorFlow's on a CPU; on a GPU it gives zeros, under JAX NaN.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(keras.ops.convert_to_tensor(table), ids)
    if keras.backend.backend() == "jax":
        ids = keras.ops.convert_to_tensor(ids)
        ids = keras.ops.where(ids < 0, table.shape[0], ids)
    return keras.ops.take(table, ids, axis=0)


def is_fused_on_cpu() -> bool:
    """Whether a `fused` function is being traced, for a CPU."""
    return _fused.get() and not has_accelerator()


def cast(x: keras.KerasTensor, dtype: str) -> keras.KerasTensor:
    """`keras.ops.cast`, to the last bit but for a NaN's, of what a `fusible` function returns.

    In a training step on a CPU float32 becomes bfloat16 by integers, as XLA's own code for it takes longer than most of
    what comes before. Not so within a larger function of XLA's, in which the result may never be in memory.
    """
    dtype, given = map(keras.backend.standardize_dtype, (dtype, x.dtype))
    if not (_fusing.get() and is_fused_on_cpu() and (given, dtype) == ("float32", "bfloat16")):
        return keras.ops.cast(x, dtype)
    import tensorflow as tf

    bits = tf.bitcast(x, tf.int32)
    is_odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 16), 1)  # of two that are as near, the even one
    upper = tf.bitwise.right_shift(bits + 0x7FFF + is_odd, 16)
    return tf.bitcast(tf.cast(tf.where(tf.math.is_nan(x), 0x7FC0, upper), tf.int16), tf.bfloat16)


def exp(x: keras.KerasTensor) -> keras.KerasTensor:
    """`keras.ops.exp` of numbers up to 0, to 2e-7 of it, of what a `fusible` function returns.

    In a training step on a CPU, e**x = 2**k * e**r with |r| <= ln(2) / 2, as XLA's own code takes longer than most of
    what comes before. Below -87, where float32 nears its least number of all digits, it is 0. It has no gradient.
    """
    if not (_fusing.get() and is_fused_on_cpu() and keras.backend.standardize_dtype(x.dtype) == "float32"):
        return keras.ops.exp(x)
    import tensorflow as tf

    k = tf.round(x * LOG2_E)
    r = x - k * LN2_UPPER - k * LN2_LOWER  # the first product is exact (Cody & Waite 1980)
    # The sum's last bits are k + 127: what float32 has as the exponent of 2**k.
    power = tf.bitcast(tf.bitwise.left_shift(tf.bitcast(k + EXPONENTS, tf.int32), 23), tf.float32)
    return tf.where(x < SMALLEST, 0.0, power * functools.reduce(lambda sum, factor: sum * r + factor, EXP))


def has_accelerator() -> bool:
    """Whether the computations are a GPU's or a TPU's."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return any(map(tf.config.list_physical_devices, ("GPU", "TPU")))
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return False


def has_fast_bfloat16() -> bool:
    """Whether the device computes in bfloat16, rather than emulate it: TPUs, GPUs of compute capability 8.0 or above,
    and CPUs with avx512_bf16 or amx_bf16 instructions whose products take less time than those of float32.
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
    return _has_bfloat16_instructions() and _is_bfloat16_faster()


@functools.cache
def _is_bfloat16_faster() -> bool:
    """Whether products of bfloat16 take less time than those of float32."""

    def product(dtype: str) -> Callable[[], object]:
        x = keras.ops.convert_to_tensor(np.ones((512, 1024)), dtype)
        multiply = compiled(lambda: keras.ops.matmul(x, keras.ops.transpose(x)), [])
        return lambda: keras.ops.convert_to_numpy(keras.ops.cast(multiply(), "float32"))

    choice = f"the format of {keras.backend.backend()}'s products"
    return fastest(choice, {dtype: product(dtype) for dtype in ("bfloat16", "float32")}) == "bfloat16"


def _has_bfloat16_instructions() -> bool:
    """Whether the CPU has instructions of bfloat16, and TensorFlow is not told to leave them."""
    limits = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # which make less of a CPU than it is
    if any(map(os.getenv, limits)) or os.getenv("TF_ENABLE_ONEDNN_OPTS") == "0":
        return False
    flags = Path("/proc/cpuinfo")  # absent outside Linux
    return flags.exists() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16"))


@contextmanager
def _set(variable: ContextVar, value: bool) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _within(variable: ContextVar, function: Callable) -> Callable:
    """The function, as it is traced where the variable is set."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        with _set(variable, True):
            return function(*args, **kwargs)

    return call
