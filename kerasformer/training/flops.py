"""How much arithmetic a model needs, and how much a device can do."""

import functools
import logging
import math
import time

import keras
import tensorflow as tf

from kerasformer import backend
from kerasformer.models.head import Head

logger = logging.getLogger(__name__)

LEAST_SECONDS, PRODUCTS, LARGEST = 0.02, 10, 16_384
_achieved: dict[str, float] = {}  # FLOP/s of a device, by type: the most that a training has made


def flops_per_token(model: Head, length: int) -> float:
    """FLOPs of a training step for each token of rows of `length`: 6 N + 12 L T D (PaLM, arXiv 2204.02311, appendix B).

    N are the parameters that a token is multiplied with. Tables that are only looked up are not among them; a token
    table that also gives the scores of the next token is. What is computed twice to save memory does not count. What is
    frozen lies below all that learns, and takes a forward pass alone, a third; a frozen table of scores takes two.
    """
    config, blocks = model.backbone.config, model.backbone.blocks
    third = 2 * sum(math.prod(v.shape) for v in model.non_trainable_weights if v.name != "embeddings")
    third += 4 * sum(not block.trainable for block in blocks) * length * config.dim
    spared = 2 * third + (2 * _scored(model) if model.scored_share and not model.backbone.output_table.trainable else 0)
    return 6 * multiplied(model) + 12 * len(blocks) * length * config.dim - spared


def multiplied(model: Head) -> int:
    """The parameters that a token is multiplied with; of a table that only a share of them meet, that share."""
    return sum(math.prod(v.shape) for v in model.weights if v.name != "embeddings") + _scored(model)


def _scored(model: Head) -> int:
    """The parameters of the table that gives tokens their scores, times the share of the tokens that get any."""
    return round(model.scored_share * math.prod(model.backbone.output_table.shape)) if model.scored_share else 0


def peak_flops(
    strategy: tf.distribute.Strategy, dtype: str, tflops: float | None = None, achieved: float = 0.0
) -> float:
    """FLOP/s that the devices of a strategy can do together.

    Args:
        dtype: of the products.
        tflops: what one device is said to do; without it, it is measured, once in a process.
        achieved: FLOP/s that the devices have just made together. What is measured is raised to it: a machine may have
            been busy when it was.
    """
    count = devices(strategy)
    if tflops:
        return count * tflops * 1e12
    _achieved[dtype] = max(_achieved.get(dtype, 0.0), achieved / count)
    return count * max(_measured(dtype), _achieved[dtype])


def devices(strategy: tf.distribute.Strategy) -> int:
    """How many devices share the work. The replicas on one machine's CPU are one device: they share its cores."""
    if backend.has_accelerator():
        return strategy.num_replicas_in_sync
    resolver = getattr(strategy, "cluster_resolver", None)
    return max(1, resolver.cluster_spec().num_tasks("worker")) if resolver and "worker" in _jobs(resolver) else 1


def _jobs(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> list[str]:
    return resolver.cluster_spec().jobs


@functools.cache
def _measured(dtype: str) -> float:
    """FLOP/s of a product of matrices, the fastest of several, and large enough for its dispatch not to count."""
    product = tf.function(lambda a: tf.reduce_sum(tf.matmul(a, a, transpose_b=True)), autograph=False)
    size = 512
    while True:
        matrix = keras.ops.cast(tf.random.normal([size, size]), dtype)
        product(matrix).numpy()
        seconds = []
        for _ in range(PRODUCTS):
            start = time.perf_counter()
            product(matrix).numpy()
            seconds.append(time.perf_counter() - start)
        if min(seconds) > LEAST_SECONDS or 2 * size > LARGEST:
            break
        size *= 2
    flops = 2 * size**3 / min(seconds)
    logger.info(
        "peak: %.3g TFLOP/s a device, measured on a product of %d x %d matrices in %s; give peak_tflops "
        "(--train.peak_tflops) if you know better",
        flops / 1e12,
        size,
        size,
        dtype,
    )
    return flops
