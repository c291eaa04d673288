"""What is computed in other ways where XLA compiles it for a CPU, and gives the same."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from kerasformer import backend
from kerasformer.layers.attention import attention_weights, side_by_side
from kerasformer.layers.dense import Dense
from kerasformer.layers.reductions import largest, summed
from kerasformer.layers.rows import Int8Policy, in_int8

rng = np.random.default_rng(0)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 64, 257, 768, 1000, 4096, 50_257])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_in_parts(length, axis, keepdims):
    x = rng.normal(size=(length, 3) if axis == 0 else (3, length)).astype(np.float32)
    for ours, theirs in ((summed, np.sum), (largest, np.max)):
        reduced = backend.fused(functools.partial(ours, axis=axis, keepdims=keepdims))(tf.constant(x))
        expected = theirs(x.astype(np.float64), axis=axis, keepdims=keepdims)
        np.testing.assert_allclose(reduced, expected, rtol=1e-5, atol=1e-5)  # float32 keeps seven digits


@pytest.mark.parametrize("length", [5, 9, 17, 96, 100, 257])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_sum_does_not_hang_on_what_was_traced_before(length, axis):
    x = tf.constant(rng.normal(size=(length, 3) if axis == 0 else (3, length)), tf.float32)
    sums = [backend.fused(functools.partial(summed, axis=axis)) for _ in range(2)]
    sums[1].get_concrete_function(tf.TensorSpec([None, None], tf.float32))  # serves tensors of any shape
    known, unknown = (function(x).numpy() for function in sums)
    assert known.tobytes() == unknown.tobytes()
    assert sums[1].experimental_get_tracing_count() == 1


def test_bfloat16_is_rounded_to_the_last_bit():
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)  # of every sign, exponent and kind of NaN
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20]
    ones = np.array([2**32 - 1, 2**31 - 1], np.uint32).view(np.float32)  # NaNs that a sum would carry over to zero
    x = tf.constant(np.concatenate([bits.view(np.float32), np.float32(special), ones]))
    with backend.fusing():
        given = backend.fused(functools.partial(backend.cast, dtype="bfloat16"))(x).numpy()
    with np.errstate(invalid="ignore"):
        expected = x.numpy().astype(given.dtype)
    is_nan = np.isnan(x.numpy())
    assert np.isnan(given[is_nan].astype(np.float32)).all()
    assert (given.view(np.uint16) == expected.view(np.uint16))[~is_nan].all()


def test_exponentials_have_the_digits_of_float32():
    x = np.concatenate([np.linspace(-87, 0, 1_000_001), [-1e-30, -87.1, -1e30, -np.inf, np.nan]]).astype(np.float32)
    with backend.fusing():
        given = backend.fused(backend.exp)(tf.constant(x)).numpy()
    expected = np.exp(x.astype(np.float64)) * (~(x < -87))
    np.testing.assert_allclose(given, expected, rtol=2e-7)


@pytest.mark.parametrize("batch, heads, length", [(1, 1, 1), (1, 12, 1), (3, 5, 1), (2, 3, 4)])
def test_heads_lie_side_by_side(batch, heads, length):
    x = rng.normal(size=(batch, heads, length, 6)).astype(np.float32)
    expected = x.transpose(0, 2, 1, 3).reshape(batch, length, heads * 6)
    for function in (side_by_side, backend.fused(side_by_side)):
        assert (function(tf.constant(x)).numpy() == expected).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_slice_is_updated_to_the_last_bit(dtype):
    x, part = (tf.constant(rng.normal(size=shape), dtype) for shape in ((6, 20), (6, 5)))
    expected = x.numpy()
    expected[:, 7:12] = part
    for compiled in (tf.function, backend.fused):
        updated = compiled(lambda start: backend.slice_update(x, (0, start), part))(tf.constant(7))
        assert updated.dtype == dtype
        assert updated.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_in_int8_give_the_same_product(dtype):
    values, scale = in_int8(rng.normal(size=(10, 33)).astype(np.float32))
    layer = Dense(10, dtype=Int8Policy(dtype))
    layer.build((None, 33))
    layer.set_weights([rng.normal(size=10), values, scale])
    x = tf.constant(rng.normal(size=(1, 33)), dtype)
    plain, fused = (tf.cast(function(layer)(x), "float64") for function in (tf.function, backend.fused))
    tolerance = 1e-6 if dtype == "float32" else 2**-7  # of the largest: bfloat16's eight bits, rounded at other places
    assert np.abs(plain - fused).max() <= tolerance * np.abs(plain).max()


@pytest.mark.parametrize("kernel", ["the fastest", "XLA's"])
@pytest.mark.parametrize("length", [1, 5, 300])
def test_attention_weights_of_bfloat16_are_those_of_float32(kernel, length, monkeypatch):
    if kernel == "XLA's":
        monkeypatch.setattr(backend, "_has_exact_softmax", lambda dtype: False)
    scores = tf.cast(3 * rng.normal(size=(2, 2, length, length)), "bfloat16")

    @tf.function
    def weights():
        with backend.fusing():
            return attention_weights(scores)

    exponentials = np.exp(scores.numpy().astype(np.float64))
    expected = exponentials / exponentials.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights().numpy().astype(np.float64), expected, rtol=2**-8)  # bfloat16 keeps 8 bits


def test_a_softmax_that_is_not_exact_is_not_taken():
    program = "from kerasformer import backend; print(backend._has_exact_softmax('bfloat16'))"
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}  # TensorFlow's own kernel is off by 8 %
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
