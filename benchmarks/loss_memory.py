"""Peak memory of the loss of next tokens and its gradients, in chunks and plain: V = 50,257, 8,192 tokens, width 768.

    python benchmarks/loss_memory.py

Each is computed in a process of its own, which prints how far its memory rose above what it took to begin with.
"""

import json
import resource
import subprocess
import sys
import time

VOCAB, TOKENS, DIM = 50_257, 8192, 768


def peak() -> float:
    """The most memory that this process has taken, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(how: str) -> dict[str, float]:
    import tensorflow as tf

    from kerasformer.training.next_token import summed_crossentropy

    def chunked(hidden, table):
        return summed_crossentropy(hidden, table, labels, tf.ones_like(labels, tf.float32))

    def plain(hidden, table):
        logits = tf.matmul(hidden, table, transpose_b=True)
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    @tf.function
    def step(hidden, table):
        with tf.GradientTape() as tape:
            tape.watch([hidden, table])
            loss = {"chunked": chunked, "plain": plain}[how](hidden, table)
        return loss, tape.gradient(loss, [hidden, table])

    hidden, table = tf.random.normal([1, TOKENS, DIM]), 0.02 * tf.random.normal([VOCAB, DIM])
    labels = tf.random.uniform([1, TOKENS], 0, VOCAB, tf.int32)
    before, begun = peak(), time.perf_counter()
    loss, _ = step(hidden, table)
    return {"loss": float(loss) / TOKENS, "gigabytes": peak() - before, "seconds": time.perf_counter() - begun}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        for how in ("chunked", "plain"):
            result = subprocess.run([sys.executable, __file__, how], stdout=subprocess.PIPE, text=True, check=True)
            print(f"{how}: {json.loads(result.stdout)}")
