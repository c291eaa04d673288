"""Training steps on Keras for gpt.py: LIBRARY PRECISION COMPILE STEPS.

LIBRARY is ours or keras_hub, PRECISION float32 or bfloat16, COMPILE auto, xla or none. Each takes its `fit` as it is.
"""

import json
import statistics
import sys
import time

import keras
import numpy as np
import tensorflow as tf

LAYERS, HEADS, DIM, LENGTH, BATCH, VOCAB = 4, 4, 256, 256, 8, 8192
library, precision, compiled, steps = sys.argv[1:]
steps = int(steps)
dtype = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
keras.utils.set_random_seed(0)
rows = np.random.default_rng(0).integers(0, VOCAB, (steps * BATCH, LENGTH + 1)).astype(np.int32)


class StepTimes(keras.callbacks.Callback):
    """Seconds of each training step."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.begun)


def ours():
    import kerasformer as kf

    config = kf.GPTConfig(VOCAB, LAYERS, HEADS, DIM, 4 * DIM, LENGTH, dropout=0.0, attention_dropout=0.0)
    model = kf.CausalLM(kf.GPT(config, dtype=dtype))
    optimizer = kf.optimizers.adamw(1e-3, steps=steps, weight_decay=0.1, beta_2=0.99)
    model.compile(optimizer, jit_compile={"auto": "auto", "xla": True, "none": False}[compiled])
    return model, {"token_ids": rows[:, :-1]}


def keras_hub():
    from keras_hub.models import GPT2Backbone, GPT2CausalLM

    sizes = {"num_layers": LAYERS, "num_heads": HEADS, "hidden_dim": DIM, "intermediate_dim": 4 * DIM}
    backbone = GPT2Backbone(VOCAB, **sizes, dropout=0.0, max_sequence_length=LENGTH, dtype=dtype)
    model = GPT2CausalLM(backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.1, beta_2=0.99, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile={"auto": "auto", "xla": True, "none": False}[compiled],
    )
    return model, {"token_ids": rows[:, :-1], "padding_mask": np.ones_like(rows[:, :-1])}


model, inputs = {"ours": ours, "keras_hub": keras_hub}[library]()
times = StepTimes()
dataset = tf.data.Dataset.from_tensor_slices((inputs, rows[:, 1:])).batch(BATCH, drop_remainder=True)
model.fit(dataset, verbose=0, callbacks=[times])
median = statistics.median(times.seconds[min(5, steps // 2) :])
print(json.dumps({"step_ms": 1e3 * median, "tokens_s": BATCH * LENGTH / median}))
