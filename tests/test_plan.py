"""What a step is said to take: counts that can be checked, and what `kerasformer plan` prints of them."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kerasformer.cli import main
from kerasformer.models.bert.config import BertConfig
from kerasformer.models.bert.model import Bert
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.training.meter import host_memory
from kerasformer.training.optimizers import adamw, muon
from kerasformer.training.plan import Step, Weightless, block, flops, largest_batch, memory
from kerasformer.training.tasks import CausalLM, Classifier
from kerasformer.training.tuning import freeze

ROOT = Path(__file__).parent.parent
PRETRAIN = str(ROOT / "pipelines/gpt_pretrain.py")


@functools.cache
def gpt(preset="gpt2", dtype="float32", make_optimizer=adamw, frozen=0, **sizes) -> Weightless:
    values = {"dropout": 0.0, "attention_dropout": 0.0, **GPT.preset(preset).values, **sizes}

    def make() -> CausalLM:
        model = CausalLM(GPT(GPTConfig(**values), dtype=dtype))
        freeze(model, frozen)
        return model

    return Weightless.of(make, make_optimizer(1.0, steps=1))


def test_the_parameters_are_those_of_the_published_model_and_none_is_allocated():
    before = host_memory()
    found = gpt("gpt2_xl")
    assert host_memory() - before < 1e9 < 4 * GPT.preset("gpt2_xl").num_parameters
    parts = found.parameters()
    assert sum(parts.values()) == GPT.preset("gpt2_xl").num_parameters
    assert parts["embeddings"] == (50_257 + 1024) * 1600
    assert parts["head"] == 2 * 1600  # the last normalisation
    bert = Weightless.of(lambda: Classifier(Bert(BertConfig()), ["a", "b"]), adamw(1.0, steps=1)).parameters()
    assert sum(bert.values()) == Bert.preset("bert_base_uncased").num_parameters + 2 * 768 + 2
    assert bert["head"] == 768 * 768 + 768 + 2 * 768 + 2


def test_weights_gradients_and_optimizer_state_are_float32_in_any_precision():
    for dtype in ("float32", "mixed_bfloat16"):
        found = memory(gpt(dtype=dtype), Step(1, 64))
        assert (found.weights, found.gradients, found.optimizer) == tuple(4 * 124_439_808 * k for k in (1, 1, 2))
    matrices = 12 * 12 * 768 * 768  # of which Muon keeps one number each
    assert memory(gpt(make_optimizer=muon), Step(1, 64)).optimizer == 4 * (2 * 124_439_808 - matrices)


def test_a_block_keeps_what_its_layers_keep():
    """Of two rows of five tokens, D = 8, M = 16, two heads, counted by hand."""
    sizes = {"num_layers": 1, "num_heads": 2, "dim": 8, "mlp_dim": 16, "vocab_size": 30}
    stream, inside, weights = 10 * 8, 10 * 16, 2 * 2 * 5 * 5
    plain = block(gpt(**sizes).model, Step(2, 5))
    assert (plain.kept, plain.input) == (4 * (9 * stream + 2 * inside + weights), 4 * stream)
    dropped = block(gpt(**sizes, dropout=0.1, attention_dropout=0.1).model, Step(2, 5))
    assert dropped.kept - plain.kept == 4 * (2 * stream + 2 * weights)
    narrow = block(gpt(**sizes, dtype="mixed_bfloat16").model, Step(2, 5))
    assert narrow.kept == 2 * (9 * stream + 2 * inside + weights)


def test_what_saves_memory_saves_it():
    model, plain = gpt(), Step(16, 512)
    peak = memory(model, plain).peak
    assert memory(model, dataclasses.replace(plain, remat=True)).peak < 0.5 * peak
    assert memory(model, dataclasses.replace(plain, accumulate=4)).peak < 0.5 * peak
    assert memory(model, dataclasses.replace(plain, devices=4)).peak < 0.5 * peak
    assert memory(gpt(dtype="mixed_bfloat16"), plain).peak < 0.95 * peak  # the weights stay in float32
    assert memory(model, dataclasses.replace(plain, batch_size=32)).peak > 1.7 * peak


@pytest.mark.parametrize("step", [Step(1, 512), Step(1, 1024, devices=4, accumulate=2), Step(1, 512, remat=True)])
def test_the_largest_batch_is_the_last_that_fits(step):
    model, room = gpt(), 16_000_000_000
    batch, parts = largest_batch(model, step, room), step.devices * step.accumulate
    assert batch % parts == 0
    assert memory(model, dataclasses.replace(step, batch_size=batch)).peak <= room
    assert memory(model, dataclasses.replace(step, batch_size=batch + parts)).peak > room
    assert largest_batch(model, step, 1_000_000_000) == 0


def test_recomputed_blocks_cost_a_third_of_their_arithmetic_more():
    model = gpt()
    own, computed = flops(model, Step(2, 512))
    assert own == 1024 * (6 * (124_439_808 - 1024 * 768) + 12 * 12 * 512 * 768)
    assert computed == own
    again, computed = flops(model, Step(2, 512, remat=True))
    assert again == own < computed < own * 4 / 3


def test_what_is_frozen_has_no_gradient_and_no_optimizer_state():
    """The numbers of the published model: of 12 blocks of 7,087,872 weights, six and the embeddings are frozen."""
    model, step = gpt(), Step(2, 512)
    half = gpt(frozen=6)
    every, frozen = 124_439_808, (50_257 + 1024) * 768 + 6 * 7_087_872
    found, plain = memory(half, step), memory(model, step)
    assert sum(half.parameters().values()) == every
    assert (found.weights, found.gradients, found.optimizer) == (
        4 * every,
        4 * (every - frozen),
        8 * (every - frozen),
    )
    assert found.activations < 0.6 * plain.activations and found.peak < 0.8 * plain.peak
    # Of half the blocks there is a third of the arithmetic, of the table of scores two.
    spared = 4 * (6 * 7_087_872 + 2 * 6 * 512 * 768) + 2 * 50_257 * 768
    assert flops(model, step)[0] - flops(half, step)[0] == 1024 * spared
    again = flops(half, dataclasses.replace(step, remat=True))[1] - flops(half, step)[1]
    assert again == pytest.approx(1024 * (2 * 6 * 7_087_872 + 4 * 6 * 512 * 768))


# The command

ONE_BLOCK = 124_439_808 - 11 * 7_087_872  # parameters of the published model without eleven of its blocks


def test_the_command_prints_a_table(capsys):
    arguments = ["--memory", "16GB", "--devices=2", "--data.batch_size", "8", "--train.precision", "float32"]
    assert main(["plan", PRETRAIN, *arguments, "--train.remat", "blocks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {" ".join(line[:34].split()): line[34:].strip() for line in lines}
    assert found["parameters"] == "124,439,808"
    assert found["memory on each device"] == "float32, 4 x 1024 tokens at a time, blocks recomputed"
    assert (found["devices"], found["batch"], found["tokens per step"]) == ("2", "8 rows", "8,192")
    assert found["tokens per run"] == f"{8192 * 100_000:,}"
    assert int(found["largest batch in 16.00 GB"].removesuffix(" rows").replace(",", "")) > 8


def test_the_command_prints_json(classifier, animals, tmp_path, capsys):
    classifier(max_length=24).save_pretrained(tmp_path / "model")
    recipe = str(ROOT / "pipelines/bert_classify.py")
    flags = [
        "--model.from_pretrained",
        str(tmp_path / "model"),
        "--data.train",
        str(animals),
        "--data.max_length",
        "24",
    ]
    assert main(["plan", recipe, "--json", *flags, "--data.split", "0.25", "--data.batch_size", "8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps_per_epoch"] == 7 and found["tokens_per_epoch"] == 7 * 8 * 24
    assert found["memory"]["peak"] > max(found["memory"]["phases"].values())
    assert "largest_batch" not in found
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.parametrize(
    ("flags", "gradients", "slots"),
    [
        ("--train.optimizer sgd --train.momentum 0", 1, 0),
        ("--train.optimizer sgd --train.ema 0.9", 1, 2),
        ("--train.schedule polynomial --train.power 3 --train.ema 0.9", 1, 3),
        ("--train.freeze 1", 1536 / ONE_BLOCK, 2 * 1536 / ONE_BLOCK),
    ],
    ids=str,
)
def test_the_command_counts_what_the_recipe_trains_and_its_optimizer_keeps(flags, gradients, slots, capsys):
    arguments = ["--json", "--data.batch_size", "8", "--model.num_layers", "1"]
    assert main(["plan", PRETRAIN, *arguments, *flags.split()]) == 0
    found = json.loads(capsys.readouterr().out)["memory"]
    assert found["weights"] == 4 * ONE_BLOCK
    assert (found["gradients"], found["optimizer"]) == (gradients * found["weights"], slots * found["weights"])


@pytest.mark.parametrize("recipe", [[], [PRETRAIN]])
def test_help_tells_the_flags_of_the_command_and_of_the_recipe(recipe, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", *recipe, "--help"])
    assert not stop.value.code
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for flag in ("--memory", "--devices INT", "--json", "--data.batch_size INT", "--train.remat {none,blocks}"):
        assert f" {flag}" in told
    assert "how large a batch fits it" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a recipe first, got none"),
        ([PRETRAIN, "--memory", "much"], "expected --memory as a size such as 16GB, got 'much'"),
        ([PRETRAIN, "--memory"], "expected a value for --memory, got none"),
        ([PRETRAIN, "--memry", "16GB"], "expected a flag of kerasformer plan"),
        ([PRETRAIN, "--devices", "x"], "expected --devices as a number (int), got 'x'"),
        ([PRETRAIN, "--data.batch_size", "0"], "expected --data.batch_size as a whole number of at least 1, got 0"),
        ([PRETRAIN, "--train.remat", "all"], "expected --train.remat as one of"),
        ([PRETRAIN, "--model.preset", "gpt9"], "expected one of the presets gpt1, gpt2"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["bert:128x8:float32", "gpt:256x4:bfloat16:remat"])
def test_a_step_takes_what_was_planned(setting):
    """Within 15 %, on a CPU."""
    command = [sys.executable, ROOT / "benchmarks/plan.py", "--measure", setting]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert 0.85 < figures["ratio"] < 1.15
