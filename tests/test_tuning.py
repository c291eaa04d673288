"""Fine-tuning by depth, and recipes with other optimizers, schedules and depths: from the flag to the saved model."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kerasformer.config import LanguageRecipe, LanguageTrain
from kerasformer.errors import InputError
from kerasformer.models.families import families
from kerasformer.models.weights import by_path
from kerasformer.training.optimizers import OPTIMIZERS, adamw
from kerasformer.training.tasks import Classifier
from kerasformer.training.train import train
from kerasformer.training.tuning import freeze, rate_shares

TINY = {"vocab_size": 30, "num_layers": 3, "num_heads": 2, "dim": 8, "mlp_dim": 12, "max_length": 16}
FAMILIES = families()
TOPS = {"bert": {"pooler"}, "gpt2": {"final_norm"}}  # what is neither below the blocks, nor one, nor the head
every_family = pytest.mark.parametrize("name", FAMILIES)


def tiny(name: str) -> Classifier:
    return Classifier(FAMILIES[name](FAMILIES[name].config_class(**TINY)), ["a", "b"])


def below(path: str) -> str:
    """The layer of a weight: its path's first name below the backbone, or the head's."""
    return path.split("/")[0 if path.startswith("head/") else 1]


# By depth


@every_family
def test_a_rate_falls_from_block_to_block(name):
    model = tiny(name)
    shares = rate_shares(model, 0.5)
    found = {below(weight.path): shares.get(weight.path, 1.0) for weight in model.weights}
    blocks = {"block_0": 0.125, "block_1": 0.25, "block_2": 0.5}
    lowest = {layer: 0.0625 for layer in found if layer.startswith("embedding")}
    assert found == lowest | blocks | dict.fromkeys(TOPS[name] | {"head"}, 1.0)
    assert shares.keys() <= {weight.path for weight in model.weights}
    assert rate_shares(model, 1.0) == {}


@every_family
@pytest.mark.parametrize(("what", "blocks"), [(None, -1), (0, -1), ("embeddings", 0), (1, 1), (3, 3)])
def test_what_is_frozen_is_at_the_bottom(name, what, blocks):
    model = tiny(name)
    freeze(model, what)
    frozen = {below(weight.path) for weight in model.weights} - {below(w.path) for w in model.trainable_weights}
    lowest = {below(w.path) for w in model.weights if below(w.path).startswith("embedding")}
    assert frozen == ({f"block_{i}" for i in range(blocks)} | lowest if blocks >= 0 else set())
    assert model.head.trainable


@pytest.mark.parametrize("what", [4, -1, "head"])
def test_what_cannot_be_frozen(what):
    with pytest.raises(
        InputError, match=f"expected embeddings or at most 3 blocks to freeze, got {what!r}; freeze few"
    ):
        freeze(tiny("bert"), what)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_layers_have_neither_gradients_nor_slots(name, classifier):
    sizes = {}
    for what in (None, 1):
        model = classifier()
        freeze(model, what)
        model.compile(OPTIMIZERS[name](1e-2, steps=4, ema=0.5), jit_compile=False)
        sizes[what] = sum(int(np.prod(v.shape)) for v in model.optimizer.variables)
    assert len(model.trainable_variables) == 4  # pooler and head, kernel and bias
    assert sizes[1] < sizes[None] / 3


def test_the_backward_pass_stops_above_what_is_frozen():
    """Products of matrices, [of weights, of attention], in the step's graph without what nobody reads."""
    products = {}
    for blocks in (2, 3):
        model = tiny("bert")
        freeze(model, blocks)
        model.compile(adamw(1e-2, steps=4), jit_compile=False)
        ids = {name: tf.ones((2, 6), tf.int32) for name in model.input_names}
        step = tf.function(model.sum_gradients).get_concrete_function(ids, tf.zeros(2, tf.int32), tf.ones(2))
        needed, ahead = set(), [tensor.op for tensor in step.graph.outputs]
        while ahead:
            if (operation := ahead.pop()) not in needed:
                needed.add(operation)
                ahead += [*operation.control_inputs, *(tensor.op for tensor in operation.inputs)]
        kinds = [operation.type for operation in needed]
        products[blocks] = [kinds.count("MatMul"), kinds.count("BatchMatMulV2")]
    # Forwards four of weights and two of attention a block, and pooler and head; backwards three of the latter.
    assert products[3] == [3 * 4 + 2 + 3, 3 * 2]
    assert products[2][1] == products[3][1] + 4


