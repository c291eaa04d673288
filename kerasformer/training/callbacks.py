"""What happens beside the training steps: the best model, the log, the progress bar; and those of other modules."""

import atexit
import csv
import io
import json
import math
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kerasformer.files import append_line
from kerasformer.training.averages import AveragedValidation, averaged
from kerasformer.training.checkpoints import Checkpoints
from kerasformer.training.evaluation import Evaluation, Perplexity
from kerasformer.training.faults import Finite, may_be_lost
from kerasformer.training.meter import Meter
from kerasformer.training.optimizers import steps_made
from kerasformer.training.profiling import Profile
from kerasformer.training.progress import STEP_LOGS
from kerasformer.training.strategies import is_chief
from kerasformer.training.tensorboard import TensorBoard

__all__ = ["AveragedValidation", "BestModel", "Checkpoints", "Evaluation", "Finite", "Meter", "MetricsLog"]
__all__ += ["MetricsTable", "Perplexity", "Profile", "ProgressBar", "TensorBoard"]


class BestModel(keras.callbacks.Callback):
    """Saves the model in the Hugging Face format after each epoch that is the best so far by `monitor`.

    Args:
        folder: where the model goes.
        monitor: name in the logs; more is better unless it names a loss, and of equals the lower `val_loss` wins.
            Where the logs lack it, every epoch is best.
        patience: stop the training after this many epochs without a better one; 0 never does.
    """

    def __init__(self, folder: Path, monitor: str = "val_accuracy", patience: int = 0):
        super().__init__()
        self.folder, self.monitor, self.patience = Path(folder), monitor, patience
        self.best, self.best_epoch = (-math.inf, -math.inf), -1

    def memory(self) -> dict:
        """What a resumed training has to know."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def recall(self, memory: dict) -> None:
        """Takes up what `memory` told."""
        self.best, self.best_epoch = tuple(memory["best"]), memory["best_epoch"]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        value, sign = logs.get(self.monitor), -1 if "loss" in self.monitor else 1
        score = (-math.inf if value is None else sign * value, -logs.get("val_loss", 0.0))
        if value is None or score > self.best:
            self.best, self.best_epoch = score, epoch
            if is_chief():
                with averaged(self.model):
                    self.model.save_pretrained(self.folder)
        elif self.patience and epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True


class MetricsLog(keras.callbacks.Callback):
    """Appends one JSON object an execution of steps, and one an epoch, to a file.

    Args:
        epoch: what the records call an epoch, for a run that only counts steps and evaluations.
    """

    def __init__(self, file: Path, epoch: str = "epoch"):
        super().__init__()
        self.path, self.epoch = Path(file), epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._write({"step": steps_made(self.model.optimizer), **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        figures = {name: value for name, value in (logs or {}).items() if name not in STEP_LOGS}
        self._write({self.epoch: epoch + 1, "step": steps_made(self.model.optimizer), **figures})

    def _write(self, record: dict) -> None:
        with may_be_lost(self.path):
            append_line(self.path, json.dumps({name: _plain(value) for name, value in record.items()}))


class MetricsTable(keras.callbacks.Callback):
    """Appends a row an execution of steps to a CSV file; its columns are those of the first row that it ever had."""

    def __init__(self, file: Path):
        super().__init__()
        self.path = Path(file)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        record = {"step": steps_made(self.model.optimizer), **(logs or {})}
        with may_be_lost(self.path):
            with self.path.open("a+", encoding="utf-8") as file:
                file.seek(0)
                header = file.readline()
            names = next(csv.reader([header])) if header else list(record)
            text = io.StringIO()
            rows = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
            if not header:
                rows.writeheader()
            rows.writerow({name: _plain(value) for name, value in record.items()})
            append_line(self.path, text.getvalue().removesuffix("\n"))


class ProgressBar(keras.callbacks.Callback):
    """Shows loss, tokens/s, utilization and time left, on stderr: a bar on a terminal, else a line now and then.

    Args:
        steps: of the whole training.
        every: seconds between two lines where stderr is no terminal.
        epoch: what an epoch is called.
    """

    def __init__(self, steps: int, every: float = 15.0, epoch: str = "epoch"):
        super().__init__()
        self.steps, self.every, self.epoch = steps, every, epoch
        self.console = Console(stderr=True)
        self.meter = Meter()

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.meter.set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.done, self.timed, self.tokens, self.seconds = steps_made(self.model.optimizer), 0, 0.0, 0.0
        self.peaks = 0.0  # seconds at the devices' peak that the same arithmetic would take
        self.compiled = False
        self.printed = time.perf_counter()
        columns = TextColumn("step {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.description}")
        self.bar = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=self.console)
        self.task = self.bar.add_task("", total=self.steps, completed=self.done)
        if self.console.is_terminal:
            self.bar.start()
            atexit.register(self.bar.stop)  # gives the cursor back where a training is interrupted

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.first = batch
        self.meter.on_train_batch_begin(batch)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.meter.on_train_batch_end(batch, logs)  # unless another one has been asked already
        steps = batch - self.first + 1  # of one execution
        if self.compiled:  # which the first one does
            seconds = steps * logs["step_seconds"]
            self.timed += steps
            self.seconds += seconds
            self.tokens += seconds * logs["tokens_per_second"]
            self.peaks += seconds * logs.get("model_flops_utilization", 0.0)
        self.done, self.compiled = self.done + steps, True
        text = "  ".join(f"{name} {float(logs[name]):.4f}" for name in ("loss", "accuracy") if name in logs)
        text += f"  {self.tokens / self.seconds:,.0f} tokens/s" if self.seconds else ""
        text += f"  MFU {self.peaks / self.seconds:.0%}" if self.peaks else ""
        self.bar.update(self.task, advance=steps, description=text)
        if not self.console.is_terminal and time.perf_counter() - self.printed > self.every:
            self.printed = time.perf_counter()
            left = (self.steps - self.done) * self.seconds / max(self.timed, 1)
            self._print(f"step {self.done}/{self.steps}  {text}  {left:.0f} s left")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        shown = ("loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1", "val_perplexity", "val_bits_per_byte")
        figures = "  ".join(f"{name} {float(logs[name]):.4f}" for name in shown if name in logs)
        self._print(f"{self.epoch} {epoch + 1}  {figures}")

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


def _plain(value: float | np.number) -> float | int | None:
    """A number as Python's own; what JSON has no word for, such as NaN, as None."""
    value = value.item() if hasattr(value, "item") else value
    return value if math.isfinite(value) else None
