"""What TensorBoard shows of a run: scalars of every step, and of each evaluation an image and the mistakes."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont
from tensorboard.plugins.hparams import api as hparams

from kerasformer.training.callbacks import Evaluation
from kerasformer.training.metrics import Report

SHOWN_MISTAKES = 20


class TensorBoard(keras.callbacks.Callback):
    """Writes a run for `tensorboard --logdir`.

    Args:
        folder: the run's; events go to `tensorboard/train` and `tensorboard/validation` in it.
        evaluation: placed before this one in `callbacks`; its confusion matrix and mistakes are shown.
        hyperparameters: for the HParams tab.
    """

    def __init__(
        self,
        folder: str | Path,
        evaluation: Evaluation | None = None,
        hyperparameters: Mapping[str, str | float | int | bool] | None = None,
    ):
        super().__init__()
        self.folder = Path(folder) / "tensorboard"
        self.evaluation, self.hyperparameters = evaluation, dict(hyperparameters or {})

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.train = tf.summary.create_file_writer(str(self.folder / "train"))
        self.validation = tf.summary.create_file_writer(str(self.folder / "validation"))
        if self.hyperparameters:
            with self.validation.as_default():
                hparams.hparams(self.hyperparameters)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        seconds, logs = time.perf_counter() - self.begun, logs or {}
        optimizer = self.model.optimizer
        scalars = {name: float(value) for name, value in logs.items() if name not in ("loss", "tokens", "positions")}
        scalars["loss"] = scalars.pop("step_loss", float(logs["loss"]))
        scalars["learning_rate"] = float(optimizer.learning_rate)
        if "tokens" in logs:
            scalars["tokens_per_second"] = float(logs["tokens"]) / seconds
            scalars["padding_share"] = 1 - float(logs["tokens"]) / float(logs["positions"])
        self._write(self.train, scalars)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        prefix = "val_"
        scalars = {n.removeprefix(prefix): float(v) for n, v in (logs or {}).items() if n.startswith(prefix)}
        self._write(self.validation, scalars)
        if self.evaluation is not None and self.evaluation.report is not None:
            report, step = self.evaluation.report, int(self.model.optimizer.iterations)
            with self.validation.as_default(step=step):
                tf.summary.image("confusion", confusion_image(report)[None])
                tf.summary.text("mistakes", mistakes_table(report, self.evaluation.batches.texts))
        self.train.flush()
        self.validation.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        self.train.close()
        self.validation.close()

    def _write(self, writer: tf.summary.SummaryWriter, scalars: Mapping[str, float]) -> None:
        with writer.as_default(step=int(self.model.optimizer.iterations)):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)


def confusion_image(report: Report) -> np.ndarray:
    """The confusion matrix as a picture, uint8 [height, width, 3]: rows are true classes, columns predicted ones."""
    counts, labels = report.confusion, [str(label) for label in report.labels]
    cell = 56 if len(labels) <= 20 else 28
    font = ImageFont.load_default(size=cell / 4)
    margin = 16 + int(max(font.getlength(label) for label in labels))
    size = margin + cell * len(labels) + 8
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, label in enumerate(labels):
        y = margin + row * cell
        draw.text((margin - 8, y + cell / 2), label, "black", font, anchor="rm")
        for column in range(len(labels)):
            x, share = margin + column * cell, shares[row, column]
            shade = tuple(int(255 - share * (255 - dark)) for dark in (16, 78, 139))
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=shade)
            ink = "white" if share > 0.5 else "black"
            draw.text((x + cell / 2 - 1, y + cell / 2), str(counts[row, column]), ink, font, anchor="mm")
    _draw_column_labels(image, labels, margin, cell, font)
    return np.asarray(image)


def _draw_column_labels(image: Image.Image, labels: list[str], margin: int, cell: int, font) -> None:
    """Writes the labels upwards above their columns."""
    for column, label in enumerate(labels):
        strip = Image.new("RGB", (margin - 8, cell), "white")
        ImageDraw.Draw(strip).text((0, cell / 2), label, "black", font, anchor="lm")
        image.paste(strip.rotate(90, expand=True), (margin + column * cell, 0))


def mistakes_table(report: Report, texts: Sequence[str]) -> str:
    """The surest mistakes as a Markdown table."""
    rows = ["| true | predicted | probability | text |", "|---|---|---|---|"]
    for i in report.mistakes[:SHOWN_MISTAKES]:
        predicted = report.predicted[i]
        text = " ".join(texts[i].split())[:200].replace("|", "\\|")
        probability = report.probabilities[i, predicted]
        rows.append(f"| {report.labels[report.truth[i]]} | {report.labels[predicted]} | {probability:.3f} | {text} |")
    return "\n".join(rows) if len(rows) > 2 else "no mistakes"
