"""A language model's recipe from text files to a run folder, on a tiny model."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from processes import Forked
from tensorflow.python.summary.summary_iterator import summary_iterator

from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain
from kerasformer.data.documents import Texts
from kerasformer.data.language import language_modelling
from kerasformer.data.prepare import prepare
from kerasformer.errors import InputError
from kerasformer.flags import parse
from kerasformer.models.heads import CausalLM
from kerasformer.text.vocabulary import train_char
from kerasformer.training.language import trained_tokenizer, windows
from kerasformer.training.launch import environments
from kerasformer.training.train import evaluate_run, train

TEXT = "the cat sat on the mat . a dog ran . " * 60
STEPS, EVERY = 30, 10


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "animals.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def recipe(text):
    """Makes recipes of seconds: `recipe(runs, data={...}, model={...}, train={...})`."""
    base = LanguageRecipe(
        "animals",
        LanguageData((text,), tokenizer="char", max_length=16, batch_size=4),
        LanguageModel(num_layers=1, num_heads=2, dim=16),
        LanguageTrain(
            steps=STEPS,
            learning_rate=1e-2,
            min_learning_rate=1e-3,
            evaluate_every=EVERY,
            steps_per_execution=5,
            precision="float32",
            compile="none",
        ),
    )

    def make(runs, **parts):
        changed = {part: dataclasses.replace(getattr(base, part), **values) for part, values in parts.items()}
        return dataclasses.replace(base, runs=runs, **changed)

    return make


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """A finished run: its recipe and the figures that `train` returned."""
    made = recipe(tmp_path_factory.mktemp("run") / "runs", train={"prompts": ("the cat", "a dog")})
    return made, train(made)


def log_of(folder) -> tuple[list[dict], list[dict]]:
    """Records of the executions and of the evaluations."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r for r in records if "evaluation" not in r], [r for r in records if "evaluation" in r]


def test_it_learns_and_its_run_folder_holds_all(run):
    recipe, figures = run
    names = {"recipe.json", "metrics.jsonl", "metrics.csv", "tensorboard", "checkpoints", "model", "figures.json"}
    assert {path.name for path in recipe.folder.iterdir()} == names
    steps, evaluations = log_of(recipe.folder)
    assert [record["step"] for record in steps] == list(range(5, STEPS + 1, 5))
    assert [record["step"] for record in evaluations] == [10, 20, 30]
    assert evaluations[-1]["val_loss"] < 3 < 4 < steps[0]["step_loss"]
    assert figures.keys() == {"val_loss", "perplexity", "bits_per_byte", "train_seconds", "model"}
    assert figures["val_loss"] == pytest.approx(min(r["val_loss"] for r in evaluations), rel=1e-4)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["val_loss"]))
    assert figures["bits_per_byte"] == pytest.approx(figures["val_loss"] / math.log(2))  # a byte a token


def test_the_saved_model_has_the_loss_returned(run):
    recipe, figures = run
    model = CausalLM.from_pretrained(figures["model"], dtype="float32")
    _, valid = language_modelling(recipe.data.train, tokenizer=model.tokenizer, max_length=16, validation=0.1)
    losses = []
    for token_ids, labels in valid.in_order().as_numpy_iterator():
        logits = np.array(model({"token_ids": token_ids}), np.float64)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        losses.append(-np.take_along_axis(logits, labels[..., None], axis=-1).ravel())
    assert figures["val_loss"] == pytest.approx(np.concatenate(losses).mean(), rel=1e-5)


