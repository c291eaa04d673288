"""The layers against the same maths in plain float64 NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from numpy_layers import (
    TOLERANCE,
    B,
    D,
    N,
    T,
    attention,
    exact_gelu,
    normalised,
    numbers,
    randomized,
    rng,
    slopes,
    tanh_gelu,
    weights_of,
)

from kerasformer import backend
from kerasformer.layers.activations import ACTIVATIONS
from kerasformer.layers.block import Block
from kerasformer.layers.dense import Dense
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.embedding import Embedding, TokenAndPositionEmbedding
from kerasformer.layers.mlp import MLP
from kerasformer.layers.norm import LayerNorm
from kerasformer.layers.residual import Residual
from kerasformer.layers.rows import Int8Policy, in_int8


def test_mlp_equals_numpy():
    layer, x = randomized(MLP(12), B, T, D), numbers(B, T, D)
    w = weights_of(layer)
    hidden = exact_gelu(x @ w["up/kernel"].T + w["up/bias"])
    np.testing.assert_allclose(layer(x), hidden @ w["down/kernel"].T + w["down/bias"], **TOLERANCE)


@pytest.mark.parametrize("fork", [False, True])
def test_the_written_gradient_of_a_norm_is_its_derivative(fusing, fork):
    layer, x, weights = randomized(LayerNorm(epsilon=1e-12), B, T, D), numbers(B, T, D), numbers(B, T, D)
    gamma, beta = weights_of(layer).values()
    beside = numbers(B, T, D) * fork

    def formula(x, gamma, beta):
        return (normalised(x, gamma, beta) * weights + x * beside).sum()

    with tf.GradientTape() as tape:
        tensor = tf.constant(x, tf.float32)
        tape.watch(tensor)
        same, normal = layer(tensor, fork=True) if fork else (tensor, layer(tensor))
        loss = tf.reduce_sum(normal * weights + same * beside)
    np.testing.assert_array_equal(same, tensor)
    dx, dgamma, dbeta = tape.gradient(loss, [tensor, layer.gamma.value, layer.beta.value])
    np.testing.assert_allclose(dx, slopes(lambda x: formula(x, gamma, beta), x), **TOLERANCE)
    np.testing.assert_allclose(dgamma, slopes(lambda gamma: formula(x, gamma, beta), gamma), **TOLERANCE)
    np.testing.assert_allclose(dbeta, slopes(lambda beta: formula(x, gamma, beta), beta), **TOLERANCE)


def test_a_forking_norm_says_what_it_gives():
    shapes = [spec.shape for spec in LayerNorm()(keras.Input((T, D)), fork=True)]
    assert shapes == [(None, T, D)] * 2


@pytest.mark.parametrize("prenorm", [False, True])
def test_residual_equals_numpy(prenorm):
    layer, x, update = randomized(Residual(prenorm=prenorm), B, T, D), numbers(B, T, D), numbers(B, T, D)
    w = weights_of(layer)
    norm = (w["norm/gamma"], w["norm/beta"])
    stream, entered = layer.enter(x)
    np.testing.assert_allclose(stream, x, **TOLERANCE)
    np.testing.assert_allclose(entered, normalised(x, *norm) if prenorm else x, **TOLERANCE)
    np.testing.assert_allclose(layer(x, update), x + update if prenorm else normalised(x + update, *norm), **TOLERANCE)


@pytest.mark.parametrize("prenorm", [False, True])
def test_block_is_its_parts_in_order(prenorm):
    block, x = randomized(Block(N, 12, prenorm=prenorm), B, T, D), numbers(B, T, D)
    w = weights_of(block)

    def part(name):
        return {path.removeprefix(name + "/"): value for path, value in w.items() if path.startswith(name + "/")}

    def mlp(y):
        v = part("mlp")
        return exact_gelu(y @ v["up/kernel"].T + v["up/bias"]) @ v["down/kernel"].T + v["down/bias"]

    def joined(y, name, sublayer):
        norm = part(f"{name}_residual/norm")
        if prenorm:
            return y + sublayer(normalised(y, norm["gamma"], norm["beta"]))
        return normalised(y + sublayer(y), norm["gamma"], norm["beta"])

    y = joined(x, "attention", lambda y: attention(y, part("attention"), np.ones((B, T, T), bool)))
    np.testing.assert_allclose(block(x), joined(y, "mlp", mlp), rtol=1e-4, atol=1e-4)


def test_small_operations_are_fused_where_a_training_step_asks_for_it_alone():
    def graph() -> str:
        block = Block(N, 2 * D, prenorm=True)
        return str(tf.function(block).get_concrete_function(tf.zeros([B, T, D])).graph.as_graph_def())

    assert "_XlaMustCompile" not in graph()
    with backend.fusing():
        assert "_XlaMustCompile" in graph()
    assert "_XlaMustCompile" not in graph()


def test_embedding_adds_its_tables():
    layer = randomized(TokenAndPositionEmbedding(11, T, D, num_segments=2), B, T)
    ids, segments = rng.integers(0, 11, (B, T)), rng.integers(0, 2, (B, T))
    w = weights_of(layer)
    tables = [w[f"{name}/embeddings"] for name in ("token", "position", "segment")]
    expected = tables[0][ids] + tables[1][np.arange(T)] + tables[2][segments]
    np.testing.assert_allclose(layer(ids, segment_ids=segments), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", exact_gelu),
        ("gelu_tanh", tanh_gelu),
        ("relu", lambda x: np.maximum(x, 0)),
        ("silu", lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_activations_equal_their_formulas(name, formula):
    x = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(ACTIVATIONS[name](ops.convert_to_tensor(x, "float32")), formula(x), **TOLERANCE)


@pytest.mark.parametrize(("name", "formula"), [("gelu", exact_gelu), ("gelu_tanh", tanh_gelu)])
def test_the_written_gradient_of_gelu_is_its_derivative(fusing, name, formula):
    x, h = np.linspace(-6, 6, 101), 1e-6
    with tf.GradientTape() as tape:
        tensor = tf.constant(x, tf.float32)
        tape.watch(tensor)
        y = ACTIVATIONS[name](tensor) * 3.0
    slope = 3 * (formula(x + h) - formula(x - h)) / (2 * h)
    np.testing.assert_allclose(tape.gradient(y, tensor), slope, **TOLERANCE)


def test_the_written_gradients_are_derivatives_under_jax_too(on_jax):
    program = """
