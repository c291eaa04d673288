"""The layers against the same maths in plain float64 NumPy.

Tolerance 1e-5: float32 keeps seven digits, and no sum here has more than a few dozen terms.
"""

import importlib.util
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasformer import backend
from kerasformer.layers.activations import ACTIVATIONS
from kerasformer.layers.attention import Cache, SelfAttention, attention_weights
from kerasformer.layers.block import Block
from kerasformer.layers.dense import Dense
from kerasformer.layers.dropout import Dropout
from kerasformer.layers.embedding import Embedding, TokenAndPositionEmbedding
from kerasformer.layers.masks import causal_penalty, padding_bias
from kerasformer.layers.mlp import MLP
from kerasformer.layers.norm import LayerNorm
from kerasformer.layers.residual import Residual
from kerasformer.layers.rows import Int8Policy, in_int8

B, T, D, N = 2, 5, 8, 2
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
rng = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def randomized(layer: keras.layers.Layer, *shape: int) -> keras.layers.Layer:
    """The layer built, with every weight random, biases too."""
    layer.build(shape)
    layer.set_weights([numbers(*weight.shape) * 0.5 for weight in layer.weights])
    return layer


def weights_of(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    return {v.path.split("/", 1)[1]: v.numpy().astype(np.float64) for v in layer.weights}


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def normalised(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * gamma + beta


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def exact_gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(x: np.ndarray, w: dict[str, np.ndarray], seen: np.ndarray) -> np.ndarray:
    """Attention of every position over the keys where `seen` [B, T, S] holds."""
    query, key, value = np.split(x @ w["query_key_value/kernel"].T + w["query_key_value/bias"], 3, axis=-1)
    heads = []
    for h in range(N):
        part = slice(h * D // N, (h + 1) * D // N)
        scores = query[..., part] @ key[..., part].swapaxes(1, 2) / math.sqrt(D // N)
        heads.append(softmax(np.where(seen, scores, -1e9)) @ value[..., part])
    return np.concatenate(heads, axis=-1) @ w["output/kernel"].T + w["output/bias"]


def slopes(function, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """The gradient of a scalar function by central differences, in float64."""
    changes = h * np.eye(x.size).reshape(-1, *x.shape)
    return np.reshape([(function(x + change) - function(x - change)) / (2 * h) for change in changes], x.shape)


@pytest.fixture(params=[False, True], ids=["operations", "fused"])
def fusing(request):
    """As elsewhere, and as within a training step."""
    with backend.fusing(request.param):
        yield


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


@pytest.mark.parametrize("penalty_shape", [(B, 1, 1, T), (1, 1, T, T), (B, N, T, T), (T, T), None])
def test_the_written_gradient_of_attention_weights_is_their_derivative(fusing, penalty_shape):
    scores, weights = numbers(B, N, T, T), numbers(B, N, T, T)
    inputs = [scores] if penalty_shape is None else [scores, numbers(*penalty_shape)]
    with tf.GradientTape() as tape:
        tensors = [tf.constant(part, tf.float32) for part in inputs]
        tape.watch(tensors)
        loss = tf.reduce_sum(attention_weights(*tensors) * weights)

    def less(penalty: np.ndarray | float) -> np.ndarray:
        return (softmax(scores - penalty) * weights).sum()

    for_scores, *for_penalty = tape.gradient(loss, tensors)
    penalty = sum(inputs[1:], np.zeros(1))
    np.testing.assert_allclose(for_scores, -slopes(less, np.zeros_like(scores) + penalty), **TOLERANCE)
    for found, part in zip(for_penalty, inputs[1:], strict=True):
        np.testing.assert_allclose(found, slopes(less, part), **TOLERANCE)


def test_small_operations_are_fused_where_a_training_step_asks_for_it_alone():
    def graph() -> str:
        block = Block(N, 2 * D, prenorm=True)
        return str(tf.function(block).get_concrete_function(tf.zeros([B, T, D])).graph.as_graph_def())

    assert "_XlaMustCompile" not in graph()
    with backend.fusing():
        assert "_XlaMustCompile" in graph()
    assert "_XlaMustCompile" not in graph()


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


def test_causal_penalty_counts_what_is_in_the_cache():
    hidden = causal_penalty(2, 3, "float32", start=1)[0, 0] > 0
    np.testing.assert_array_equal(hidden, [[False, False, True], [False, False, False]])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim=8 and num_heads=3"):
        SelfAttention(3).build((B, T, D))


def test_mlp_equals_numpy():
    layer, x = randomized(MLP(12), B, T, D), numbers(B, T, D)
    w = weights_of(layer)
    hidden = exact_gelu(x @ w["up/kernel"].T + w["up/bias"])
    np.testing.assert_allclose(layer(x), hidden @ w["down/kernel"].T + w["down/bias"], **TOLERANCE)


def test_the_written_gradient_of_a_norm_is_its_derivative(fusing):
    layer, x, weights = randomized(LayerNorm(epsilon=1e-12), B, T, D), numbers(B, T, D), numbers(B, T, D)
    gamma, beta = weights_of(layer).values()
    with tf.GradientTape() as tape:
        tensor = tf.constant(x, tf.float32)
        tape.watch(tensor)
        loss = tf.reduce_sum(layer(tensor) * weights)
    dx, dgamma, dbeta = tape.gradient(loss, [tensor, layer.gamma.value, layer.beta.value])
    np.testing.assert_allclose(dx, slopes(lambda x: (normalised(x, gamma, beta) * weights).sum(), x), **TOLERANCE)
    np.testing.assert_allclose(dgamma, slopes(lambda g: (normalised(x, g, beta) * weights).sum(), gamma), **TOLERANCE)
    np.testing.assert_allclose(dbeta, slopes(lambda b: (normalised(x, gamma, b) * weights).sum(), beta), **TOLERANCE)


@pytest.mark.parametrize("prenorm", [False, True])
def test_residual_equals_numpy(prenorm):
    layer, x, update = randomized(Residual(prenorm=prenorm), B, T, D), numbers(B, T, D), numbers(B, T, D)
    w = weights_of(layer)
    norm = (w["norm/gamma"], w["norm/beta"])
    np.testing.assert_allclose(layer.enter(x), normalised(x, *norm) if prenorm else x, **TOLERANCE)
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


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="the jax extra is not installed")
def test_the_written_gradients_are_derivatives_under_jax_too():
    program = """
import jax, keras, numpy as np
from kerasformer.layers.activations import gelu
from kerasformer.layers.norm import normalise
rng = np.random.default_rng(0)
x, gamma, beta, weights = (rng.normal(size=s).astype("float32") for s in [(6, 8), 8, 8, (6, 8)])
def plain(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    return (centred / (x.var(-1, keepdims=True) + 1e-6) ** 0.5 * gamma + beta) * weights
derived = jax.grad(lambda *parts: plain(*parts).sum(), (0, 1, 2))(x, gamma, beta)
written = jax.grad(lambda *parts: (normalise(*parts, np.float32(1e-6)) * weights).sum(), (0, 1, 2))(x, gamma, beta)
for ours, theirs in zip(written, derived, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
derived = jax.grad(lambda x: (jax.nn.gelu(x, approximate=False) * weights).sum())(x)
np.testing.assert_allclose(jax.grad(lambda x: (gelu(x) * weights).sum())(x), derived, rtol=1e-4, atol=1e-4)
"""
    environment = {"KERAS_BACKEND": "jax", "PATH": "", "JAX_PLATFORMS": "cpu"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


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
