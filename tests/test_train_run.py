"""`train(recipe)` from a table to a run folder, on a tiny model."""

import dataclasses
import json
import logging

import numpy as np
import pytest

from kerasformer.config import Augment
from kerasformer.data.encoding import classification
from kerasformer.errors import InputError
from kerasformer.training.classify import class_weights
from kerasformer.training.tasks import Classifier
from kerasformer.training.train import evaluate_run, train

STEPS = 7  # of an epoch: 54 texts in batches of 8


def log_of(folder) -> tuple[list[dict], list[dict]]:
    """Records of the steps and of the epochs."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r for r in records if "epoch" not in r], [r for r in records if "epoch" in r]


def sets_of(recipe, tokenizer):
    """The training and validation sets of a run that splits its table."""
    data = recipe.data
    return classification(
        data.train, tokenizer=tokenizer, max_length=data.max_length, batch_size=data.batch_size, split=data.split
    )


# What a run leaves


def test_a_run_folder_holds_recipe_log_events_and_model(run):
    recipe, _ = run
    names = {"recipe.json", "metrics.jsonl", "metrics.csv", "tensorboard", "checkpoints", "model", "figures.json"}
    assert {path.name for path in recipe.folder.iterdir()} == names
    assert {path.name for path in (recipe.folder / "tensorboard").iterdir()} == {"train", "validation"}
    assert [path.name for path in (recipe.folder / "checkpoints").iterdir()] == [f"step-{3 * STEPS:08}"]
    written = json.loads((recipe.folder / "recipe.json").read_text())
    assert written == json.loads(json.dumps(dataclasses.asdict(recipe), default=str))


def test_the_log_has_every_step_and_epoch(run):
    recipe, figures = run
    steps, epochs = log_of(recipe.folder)
    assert [record["step"] for record in steps] == list(range(1, 3 * STEPS + 1))
    speed = {"step_seconds", "tokens_per_second", "model_flops_utilization", "data_wait_share", "host_memory_gb"}
    learned = {"step", "loss", "accuracy", "step_loss", "gradient_norm", "tokens", "positions", "rows"}
    assert learned | speed == steps[0].keys()
    assert [(record["epoch"], record["step"]) for record in epochs] == [(i, i * STEPS) for i in (1, 2, 3)]
    assert {"epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1"} == epochs[0].keys()
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    best = max(record["val_accuracy"] for record in epochs)
    assert figures["accuracy"] == pytest.approx(best)
    assert best > 0.8


def test_the_saved_model_has_the_figures_returned(run):
    recipe, figures = run
    assert figures.keys() == {"loss", "accuracy", "macro_f1", "train_seconds", "model"}
    model = Classifier.from_pretrained(figures["model"])
    assert model.labels == ["cat", "dog"]
    assert model.tokenizer.max_length == 16
    _, valid = sets_of(recipe, model.tokenizer)
    truth, probabilities = np.array(valid.label_ids), model.predict(valid.texts)
    assert len(truth) == 18
    assert (probabilities.argmax(axis=1) == truth).mean() == pytest.approx(figures["accuracy"])
    assert -np.log(probabilities[np.arange(18), truth]).mean() == pytest.approx(figures["loss"], rel=1e-4)


def test_class_weights_and_label_smoothing_shape_the_loss(run):
    recipe, _ = run
    model = Classifier.from_pretrained(recipe.model.from_pretrained)
    batches, _ = sets_of(recipe, model.tokenizer)
    rows = batches.order(0)[0]
    log_probabilities = np.log(model.predict([batches.texts[i] for i in rows]))
    target = 0.9 * np.eye(2)[batches.label_ids[rows]] + 0.1 / 2
    counts = np.bincount(batches.label_ids)
    weights = (54 / (2 * counts))[batches.label_ids[rows]]
    losses = -(target * log_probabilities).sum(axis=1)
    assert log_of(recipe.folder)[0][0]["step_loss"] == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-4)


def test_balanced_weights_make_classes_count_alike(run):
    recipe, _ = run
    batches, _ = sets_of(recipe, Classifier.from_pretrained(recipe.model.from_pretrained).tokenizer)
    weights, counts = class_weights(batches), np.bincount(batches.label_ids)
    assert weights[0] * counts[0] == pytest.approx(weights[1] * counts[1])
    assert weights[0] * counts[0] + weights[1] * counts[1] == pytest.approx(54)


def test_the_same_recipe_gives_the_same_model(run, tmp_path):
    recipe, figures = run
    again = train(dataclasses.replace(recipe, runs=tmp_path / "runs"))
    assert again["loss"] == figures["loss"]
    first, second = (Classifier.from_pretrained(found["model"]).get_weights() for found in (figures, again))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)  # bit for bit


# Ways to train


def test_early_stopping_a_validation_file_and_augmentation(recipe, animals, tmp_path):
    augment = Augment(delete=0.2, insert=0.2)
    idle = recipe(
        tmp_path / "runs",
        data={"validation": animals, "augment": augment},
        train={"learning_rate": 0.0, "epochs": 9, "early_stopping": 2, "monitor": "val_loss"},
    )
    figures = train(idle)
    _, epochs = log_of(idle.folder)
    assert [record["epoch"] for record in epochs] == [1, 2, 3]  # a rate of zero makes nothing better
    assert epochs[0]["step"] == 9  # nothing is held out: 72 texts in batches of 8
    evaluated = evaluate_run(idle.folder, (animals,))
    assert evaluated == pytest.approx({name: figures[name] for name in ("loss", "accuracy", "macro_f1")}, rel=1e-5)


def test_pairs_without_validation_save_the_last_epoch(recipe, tmp_path):
    pairs = recipe(tmp_path / "runs", data={"text_pair_column": "text_pair", "split": 0.0}, train={"epochs": 2})
    figures = train(pairs)
    assert figures.keys() == {"train_seconds", "model"}
    steps, epochs = log_of(pairs.folder)
    assert (len(steps), len(epochs)) == (18, 2)
    assert not any(name.startswith("val_") for record in epochs for name in record)
    model = Classifier.from_pretrained(figures["model"])
    assert model.text_pair
    fresh = Classifier.from_pretrained(pairs.model.from_pretrained)
    texts = [("the cat sat", "mat"), ("a dog", "ran")]
    assert np.abs(model.predict(texts) - fresh.predict(texts)).max() > 0.01  # trained, and saved after it


def test_a_training_that_diverges_ends_with_advice_and_saves_no_model(recipe, tmp_path):
    wild = recipe(tmp_path / "runs", train={"learning_rate": 1e30, "warmup": 0.0})
    message = (
        r"expected a finite loss, got nan at step \d+ \(examples \d+, .* which begin with '.*'\); "
        r"lower the learning rate \(--train.learning_rate\), or leave such data out \(--train.on_nan rewind\)"
    )
    with pytest.raises(InputError, match=message):
        train(wild)
    assert not (wild.folder / "model").exists()
    assert not (wild.folder / "checkpoints").exists()
    assert log_of(wild.folder)[0][-1]["loss"] is None


# What is refused before anything is written


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"data": {"train": None}}, "expected a training set, got none; pass --data.train PATH"),
        ({"data": {"train": "no_such.csv"}}, "expected a file or folder of texts, found none at 'no_such.csv'"),
        ({"data": {"validation": "no_such.csv"}}, "expected a file or folder of texts, found none at 'no_such.csv'"),
        ({"data": {"label_column": "kind"}}, "expected one column 'kind', found none among 'text'"),
        ({"data": {"text_pair_column": "other"}}, "expected one column 'other'"),
        ({"data": {"encoding": "utf-99"}}, "unknown encoding 'utf-99'"),
        ({"data": {"max_length": 25}}, "expected a max_length of at most 24, the model's, got 25; lower it"),
        ({"data": {"max_length": 2}}, "expected --data.max_length as a whole number of at least 3, got 2"),
        ({"data": {"split": 1.0}}, "expected --data.split as a share of at least 0 and below 1, got 1.0"),
        ({"data": {"split": 0.001}}, "leaves none to hold out"),
        ({"data": {"batch_size": 0}}, "expected --data.batch_size as a whole number of at least 1, got 0"),
        ({"data": {"seed": -1}}, "expected --data.seed as a whole number of at least 0, got -1"),
        (
            {"data": {"text_pair_column": "text_pair", "augment": Augment(swap=0.1)}},
            "expected single texts for augmentation",
        ),
        ({"model": {"from_pretrained": None}}, "expected a checkpoint folder to start from, got none"),
        ({"model": {"from_pretrained": "no_such"}}, "expected a Hugging Face checkpoint folder, got no_such"),
        ({"train": {"epochs": 0}}, "expected --train.epochs as a whole number of at least 1, got 0"),
        ({"train": {"label_smoothing": 1.0}}, "expected --train.label_smoothing as a share"),
        ({"train": {"learning_rate": float("nan")}}, "expected --train.learning_rate as a number"),
        ({"train": {"precision": "half"}}, "expected --train.precision as one of auto, float32, bfloat16, got 'half'"),
        ({"train": {"compile": "yes"}}, "expected --train.compile as one of auto, xla, none, got 'yes'"),
        ({"train": {"monitor": "val_acuracy"}}, "expected --train.monitor as one of val_accuracy"),
        ({"train": {"class_weights": "balance"}}, "expected --train.class_weights as one of none, balanced"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(next(iter(value.values()))),
)
def test_a_bad_recipe_writes_nothing(recipe, parts, message, tmp_path):
    with pytest.raises(InputError) as caught:
        train(recipe(tmp_path / "runs", **parts))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("text,label\na,x\nb,x\nc,x\n", "expected two classes or more, but every label is 'x'"),
        ("text,label\n", "expected examples, found none"),
        ("text,label\na,x\n,y\n", "the text is blank"),
    ],
)
def test_a_bad_table_writes_nothing(recipe, rows, message, tmp_path):
    (tmp_path / "bad.csv").write_text(rows)
    with pytest.raises(InputError, match=message):
        train(recipe(tmp_path / "runs", data={"train": tmp_path / "bad.csv"}))
    assert not (tmp_path / "runs").exists()


def test_a_validation_label_that_training_lacks_writes_nothing(recipe, tmp_path):
    (tmp_path / "valid.csv").write_text("text,label\na bird,bird\n")
    with pytest.raises(InputError, match=r"valid.csv:2: the label 'bird' is none of those trained on: 'cat', 'dog'"):
        train(recipe(tmp_path / "runs", data={"validation": tmp_path / "valid.csv"}))
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_of_another_recipe_is_left_alone(run):
    recipe, _ = run
    before = {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*")}
    with pytest.raises(InputError, match="which is in use; choose another --name or remove it"):
        train(dataclasses.replace(recipe, resume="never"))
    settings = dataclasses.replace(recipe.train, learning_rate=1e-4, warmup=0.2, checkpoint_every=1)
    with pytest.raises(InputError) as caught:
        train(dataclasses.replace(recipe, train=settings))
    assert str(caught.value) == (
        f"expected the recipe that {recipe.folder} was begun with, got --train.learning_rate 0.0001 (it was 0.002), "
        "--train.warmup 0.2 (it was 0.1); choose another --name, or leave the recipe as it was"
    )
    with pytest.raises(InputError, match=r"got --train.epochs 2 \(it was 3\)"):
        train(dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=2)))
    assert {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*")} == before


def test_a_finished_run_gives_its_figures_again(run, caplog):
    recipe, figures = run
    caplog.set_level(logging.INFO, "kerasformer")
    before = {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*")}
    assert train(recipe) == figures
    assert caplog.messages == [f"{recipe.folder} is finished: these are its figures"]
    assert {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*")} == before


def test_a_folder_without_a_run_cannot_be_evaluated(animals, tmp_path):
    with pytest.raises(InputError, match="expected a run's recipe at .*, got no such file"):
        evaluate_run(tmp_path, (animals,))


def test_a_run_is_evaluated_on_files_read_as_its_own(run, animals, tmp_path, caplog):
    recipe, _ = run
    (tmp_path / "model").symlink_to((recipe.folder / "model").resolve())
    told = json.loads((recipe.folder / "recipe.json").read_text())
    for name in ("quoting", "delimiter", "missing_label", "on_bad"):  # as a run of before they were there
        del told["data"][name]
    (tmp_path / "recipe.json").write_text(json.dumps(told))
    expected = evaluate_run(tmp_path, (animals,))
    told["data"] |= {"delimiter": "|", "on_bad": "skip"}
    (tmp_path / "recipe.json").write_text(json.dumps(told))
    rows = [line.rpartition(",") for line in animals.read_text().splitlines()]
    table = "".join(f"{text.rpartition(',')[0]}|{label}\n" for text, _, label in rows)
    (tmp_path / "animals.csv").write_text(f"{table}|cat\nthe cat|-1\n")
    assert evaluate_run(tmp_path, (tmp_path / "animals.csv",)) == pytest.approx(expected | {"skipped": 2})
    [said] = caplog.messages
    assert "left out 2 of 74 rows: the text is blank: 1" in said and "the label is -1, which stands for none" in said
