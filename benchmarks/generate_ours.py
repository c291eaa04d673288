"""One run of kerasformer for generate.py: PRECISION CALLS BATCH..."""

import json
import sys
import time

import numpy as np

import kerasformer as kf
from kerasformer.models.gpt.model import GPT

precision, calls, *batches = sys.argv[1:]
model = kf.CausalLM(GPT.from_preset("gpt2"))
speeds = {}
for batch in map(int, batches):
    prompts = np.random.default_rng(0).integers(0, 50_257, (batch, 32))
    seconds = []
    for _ in range(int(calls) + 1):
        begun = time.perf_counter()
        made = model.generate(prompts, 64, precision=precision)
        seconds.append(time.perf_counter() - begun)
        assert all(len(row) == 64 for row in made)
    speeds[batch] = [batch * 64 / taken for taken in seconds[1:]]
print(json.dumps(speeds))