def test_a_run_is_evaluated_on_other_text(run, tmp_path):
    recipe, figures = run
    (tmp_path / "held_out.txt").write_text(TEXT[: len(TEXT) // 2])
    found = evaluate_run(recipe.folder, (tmp_path / "held_out.txt",))
    assert found.keys() == {"loss", "perplexity", "bits_per_byte"}
    assert found["loss"] == pytest.approx(figures["val_loss"], abs=0.3)
    (tmp_path / "short.txt").write_text("the cat")
    with pytest.raises(InputError, match="short.txt: expected more than max_length tokens, 16, got 8; add text"):
        evaluate_run(recipe.folder, (tmp_path / "short.txt",))


def test_tensorboard_shows_steps_and_evaluations(run):
    recipe, _ = run
    found: dict[tuple[str, str], dict[int, float]] = {}
    samples: dict[int, str] = {}
    for path in (recipe.folder / "tensorboard").rglob("*tfevents*"):
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "samples":
                    samples[event.step] = tf.make_ndarray(value.tensor)[()].decode()
                elif value.metadata.plugin_data.plugin_name == "scalars":
                    found.setdefault((path.parent.name, value.tag), {})[event.step] = tf.make_ndarray(value.tensor)
    steps, evaluations = log_of(recipe.folder)
    train_tags = {"loss", "gradient_norm", "learning_rate", "tokens_per_second", "padding_share"}
    train_tags |= {"step_seconds", "model_flops_utilization", "data_wait_share", "host_memory_gb"}
    evaluation_tags = {"loss", "perplexity", "bits_per_byte"}
    assert found.keys() == {("train", tag) for tag in train_tags} | {("validation", tag) for tag in evaluation_tags}
    assert found["train", "loss"] == {r["step"]: pytest.approx(r["step_loss"], rel=1e-5) for r in steps}
    for tag in evaluation_tags:
        assert found["validation", tag] == {r["step"]: pytest.approx(r[f"val_{tag}"], rel=1e-5) for r in evaluations}
    assert samples.keys() == {r["step"] for r in evaluations}
    for text in samples.values():
        first, second = text.split("\n\n---\n\n")
        assert first.startswith("the cat") and second.startswith("a dog") and len(second) > len("a dog")
    assert all(speed > 0 for speed in found["train", "tokens_per_second"].values())


def test_growing_batches_a_schedule_and_averages_from_the_flags_to_the_figures(recipe, tmp_path):
    flags = (
        "--data.batch_ramp 1 10 2 5 --train.optimizer adafactor --train.schedule wsd --train.decay_share 0.5 "
        "--train.warmup 5 --train.min_learning_rate 0 --train.ema 0.8 --train.layer_decay 0.9 --train.prompts"
    )
    made = parse(LanguageRecipe, flags.split(), "train", None, default=recipe(tmp_path / "runs"))
    assert made.data.batch_ramp == ((1, 10), (2, 5)) and made.train.prompts == ()
    figures = train(made)
    steps, evaluations = log_of(made.folder)
    assert [(r["step"], r["tokens"]) for r in steps] == [(5, 16), (10, 16), (15, 32), (20, 64), (25, 64), (30, 64)]
    # The figures are those of the averages, which were evaluated and saved.
    assert figures["val_loss"] == pytest.approx(min(r["val_loss"] for r in evaluations), rel=1e-4)
    rates = {}
    for path in (made.folder / "tensorboard/train").iterdir():
        for event in summary_iterator(str(path)):
            rates.update(
                (event.step, tf.make_ndarray(v.tensor)) for v in event.summary.value if v.tag == "learning_rate"
            )
    # An execution's is that of its first step: up to step 5, stable, and down in half of the 26 steps after that.
    expected = {5: 1 / 5, 10: 1, 15: 1, 20: 1, 25: 10 / 13, 30: 5 / 13}
    assert rates == {step: pytest.approx(1e-2 * share, rel=1e-5) for step, share in expected.items()}


def test_fine_tuning_goes_on_from_a_checkpoint(run, recipe, tmp_path):
    _, figures = run
    tuned = recipe(
        tmp_path / "runs",
        data={"tokenizer": None},
        model={"from_pretrained": figures["model"]},
        train={
            "steps": 4,
            "evaluate_every": 0,
            "learning_rate": 1e-4,
            "min_learning_rate": 0.0,
            "steps_per_execution": 3,
        },
    )
    assert train(tuned)["val_loss"] < figures["val_loss"] + 0.1
    steps, evaluations = log_of(tuned.folder)
    assert [record["step"] for record in steps + evaluations] == [1, 2, 3, 4, 4]  # 3 does not divide 4


def test_the_last_evaluation_is_at_the_end(recipe, tmp_path):
    made = recipe(tmp_path / "runs", train={"steps": 7, "evaluate_every": 3, "checkpoint_every": 1})
    figures = train(made)
    assert [record["step"] for record in log_of(made.folder)[1]] == [3, 6, 7]
    assert train(made) == figures
    train(dataclasses.replace(made, train=dataclasses.replace(made.train, steps=8)))  # going on from there
    steps, evaluations = log_of(made.folder)
    assert [record["step"] for record in steps] == list(range(1, 9))
    assert [(record["evaluation"], record["step"]) for record in evaluations] == [(1, 3), (2, 6), (3, 7), (3, 8)]


def test_epochs_bfloat16_and_nothing_held_out(recipe, tmp_path):
    made = recipe(
        tmp_path / "runs",
        data={"split": 0.0, "order": "consecutive", "batch_size": 32},
        train={
            "steps": None,
            "epochs": 2,
            "evaluate_every": 0,
            "precision": "bfloat16",
            "peak_tflops": 1.0,
            "schedule": "wsd",
            "optimizer": "muon",
        },
    )
    figures = train(made)
    assert figures.keys() == {"train_seconds", "model"}
    lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text().splitlines()]
    per_epoch = (len(TEXT) - 1) // 16 // 32
    assert [r["step"] for r in lines if "epoch" in r] == [per_epoch, 2 * per_epoch]
    assert CausalLM.from_pretrained(figures["model"]).backbone.config.vocab_size == 257


def test_a_loss_that_is_no_number_ends_the_run(recipe, tmp_path):
    made = recipe(tmp_path / "runs", train={"learning_rate": 1e30, "clip_norm": 0.0, "warmup": 0.0})
    with pytest.raises(
        InputError,
        match=r"expected a finite loss, got nan at one of the steps 1 to 5 \(windows .*\); lower the learning rate",
    ):
        train(made)
    assert not (made.folder / "model").exists()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"data": {"train": ()}}, "expected a training set, got none; pass --data.train PATH"),
        ({"data": {"train": ("nowhere.txt",)}}, "expected a file or folder of texts, found none at 'nowhere.txt'"),
        ({"data": {"tokenizer": None}}, "expected a tokenizer for text files, got none"),
        ({"data": {"max_length": 300}}, "expected more than max_length tokens, 300, in the validation split, got 222"),
        ({"model": {"dim": None}}, "expected a model, got none; pass --model.from_pretrained DIR"),
        ({"model": {"preset": "gpt5"}}, "expected one of the presets gpt1, gpt2"),
        (
            {"model": {"num_heads": 3}},
            "expected --model.num_heads to divide the width, got 3 and 16; change one of them",
        ),
        ({"train": {"steps": None}}, "expected --train.steps or --train.epochs, got none"),
        ({"train": {"epochs": 1}}, "expected --train.steps or --train.epochs, got both"),
        ({"data": {"batch_ramp": ((4, 9),)}}, "expected a batch_ramp of SIZE STEPS pairs whose sizes rise to below"),
        (
            {"data": {"batch_ramp": ((1, 9),)}, "train": {"steps": None, "epochs": 1, "evaluate_every": 0}},
            "expected a number of steps where batches grow, as epochs have no one length then, got none; set --train",
        ),
        ({"train": {"schedule": "square"}}, "expected --train.schedule as one of linear, cosine, polynomial"),
    ],
)
def test_bad_input_writes_nothing(recipe, tmp_path, parts, message):
    with pytest.raises(InputError) as caught:
        train(recipe(tmp_path / "runs", **parts))
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_holds_its_length_and_its_tokenizer(run, recipe, text, tmp_path):
    _, figures = run
    model = {"from_pretrained": figures["model"]}
    with pytest.raises(InputError, match="expected windows of at most the model's 16 tokens, got 17; lower max_length"):
        train(recipe(tmp_path / "runs", data={"max_length": 17}, model=model))
    other = tmp_path / "other.txt"
    other.write_text("é" + TEXT)
    prepare(Texts([other]), tmp_path / "prepared", tokenizer=train_char([other.read_text()]))
    with pytest.raises(InputError, match="expected a text prepared with the model's tokenizer"):
        train(recipe(tmp_path / "runs", data={"train": (tmp_path / "prepared",), "tokenizer": None}, model=model))
    assert not (tmp_path / "runs").exists()


