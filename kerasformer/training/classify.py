"""The recipe of a classifier, as `train` takes it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasformer.config import Data, Recipe
from kerasformer.data.batches import Batches
from kerasformer.data.encoding import classification, encode, summary
from kerasformer.data.sources import Source, check_labels, read_examples, read_held_out
from kerasformer.data.split import label_names
from kerasformer.errors import InputError
from kerasformer.training.evaluation import Evaluation, Report
from kerasformer.training.job import Job
from kerasformer.training.losses import Crossentropy
from kerasformer.training.run import read_part
from kerasformer.training.tasks import Classifier


def job(recipe: Recipe, source: Source, policy: str) -> Job:
    """The model and the data that the recipe names.

    Raises:
        InputError: files that cannot be used, or that do not fit each other.
    """
    data, settings = recipe.data, recipe.train
    examples = read_examples(source, **data.columns)
    check_labels(examples)
    model = Classifier.from_pretrained(
        recipe.model.from_pretrained,
        label_names(examples.labels),
        multi_label=False,  # of the data each text has one
        dropout=recipe.model.dropout,
        dtype=policy,
    )
    training, validation = classification(
        examples,
        tokenizer=model.tokenizer,
        max_length=data.max_length,
        batch_size=data.batch_size,
        split=data.split,
        validation=data.validation,
        labels=model.labels,
        seed=data.seed,
        augment=data.augment if any(dataclasses.astuple(data.augment)) else None,
        **data.columns,
    )

    def trial() -> tuple[tf.data.Dataset, int]:
        return training.dataset(), len({training.padded_length(rows) for rows in training.order()})

    watch = Evaluation(validation) if validation is not None else None
    return Job(
        model,
        training,
        validation,
        summary,
        steps=len(training) * settings.epochs,
        interval=len(training),
        trial=trial,
        evaluation=watch,
        figures=lambda folder: evaluation(saved(folder), validation),
        loss=Crossentropy(settings.label_smoothing),
        class_weight=class_weights(training) if settings.class_weights == "balanced" else None,
        monitor=settings.monitor,
        shown={"evaluation": watch},
    )


def class_weights(batches: Batches) -> dict[int, float]:
    """Weights in inverse proportion to the classes' frequencies, one on average over the examples."""
    counts = np.bincount(batches.label_ids, minlength=len(batches.labels))
    return {i: len(batches.label_ids) / (len(counts) * count) for i, count in enumerate(counts) if count}


def saved(folder: Path) -> Classifier:
    """A saved model, in float32."""
    return Classifier.from_pretrained(folder, dtype="float32")


def evaluation(model: Classifier, batches: Batches) -> dict[str, float]:
    """The figures of a model on labelled batches.

    Raises:
        InputError: a model of which any number of labels may be true.
    """
    model.check_single_label()
    return Report(batches.labels, batches.label_ids, model.predict(batches)).figures()


def evaluate_run(folder: Path, files: Sequence[Path]) -> dict[str, float]:
    """See `train`.

    Raises:
        InputError: no run, several files, or one that does not fit the run.
    """
    if len(files) != 1:
        raise InputError(
            f"expected one file of labelled texts, got {len(files)}; evaluate them in turn, or quote a pattern"
        )
    data, model = read_part(folder, "data", Data), saved(Path(folder) / "model")
    examples = read_held_out(files[0], model.labels, **data.columns)
    batches = encode(
        examples,
        tokenizer=model.tokenizer,
        labels=model.labels,
        max_length=data.max_length,
        batch_size=32,
    )
    return evaluation(model, batches) | ({"skipped": examples.skipped} if examples.skipped else {})