import jax, keras, numpy as np
from kerasformer.layers.activations import gelu
from kerasformer.layers.attention import attend
from kerasformer.layers.norm import forked, normalise
rng = np.random.default_rng(0)
x, gamma, beta, weights = (rng.normal(size=s).astype("float32") for s in [(6, 8), 8, 8, (6, 8)])
def plain(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    return (centred / (x.var(-1, keepdims=True) + 1e-6) ** 0.5 * gamma + beta) * weights
def agree(written, derived, *parts):
    places = tuple(range(len(parts)))
    for ours, theirs in zip(*(jax.grad(function, places)(*parts) for function in (written, derived)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
epsilon = np.float32(1e-6)
agree(lambda *parts: (normalise(*parts, epsilon) * weights).sum(), lambda *parts: plain(*parts).sum(), x, gamma, beta)
def both(x, gamma, beta):
    same, normal = forked(x, gamma, beta, epsilon)
    return (normal * weights).sum() + (same**2).sum()
agree(both, lambda x, *rest: plain(x, *rest).sum() + (x**2).sum(), x, gamma, beta)
shapes = [*[(2, 2, 5, 4)] * 3, (5, 5)]
parts = [rng.normal(size=shape).astype("float32") for shape in shapes]
kept, upstream = rng.integers(0, 2, (2, 2, 5, 5)).astype("float32"), rng.normal(size=(2, 2, 5, 4)).astype("float32")
def attention(query, key, value, bias):
    return ((jax.nn.softmax(query @ key.swapaxes(-1, -2) / 2 + bias) * kept) @ value * upstream).sum()
agree(lambda *parts: (attend(*parts, kept) * upstream).sum(), attention, *parts)
derived = jax.grad(lambda x: (jax.nn.gelu(x, approximate=False) * weights).sum())(x)
np.testing.assert_allclose(jax.grad(lambda x: (gelu(x) * weights).sum())(x), derived, rtol=1e-4, atol=1e-4)
"""
    assert on_jax(program) == ""


@pytest.mark.parametrize("last", [500, 501, 502, 503])
def test_dropout_keeps_the_mean_and_drops_its_share(last):
    x = np.ones((200, last), np.float32)
    y = np.asarray(Dropout(0.3)(x, training=True))
    share = round(0.3 * 256) / 256
    # Five standard deviations of the mean of 100,000 draws.
    assert abs((y == 0).mean() - share) < 5 * math.sqrt(share * (1 - share) / y.size)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - share), rtol=1e-6)


def test_dropout_differs_from_call_to_call_and_rests_outside_training():
    layer, x = Dropout(0.5), np.ones((10, 10), np.float32)
    assert not np.array_equal(layer(x, training=True), layer(x, training=True))
    np.testing.assert_array_equal(layer(x), x)


def test_dropout_of_everything_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Dropout(1.0)


def test_a_kernel_is_held_by_unit_and_learns_as_numpy_derives():
    layer, x, upstream = randomized(Dense(3), B, T, D), numbers(B, T, D), numbers(B, T, 3)
    w = weights_of(layer)
    assert w["kernel"].shape == (3, D)
    x_tensor = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x_tensor)
        y = layer(x_tensor)
        total = tf.reduce_sum(y * upstream)
    dx, dkernel, dbias = tape.gradient(total, [x_tensor, layer.kernel.value, layer.bias.value])
    np.testing.assert_allclose(y, x @ w["kernel"].T + w["bias"], **TOLERANCE)
    np.testing.assert_allclose(dx, upstream @ w["kernel"], **TOLERANCE)
    np.testing.assert_allclose(dkernel, np.einsum("bto,bti->oi", upstream, x), **TOLERANCE)
    np.testing.assert_allclose(dbias, upstream.sum(axis=(0, 1)), **TOLERANCE)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS.values()])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2**-7)])
def test_packed_weights_are_those_of_the_first_call(dtype, tolerance, activation):
    layer, exact = (Dense(50, activation, dtype=dtype) for dtype in (dtype, "float64"))
    randomized(layer, None, 64)
    exact.build((None, 64))
    exact.set_weights(layer.get_weights())
    function = tf.function(backend.packed(layer), [tf.TensorSpec((None, 64), dtype)])
    for count in (3, 8, 1, 100, 8):
        x = tf.cast(numbers(count, 64), dtype)
        expected = np.asarray(exact(tf.cast(x, "float64")))
        assert np.abs(tf.cast(function(x), "float64") - expected).max() < tolerance * np.abs(expected).max()
        layer.kernel.assign(2 * layer.kernel)
        if not backend.has_packed_products(dtype):
            exact.kernel.assign(2 * exact.kernel)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_in_int8_are_off_by_half_a_step_at_most(dtype):
    rows, x = numbers(6, D), numbers(3, D)
    rows[2] = 0
    values, scale = in_int8(rows)
    held = values * scale[:, None].astype(np.float64)
    assert (np.abs(held - rows) <= scale[:, None] * 0.501).all()

    layer = Dense(6, use_bias=False, dtype=Int8Policy(dtype))
    layer.build((None, D))
    layer.set_weights([values, scale])
    tolerance = 1e-5 if dtype == "float32" else 4e-2  # bfloat16 keeps eight bits, of inputs and of outputs
    np.testing.assert_allclose(ops.cast(layer(x), "float32"), x @ held.T, rtol=tolerance, atol=tolerance)
    assert [weight.dtype for weight in layer.weights] == ["int8", "float32"]

    table = Embedding(6, D, dtype=Int8Policy(dtype))
    table.build(None)
    table.set_weights([values, scale])
    taken = ops.cast(table(np.array([[5, 2], [0, 5]])), "float32")
    np.testing.assert_allclose(taken, held[[[5, 2], [0, 5]]], rtol=tolerance, atol=tolerance)