def test_a_used_run_folder_is_left_alone(run):
    recipe, _ = run
    with pytest.raises(InputError, match="which is in use; choose another --name or remove it"):
        train(dataclasses.replace(recipe, resume="never"))


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_tokenizer_is_trained_on_the_text_that_is_not_held_out(tmp_path, kind):
    for name, text in {"a.txt": "naïve café ", "b.txt": "über "}.items():
        (tmp_path / name).write_bytes((text * 9).encode("latin-1"))
    data = LanguageData(
        (tmp_path / "a.txt",), (tmp_path / "b.txt",), tokenizer=kind, vocab_size=270, encoding="latin-1"
    )
    tokenizer = trained_tokenizer(data)
    seen, unseen = tokenizer.tokenize(["naïve", "ü"])
    assert (len(seen), len(unseen)) == ({"char": 5, "bpe": 1}[kind], 2)


def test_a_prepared_folder_is_not_read_as_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("To be, or not to be. " * 50, encoding="utf-8")
    prepare(Texts([path]), tmp_path / "prepared", tokenizer=train_char([path.read_text()]))
    with pytest.raises(InputError, match="expected text files, got a folder that kerasformer prepare wrote"):
        list(Texts([tmp_path / "prepared"]).pieces())
    data = LanguageData((tmp_path / "prepared",), (path,), max_length=8)
    with pytest.raises(InputError, match="expected no --data.validation for the prepared folder"):
        windows(data, None)


