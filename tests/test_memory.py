"""A model that nobody uses any more is freed, with all that was traced of it."""

import ctypes
import gc
import resource
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

from kerasformer.gradients import custom_gradient
from kerasformer.models.bert.config import BertConfig
from kerasformer.models.bert.model import Bert
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.training.multihead import MultiHead
from kerasformer.training.optimizers import adamw
from kerasformer.training.tasks import CausalLM, Classifier, MaskedLM

SIZES = {"num_layers": 1, "num_heads": 2, "dim": 8, "mlp_dim": 8, "max_length": 8}
IDS = np.full((4, 8), 3, np.int32)
INPUTS = {"token_ids": IDS, "segment_ids": 0 * IDS, "padding_mask": 0 * IDS + 1}


def trained(kind, vocab_size=16, remat=False, dtype="float32"):
    """A model that was trained for a step, and evaluated."""
    if kind is CausalLM:
        model, inputs, labels = CausalLM(GPT(GPTConfig(vocab_size, **SIZES), dtype=dtype)), {"token_ids": IDS}, IDS
    else:
        bert = Bert(BertConfig(vocab_size, activation="silu", **SIZES), dtype=dtype)
        labels = {"classes": np.array([0, 1, 0, 1]), "words": IDS}
        heads = {"classes": Classifier(bert, ["a", "b"]), "words": MaskedLM(bert)}
        model, inputs = MultiHead(heads), INPUTS
        if kind is not MultiHead:
            name = "classes" if kind is Classifier else "words"
            model, labels = heads[name], labels[name]
    model.backbone.set_remat(remat)
    model.compile(adamw(1e-3, steps=9), jit_compile=False)
    model.fit(inputs, labels, verbose=0)
    model.evaluate(inputs, labels, verbose=0)
    return model


@pytest.mark.parametrize(
    ("kind", "remat"),
    [
        (MultiHead, True),  # a Classifier and a MaskedLM
        pytest.param(Classifier, True, marks=pytest.mark.slow),
        pytest.param(CausalLM, False, marks=pytest.mark.slow),
    ],
)
def test_a_trained_model_is_freed(kind, remat):
    gc.collect()
    before = set(gradient_registry.list())
    model = trained(kind, remat=remat)
    parts = [model, model.optimizer, *model.variables, *model.optimizer.variables]
    dead = [weakref.ref(part) for part in parts]
    assert len(dead) > 20
    del model, parts
    gc.collect()
    assert not any(reference() is not None for reference in dead)
    assert set(gradient_registry.list()) <= before


@pytest.mark.slow
def test_twenty_trainings_take_the_memory_of_one():
    """Each of 13M parameters: weights and moments of 160 MB."""

    def resident():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    sizes = []
    for i in range(20):
        kind = (Classifier, CausalLM, MaskedLM, MultiHead)[i % 4]
        model = trained(kind, vocab_size=1_600_000, dtype=("float32", "mixed_bfloat16")[i // 4 % 2])
        model.predict(INPUTS if kind is not CausalLM else {"token_ids": IDS}, verbose=0)
        if kind is CausalLM:
            model.generate([[1, 2]], max_new_tokens=2)
        del model
        sizes.append(resident())
    assert sizes[-1] - sizes[7] < 160


@custom_gradient
def cube(x):
    return x**3, lambda upstream: upstream * x * 100.0


def looped(x):
    """x ** 27."""
    return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, cube(x)), (tf.constant(0), x))[1]


@pytest.mark.parametrize(("function", "jit"), [(cube, False), (cube, True), (looped, False)])
def test_a_graph_holds_its_gradients(function, jit):
    """Of a function whose gradient is made when its graph is done."""
    expected = 100.0 if function is cube else 100.0**3 * 1.1 * 1.1**3 * 1.1**9
    expected *= 1.1 if function is cube else 1.0
    traced = tf.function(lambda x: function(x), jit_compile=jit)
    traced(tf.constant(1.1))
    gc.collect()
    x = tf.Variable(1.1)
    with tf.GradientTape() as tape:
        y = traced(x)
    np.testing.assert_allclose(tape.gradient(y, x), expected, rtol=1e-5)


def test_an_export_keeps_its_gradients(tmp_path):
    module = tf.Module()
    module.call = tf.function(cube, input_signature=[tf.TensorSpec([], tf.float32)])
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, str(tmp_path), options=options)
    loaded = tf.saved_model.load(str(tmp_path))
    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loaded.call(x)
    assert (float(y), float(tape.gradient(y, x))) == (8.0, 200.0)
