"""Whether XLA pays for a model on this machine, decided by measuring a few steps."""

import logging
import math
import statistics
import time

import tensorflow as tf

from kerasformer.training.step import TrainingStep

logger = logging.getLogger(__name__)

MEASURED_STEPS = 3
# XLA takes seconds to compile each shape of batch, on a slow CPU more than half a minute, and a step that it has made
# can be several times slower there: a run of fewer seconds hardly earns back what the measurement itself takes.
SHORTEST_RUN = 600.0


def choose_jit(
    model: TrainingStep, dataset: tf.data.Dataset, steps: int, mode: str = "auto", shapes: int = 1
) -> bool | str:
    """What to give `compile(jit_compile=)` for `mode`: "none" -> False, "xla" -> True, "auto" -> as measured.

    Args:
        model: compiled; its weights and optimizer are not changed.
        dataset: what it trains on; the first batch is measured.
        steps: length of the run.
        shapes: how many shapes the batches have, each of which XLA compiles.
    """
    if mode != "auto":
        return mode == "xla"
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return "auto"  # what one replica measures need not hold for all
    data = next(iter(dataset))
    steps *= model.accumulate
    _, plain = _measure(model, data, jit=False)
    if plain * steps < SHORTEST_RUN:
        logger.info(
            "compile: TensorFlow's own kernels (%.0f ms a step, so about %.0f s in all; too short for XLA to earn its "
            "compilation back)",
            1e3 * plain,
            plain * steps,
        )
        return "auto"
    compilation, xla = _measure(model, data, jit=True, limit=plain)
    pays = compilation * shapes + xla * steps < plain * steps
    logger.info(
        "compile: %s (a step takes %.0f ms with TensorFlow's own kernels and %.0f ms with XLA, whose compilation takes "
        "%.1f s for each of %d shapes)",
        "XLA" if pays else "TensorFlow's own kernels",
        1e3 * plain,
        1e3 * xla,
        compilation,
        shapes,
    )
    return True if pays else "auto"


def _measure(model: TrainingStep, data: tuple, jit: bool, limit: float = math.inf) -> tuple[float, float]:
    """Seconds of the first call, beyond a later one, and the median of later ones, for the gradients of one batch.

    Args:
        limit: seconds; a later call that takes longer is the last.
    """
    rows = -(-len(data[1]) // model.accumulate)  # of a micro-batch
    inputs, labels = tf.nest.map_structure(lambda tensor: tensor[:rows], data[:2])
    gradients = model.compiled_gradients(jit)
    seconds = []
    for _ in range(MEASURED_STEPS + 1):
        start = time.perf_counter()
        gradients(inputs, labels, tf.ones(tf.shape(labels)))[0].numpy()
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 1 and seconds[-1] > limit:
            break
    median = statistics.median(seconds[1:])
    return max(seconds[0] - median, 0.0), median
