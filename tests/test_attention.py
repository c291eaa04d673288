"""Attention against the same maths in plain float64 NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from numpy_layers import TOLERANCE, B, D, N, T, attention, numbers, randomized, rng, slopes, softmax, weights_of

from kerasformer import backend
from kerasformer.layers.attention import Cache, SelfAttention, attend
from kerasformer.layers.masks import hidden_from, padding_bias


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_equals_numpy(is_causal):
    layer, x = randomized(SelfAttention(N, is_causal=is_causal), B, T, D), numbers(B, T, D)
    padding = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    seen = np.broadcast_to(padding[:, None], (B, T, T)) * (np.tri(T) if is_causal else 1)
    ours = layer(x, attention_bias=padding_bias(padding, "float32"))
    np.testing.assert_allclose(ours, attention(x, weights_of(layer), seen == 1), **TOLERANCE)


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("room", [T, T + 4])
def test_attention_with_a_cache_equals_attention_at_once(window, room):
    layer, x = randomized(SelfAttention(N, is_causal=True, window=window), B, T, D), numbers(B, T, D)
    empty = np.zeros((B, N, room, D // N), np.float32)
    prompt, cache = layer(x[:, :2], cache=Cache(empty, empty))
    parts = [prompt]
    for t in range(2, T):
        step, cache = layer(x[:, t : t + 1], cache=cache, start=np.int32(t))
        parts.append(step)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), layer(x), **TOLERANCE)
    assert tuple(cache.keys.shape) == (B, N, room, D // N)


@pytest.mark.parametrize(
    ("bias_shape", "drops"),
    [((B, 1, 1, T), True), ((1, 1, T, T), False), ((B, N, T, T), False), ((T, T), True), (None, False)],
)
def test_the_written_gradient_of_attention_is_its_derivative(fusing, bias_shape, drops):
    inputs = {name: numbers(B, N, T, D // N) for name in ("query", "key", "value")}
    if bias_shape is not None:
        inputs["bias"] = numbers(*bias_shape)
    if drops:
        inputs["kept"] = 2.0 * rng.integers(0, 2, (B, N, T, T))
    upstream = numbers(B, N, T, D // N)

    def formula(query, key, value, bias=0.0, kept=1.0):
        return (softmax(query @ key.swapaxes(-1, -2) / math.sqrt(D // N) + bias) * kept) @ value

    with tf.GradientTape() as tape:
        tensors = {name: tf.constant(part, tf.float32) for name, part in inputs.items()}
        tape.watch(tensors)
        attended = attend(**tensors)
        loss = tf.reduce_sum(attended * upstream)
    np.testing.assert_allclose(attended, formula(**inputs), **TOLERANCE)
    for name, found in tape.gradient(loss, tensors).items():
        expected = slopes(lambda part, name=name: (formula(**inputs | {name: part}) * upstream).sum(), inputs[name])
        np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_a_window_bounds_what_a_position_sees():
    layer, x = randomized(SelfAttention(N, is_causal=True, window=2), B, T, D), numbers(B, T, D)
    seen = np.broadcast_to(np.tri(T) - np.tri(T, k=-2), (B, T, T)) == 1
    np.testing.assert_allclose(layer(x), attention(x, weights_of(layer), seen), **TOLERANCE)


def test_hidden_keys_do_not_matter():
    layer, x = randomized(SelfAttention(N), B, T, D), numbers(B, T, D)
    bias = padding_bias(np.array([[1, 1, 1, 0, 0]] * B), "float32")
    changed = x.copy()
    changed[:, 3:] = 100 * numbers(B, 2, D)
    np.testing.assert_allclose(
        layer(x, attention_bias=bias)[:, :3], layer(changed, attention_bias=bias)[:, :3], **TOLERANCE
    )


def test_a_row_of_padding_alone_stays_finite():
    layer = randomized(SelfAttention(N), B, T, D)
    assert np.isfinite(layer(numbers(B, T, D), attention_bias=padding_bias(np.zeros((B, T)), "float32"))).all()


def test_what_is_hidden_counts_what_is_in_the_cache():
    np.testing.assert_array_equal(hidden_from(2, 3, start=1), [[False, False, True], [False, False, False]])


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_attention_is_the_same_whether_its_sizes_are_known(dtype):
    layer = randomized(SelfAttention(N, is_causal=True, dtype=dtype), B, T, D)
    x, bias = tf.constant(numbers(4, 32, D), "float32"), tf.constant(numbers(4, 1, 1, 32), layer.compute_dtype)

    def gradient(x, bias):
        with backend.fusing(), tf.GradientTape() as tape:
            tape.watch(x)
            attended = tf.cast(layer(x, attention_bias=bias), "float32")
            loss = tf.reduce_sum(attended * tf.range(float(D)))
        return attended, tape.gradient(loss, x)

    sizes = [[None, 32], [4, None], [None, None]]
    known = tf.function(gradient)(x, bias)
    for b, t in sizes:
        signature = tf.TensorSpec([b, t, D]), tf.TensorSpec([b, 1, 1, t], bias.dtype)
        for ours, theirs in zip(tf.function(gradient, signature)(x, bias), known, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("known", [(1, 1), (B, 1), (None, 1)])
def test_one_token_reads_the_cache_as_part_of_a_text_does(known, dtype):
    layer = randomized(SelfAttention(N, is_causal=True, dtype=dtype), B, T, D)
    x = tf.constant(numbers(known[0] or B, 1, D), dtype)
    held = tf.constant(numbers(len(x), N, 7, D // N), dtype)

    def read(x, held, start):
        output, cache = layer(x, cache=Cache(held, held[::-1]), start=start)
        return output, *cache

    def made(shape, compiled=tf.function):
        specs = (
            tf.TensorSpec([*shape, D], dtype),
            tf.TensorSpec([shape[0], N, 7, D // N], dtype),
            tf.TensorSpec([], "int32"),
        )
        return compiled(read).get_concrete_function(*specs)(x, held, tf.constant(4))

    of_any_length = made((None, None))
    # Sums of float32 in another order; in bfloat16, of eight bits, what is between may be rounded to the other side.
    tolerance = 1e-5 if dtype == "float32" else 2**-6
    for compiled in (tf.function, backend.fused):
        for ours, theirs in zip(made(known, compiled), of_any_length, strict=True):
            ours, theirs = (tf.cast(part, "float32").numpy() for part in (ours, theirs))
            assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_bias_of_integers_is_one_too(is_causal):
    layer, x = randomized(SelfAttention(N, is_causal=is_causal, dtype="mixed_bfloat16"), B, T, D), numbers(B, T, D)
    bias = 3 * rng.integers(0, 2, (B, 1, 1, T))
    np.testing.assert_array_equal(layer(x, attention_bias=bias), layer(x, attention_bias=tf.constant(bias, "bfloat16")))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim=8 and num_heads=3"):
        SelfAttention(3).build((B, T, D))
