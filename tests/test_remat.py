"""Recomputed blocks: the same gradients, of the same dropout, with less kept for them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.models.families import families
from kerasformer.training.tasks import Classifier

SIZES = {"vocab_size": 30, "num_layers": 2, "num_heads": 2, "dim": 16, "mlp_dim": 24, "max_length": 16}
FAMILIES = families()


def gradients_of(family, *, remat, dtype="float32", jit=False, draw=1, **rates):
    """Loss and gradients with the dropout of a draw, and how many softmaxes are computed."""
    keras.utils.set_random_seed(0)
    model = Classifier(family(family.config_class(**SIZES, **rates), dtype=dtype), ["a", "b"])
    model.backbone.set_remat(remat)
    ids = np.random.default_rng(0).integers(0, 30, (3, 7)).astype(np.int32)
    mask = (np.arange(7) < np.array([[7], [4], [1]])).astype(np.int32)
    made = {"token_ids": ids, "padding_mask": mask}
    inputs = {name: tf.constant(made.get(name, np.zeros_like(ids))) for name in model.input_names}
    model.compile("sgd", jit_compile=False)
    step = tf.function(model.sum_gradients, jit_compile=jit)
    arguments = inputs, tf.constant([0, 1, 1]), tf.ones(3), tf.constant(draw)
    loss, _, gradients = step(*arguments)
    operations = step.get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [node.op for part in (operations, *operations.library.function) for node in _nodes(part)]
    return float(loss), [np.array(g, np.float64) for g in gradients], nodes.count("Softmax")


def _nodes(part):
    return part.node if hasattr(part, "node") else part.node_def


@pytest.mark.parametrize(("name", "jit"), [*((name, False) for name in FAMILIES), ("gpt2", True)])
def test_gradients_are_those_without_it(name, jit):
    """With dropout, and in float32, of which 1e-6 of the largest number is the rounding."""
    family = FAMILIES[name]
    rates = {"dropout": 0.2, "attention_dropout": 0.1}
    loss, plain, softmaxes = gradients_of(family, remat=False, jit=jit, **rates)
    again, recomputed, computed = gradients_of(family, remat=True, jit=jit, **rates)
    assert again == pytest.approx(loss, rel=1e-6)
    scale = max(np.abs(gradient).max() for gradient in plain)
    for one, other in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6 * scale)
    assert (softmaxes, computed) == (2, 4)  # once more in each block


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_bfloat16_is_recomputed_to_the_bit(family):
    loss, plain, _ = gradients_of(family, remat=False, dtype="mixed_bfloat16", dropout=0.2)
    again, recomputed, _ = gradients_of(family, remat=True, dtype="mixed_bfloat16", dropout=0.2)
    assert again == loss
    for one, other in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=0.02 * np.abs(one).max() + 1e-9)


def test_each_draw_drops_other_units():
    """Also those that are 1024 steps, or 8, apart: modulo Keras's 2**31 - 2 they are near to one another."""
    model = Classifier(FAMILIES["gpt2"](FAMILIES["gpt2"].config_class(**SIZES, dropout=0.5)), ["a", "b"])
    model.compile("sgd", jit_compile=False)
    inputs = {"token_ids": tf.constant(np.arange(14).reshape(2, 7) % 30, tf.int32)}
    gradients = tf.function(model.sum_gradients)
    draws = [step * 2**20 + part for step in (0, 1, 8, 1024, 2**40) for part in range(4)]
    losses = [float(gradients(inputs, tf.constant([0, 1]), tf.ones(2), tf.constant(draw))[0]) for draw in draws]
    assert len(set(losses)) == len(draws)
    states = np.array([[state.numpy() for _, state in model._seeds(draw)] for draw in draws])  # [draws, layers, 2]
    counted = np.concatenate([states, states + [0, 1]]).reshape(-1, 2) % (2**31 - 2)
    assert len(np.unique(counted, axis=0)) == len(counted) >= 2 * 3 * len(draws)


def test_jax_recomputes_too(on_jax):
    code = """
import jax, keras, numpy as np
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT

model = GPT(GPTConfig(vocab_size=30, num_layers=2, num_heads=2, dim=16, mlp_dim=24, max_length=16, dropout=0.2))
ids = np.arange(14).reshape(2, 7)

def loss(trainable, others):
    scope = [*zip(model.trainable_variables, trainable), *zip(model.non_trainable_variables, others)]
    with keras.StatelessScope(scope):
        return (model({"token_ids": ids}, training=True)["hidden_states"] ** 2).sum()

values = [[v.value for v in variables] for variables in (model.trainable_variables, model.non_trainable_variables)]
plain = jax.jit(jax.grad(loss))(*values)
model.set_remat(True)
recomputed = jax.jit(jax.grad(loss))(*values)
assert "remat" in str(jax.make_jaxpr(jax.grad(loss))(*values))
assert max(np.abs(g).max() for g in plain) > 0.1
for one, other in zip(plain, recomputed, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(one).max())
"""
    assert on_jax(code) == ""
