"""What TensorBoard shows of a run: scalars of every step, and of each evaluation an image and the mistakes."""

import time
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont
from tensorboard.plugins.hparams import api as hparams

from kerasformer.errors import InputError
from kerasformer.files import path_of
from kerasformer.training.averages import averaged
from kerasformer.training.evaluation import Evaluation, Report
from kerasformer.training.faults import may_be_lost
from kerasformer.training.meter import Meter
from kerasformer.training.optimizers import steps_made

SHOWN_MISTAKES = 20
BAR = "\\|"  # within a Markdown table
PICTURE = 1200  # pixels that the confusion matrix may take each way
CLASSES, WORST = 300, 100  # of more classes, the confusion matrix is of those that are mistaken most
PALE, DARK = np.array([239, 243, 248]), np.array([16, 78, 139])  # cells of no example and of a class's every one


class TensorBoard(keras.callbacks.Callback):
    """Writes a run for `tensorboard --logdir`.

    Args:
        folder: the run's; events go to `tensorboard/train` and `tensorboard/validation` in it.
        evaluation: placed before this one in `callbacks`; its confusion matrix and mistakes are shown.
        hyperparameters: for the HParams tab.
        prompts: a language model continues them after each epoch.
        sample_tokens: how many tokens it makes of each, if it has room for them.
    """

    def __init__(
        self,
        folder: str | Path,
        evaluation: Evaluation | None = None,
        hyperparameters: Mapping[str, str | float | int | bool] | None = None,
        *,
        prompts: Sequence[str] = (),
        sample_tokens: int = 100,
    ):
        super().__init__()
        if not isinstance(evaluation, Evaluation | None):
            raise InputError(
                f"expected a kf.callbacks.Evaluation as evaluation, got a {type(evaluation).__name__}; make one"
            )
        self.folder = path_of(folder) / "tensorboard"
        self.evaluation, self.hyperparameters = evaluation, dict(hyperparameters or {})
        self.prompts, self.sample_tokens = list(prompts), sample_tokens
        self.meter = Meter()

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.meter.set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.train = self.validation = tf.summary.create_noop_writer()
        with may_be_lost(self.folder):
            self.train, self.validation = self._writer("train"), self._writer("validation")
            if self.hyperparameters:
                with self.validation.as_default():
                    hparams.hparams(self.hyperparameters)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.learning_rate = float(self.model.optimizer.learning_rate)  # after the step it is the next one's
        self.meter.on_train_batch_begin(batch)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        self.meter.on_train_batch_end(batch, logs)  # unless another one has been asked already
        others = ("loss", "tokens", "positions", "rows")
        scalars = {name: float(value) for name, value in logs.items() if name not in others}
        scalars["loss"] = scalars.pop("step_loss", float(logs["loss"]))
        scalars["learning_rate"] = self.learning_rate
        if "tokens" in logs:
            scalars["padding_share"] = 1 - float(logs["tokens"]) / float(logs["positions"])
        self._write(self.train, scalars)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        prefix = "val_"
        scalars = {n.removeprefix(prefix): float(v) for n, v in (logs or {}).items() if n.startswith(prefix)}
        self._write(self.validation, scalars)
        if self.evaluation is not None and self.evaluation.report is not None:
            report, step = self.evaluation.report, steps_made(self.model.optimizer)
            with may_be_lost(self.folder), self.validation.as_default(step=step):
                tf.summary.image("confusion", confusion_image(report)[None])
                tf.summary.text("mistakes", mistakes_table(report, self.evaluation.batches.texts))
        if self.prompts:
            samples = self._samples()
            with may_be_lost(self.folder), self.validation.as_default(step=steps_made(self.model.optimizer)):
                tf.summary.text("samples", samples)
        with may_be_lost(self.folder):
            self.train.flush()
            self.validation.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        with may_be_lost(self.folder):
            self.train.close()
            self.validation.close()

    def _writer(self, part: str) -> tf.summary.SummaryWriter:
        """Begins a file of events, which tells TensorBoard to drop those of steps that are to come once more."""
        writer = tf.summary.create_file_writer(str(self.folder / part))
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        event = tf.compat.v1.Event(wall_time=time.time(), step=steps_made(self.model.optimizer) + 1, session_log=start)
        tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())
        return writer

    def _samples(self) -> str:
        """What the model makes of the prompts, as Markdown that keeps their lines."""
        room = min(self.sample_tokens, self.model.backbone.config.max_length // 2)
        with averaged(self.model):
            texts = self.model.generate(self.prompts, room, temperature=0.8, seed=0, truncate_prompt=True)
        samples = (f"{prompt}{text}" for prompt, text in zip(self.prompts, texts, strict=True))
        return "\n\n---\n\n".join(sample.replace("\n", "  \n") for sample in samples)

    def _write(self, writer: tf.summary.SummaryWriter, scalars: Mapping[str, float]) -> None:
        with may_be_lost(self.folder), writer.as_default(step=steps_made(self.model.optimizer)):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)


