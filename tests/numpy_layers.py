"""The layers' maths in plain float64 NumPy, and layers of random weights to compare with it.

Tolerance 1e-5: float32 keeps seven digits, and no sum here has more than a few dozen terms.
"""

import math

import keras
import numpy as np

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