# Recipes


def saved(folder) -> dict[str, np.ndarray]:
    model = Classifier.from_pretrained(folder, labels=["cat", "dog"])
    return {path: weight.numpy() for path, weight in by_path(model.backbone, model.head).items()}


def test_a_recipe_with_rates_by_depth_moves_each_weight_by_its_share(recipe, tmp_path):
    """A step of Lion is the sign of a gradient times the rate: its length tells the rate."""
    settings = {"optimizer": "lion", "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "layer_decay": 0.5}
    made = recipe(
        tmp_path / "runs",
        data={"batch_size": 99, "split": 0.0},
        train={"epochs": 1, "learning_rate": 1e-2, **settings},
    )
    train(made)
    start, end = saved(made.model.from_pretrained), saved(made.folder / "model")
    shares = {"embedding": 0.25, "embedding_norm": 0.25, "block_0": 0.5, "pooler": 1.0, "head": 1.0}
    moved = {path: np.abs(end[path] - start[path]).max() for path in start}
    assert moved == pytest.approx({path: 1e-2 * shares[path.split("/")[0]] for path in start}, rel=1e-3)


def test_a_recipe_that_freezes_leaves_the_checkpoint_s_numbers(recipe, tmp_path):
    made = recipe(tmp_path / "runs", train={"epochs": 1, "freeze": 1, "ema": 0.9, "optimizer": "lamb"})
    assert train(made).keys() >= {"accuracy"}
    start, end = saved(made.model.from_pretrained), saved(made.folder / "model")
    same = {path for path in start if np.array_equal(start[path], end[path])}
    assert same == {path for path in start if path.split("/")[0] not in ("pooler", "head")}


@pytest.mark.parametrize("schedule", ["polynomial", "inverse_sqrt", "constant", "wsd", "one_cycle"])
@pytest.mark.parametrize("optimizer", ["adafactor", "sgd", "lion", "muon"])
def test_every_choice_is_a_recipe_s(schedule, optimizer):
    recipe = LanguageRecipe("a", train=LanguageTrain(steps=9, schedule=schedule, optimizer=optimizer))
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, preset="gpt2"))
    recipe.check()
    assert recipe.train.own_settings == ({"beta_2": 0.95} if optimizer == "muon" else {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"momentum": 0.9}, "expected no --train.momentum with --train.optimizer adamw, got 0.9; leave it out, set it"),
        ({"optimizer": "sgd", "beta_2": 0.9}, "set it to None, or choose adamw, muon, lamb, lion"),
        ({"power": 1.0}, "expected no --train.power with --train.schedule linear, got 1.0; leave it out"),
        (
            {"schedule": "constant", "min_learning_rate": 1e-6},
            "with --train.schedule constant, got 1e-06; leave it out, set it to 0, or choose linear, cosine, ",
        ),
        (
            {"min_learning_rate": 0.01},
            "expected --train.min_learning_rate of at most --train.learning_rate, 0.005, got 0.01; lower it",
        ),
        ({"freeze": 0}, "expected --train.freeze as embeddings or a whole number of at least 1, got 0; change it"),
        ({"freeze": "head"}, "expected --train.freeze as embeddings or a whole number of at least 1, got 'head'"),
        ({"freeze": 2}, "expected embeddings or at most 1 blocks to freeze, got 2; freeze fewer (--train.freeze)"),
        ({"warmup": 22}, "expected a warmup of at most the run's 21 steps, got 22; lower it"),
        ({"optimizer": "adam"}, "expected --train.optimizer as one of adamw, muon, lamb, adafactor, lion, sgd, got"),
    ],
)
def test_a_recipe_is_refused_before_anything_is_written_or_told(recipe, tmp_path, caplog, settings, said):
    caplog.set_level("INFO")
    with pytest.raises(InputError) as caught:
        train(recipe(tmp_path / "runs", train=settings))
    assert said in str(caught.value)
    assert not (tmp_path / "runs").exists() and not caplog.messages