def confusion_image(report: Report) -> np.ndarray:
    """The confusion matrix as a picture, uint8 [height, width, 3]: the darker, the larger the share of its true class.

    Of many classes, those of most mistakes are shown. Counts, then labels are left out where there are too many classes
    for them to be legible.
    """
    many = len(report.labels) > CLASSES
    shown = report.most_mistaken(WORST) if many else np.arange(len(report.labels))
    counts, classes = report.confusion_of(shown), len(shown)
    cell = min(56, max(2, PICTURE // classes))
    font = ImageFont.load_default(size=min(14, max(9, cell // 3)))
    labels = [_drawn(str(report.labels[place]), place) for place in shown] if cell >= 12 else []
    margin = 16 + int(max(map(font.getlength, labels), default=0))
    title, top = "rows: true, columns: predicted", margin + 28
    title += f"; the {WORST} classes of most mistakes, of {len(report.labels):,}" if many else ""
    width = margin + cell * classes + 8
    image = Image.new("RGB", (max(width, 16 + int(font.getlength(title))), top + cell * classes + 8), "white")
    draw = ImageDraw.Draw(image)
    draw.text((8, 6), title, "gray", font)

    shares = counts / np.maximum(report.support[shown, None], 1)
    cells = (PALE + shares[..., None] * (DARK - PALE)).round().astype(np.uint8)  # [C, C, 3]
    cells = cells.repeat(cell, axis=0).repeat(cell, axis=1)
    if labels:
        lines = np.arange(cell * classes) % cell >= cell - 2
        cells[lines] = cells[:, lines] = 255
    image.paste(Image.fromarray(cells), (margin, top))

    for place, label in enumerate(labels):
        draw.text((margin - 8, top + (place + 0.5) * cell), label, "black", font, anchor="rm")
        upwards = Image.new("RGB", (margin - 8, cell), "white")
        ImageDraw.Draw(upwards).text((0, cell / 2), label, "black", font, anchor="lm")
        image.paste(upwards.rotate(90, expand=True), (margin + place * cell, top - margin))
    for row, column in np.argwhere(counts) if cell >= 28 else ():
        ink = "white" if shares[row, column] > 0.5 else "black"
        centre = margin + (column + 0.5) * cell - 1, top + (row + 0.5) * cell - 1
        draw.text(centre, _short(counts[row, column]), ink, font, anchor="mm")
    return np.asarray(image)


def _drawn(label: str, place: int) -> str:
    """A label in the letters that the built-in font has, cut to 24; a number where it has none of them."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().strip() or f"class {place}"
    return plain if len(plain) <= 24 else f"{plain[:21]}..."


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def mistakes_table(report: Report, texts: Sequence[str]) -> str:
    """The surest mistakes as a Markdown table."""
    rows = ["| true | predicted | probability | text |", "|---|---|---|---|"]
    for i in report.mistakes[:SHOWN_MISTAKES]:
        predicted = report.predicted[i]
        probability = f"{report.probabilities[i, predicted]:.3f}"
        named = (str(report.labels[place])[:100] for place in (report.truth[i], predicted))
        cells = *named, probability, " ".join(texts[i].split())[:200]
        rows.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    return "\n".join(rows) if len(rows) > 2 else "no mistakes"