def test_it_stops_after_evaluations_that_are_no_better(recipe, tmp_path):
    made = recipe(tmp_path, train={"learning_rate": 0.0, "min_learning_rate": 0.0, "early_stopping": 2})
    train(dataclasses.replace(made, train=dataclasses.replace(made.train, steps=50)))
    _, evaluations = log_of(made.folder)
    assert [record["step"] for record in evaluations] == [10, 20, 30]


def test_a_worker_that_fails_before_the_training_is_missed_in_one_line(recipe, tmp_path):
    made = recipe(Path("runs"), data={"train": (Path("text.txt"),)}, train={"strategy": "multiworker"})
    (tmp_path / "recipe.py").write_text(f"from kerasformer.config import *\nfrom pathlib import *\nrecipe = {made!r}\n")
    command = ["train", str(tmp_path / "recipe.py")]
    folders = [tmp_path / "without", tmp_path / "with"]
    for folder in folders:
        folder.mkdir()
    (folders[1] / "text.txt").write_text(TEXT)
    workers = [
        Forked(command, cwd=folder, environment=environment)
        for folder, environment in zip(folders, environments(2), strict=True)
    ]
    said = [worker.communicate()[1].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [2, 2]
    assert "expected a file or folder of texts, found none at 'text.txt'" in said[0][-1]
    assert said[1][-1].startswith("kerasformer: expected every worker to answer, got UnavailableError")
    assert len(said[1]) == 2 and said[1][0].startswith("replicas: 2")
