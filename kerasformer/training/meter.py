"""How fast a training is, and what it takes: computed once an execution of steps, for all that show it."""

import resource
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf

from kerasformer.models.head import Head
from kerasformer.training.flops import flops_per_token, peak_flops

METER_LOGS = ("step_seconds", "tokens_per_second", "model_flops_utilization", "data_wait_share")
METER_LOGS += ("host_memory_gb", "device_memory_gb")


class Meter(keras.callbacks.Callback):
    """Adds to the logs of each execution of steps how fast it was; place it before the callbacks that read them.

    `step_seconds`; `tokens_per_second`, real ones; `model_flops_utilization`, the share of the devices' peak FLOP/s
    that the model's own arithmetic on real tokens makes; `data_wait_share`, the share of the time in which the step
    had asked for its next batch and did not have it (of one replica alone: with more, batches are prefetched behind
    what can be timed); `host_memory_gb` and, on GPUs, `device_memory_gb`: the most that was taken so far.

    Args:
        peak_tflops: of one device. By default it is measured by a product of matrices, and is at least what the
            training itself has made, so that the utilization is at most 1.
    """

    def __init__(self, peak_tflops: float | None = None):
        super().__init__()
        self.peak_tflops = peak_tflops

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        feed = getattr(self.model, "feed", None)
        self.first, self.counts, self.begun = batch, feed and feed.read(), time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if logs is None or "step_seconds" in logs:
            return
        seconds, steps = time.perf_counter() - self.begun, batch - self.first + 1
        logs["step_seconds"] = seconds / steps
        if "tokens" in logs:
            logs |= self._rates(seconds, steps, logs)
        logs |= memory()

    def _rates(self, seconds: float, steps: int, logs: dict) -> dict[str, float]:
        tokens, rates, feed = steps * float(logs["tokens"]), {}, getattr(self.model, "feed", None)
        if self.counts is not None:
            waited, tokens = (now - before for now, before in zip(feed.read(), self.counts, strict=True))
            rates["data_wait_share"] = min(waited / seconds, 1.0)
        rates["tokens_per_second"] = tokens / seconds
        if "rows" in logs and isinstance(self.model, Head):
            length = round(float(logs["positions"]) / float(logs["rows"]))
            flops = flops_per_token(self.model, length) * tokens / seconds
            peak = peak_flops(self.model.distribute_strategy, self.model.compute_dtype, self.peak_tflops, flops)
            rates["model_flops_utilization"] = flops / peak
        return rates


def memory() -> dict[str, float]:
    """The most memory that this process has taken, in GB, and on GPUs that of the fullest one."""
    gpus = tf.config.list_logical_devices("GPU")
    peaks = [tf.config.experimental.get_memory_info(gpu.name.removeprefix("/device:"))["peak"] for gpu in gpus]
    return {"host_memory_gb": host_memory() / 1e9} | ({"device_memory_gb": max(peaks) / 1e9} if peaks else {})


def host_memory() -> int:
    """The most memory that this process has had at a time, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count in what the parent process had when it started this one
        [line] = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
