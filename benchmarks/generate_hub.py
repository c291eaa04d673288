"""One run of KerasHub on TensorFlow for generate.py: PRECISION CALLS BATCH..."""

import json
import sys
import time

import keras
import keras_hub
import numpy as np

precision, calls, *batches = sys.argv[1:]
keras.config.set_dtype_policy(precision)
backbone = keras_hub.models.GPT2Backbone(50_257, 12, 12, 768, 3072, max_sequence_length=1024)
model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
model.compile(sampler="greedy")
speeds = {}
for batch in map(int, batches):
    prompts = np.random.default_rng(0).integers(0, 50_257, (batch, 32))
    inputs = {
        "token_ids": np.pad(prompts, ((0, 0), (0, 64))).astype(np.int32),
        "padding_mask": np.repeat(np.arange(96)[None] < 32, batch, axis=0).astype(np.int32),
    }
    seconds = []
    for _ in range(int(calls) + 1):
        begun = time.perf_counter()
        made = model.generate(inputs, stop_token_ids=None)
        seconds.append(time.perf_counter() - begun)
        assert np.shape(made["token_ids"]) == (batch, 96)
    speeds[batch] = [batch * 64 / taken for taken in seconds[1:]]
print(json.dumps(speeds))
