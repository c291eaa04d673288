"""One run of transformers on torch for generate.py: PRECISION WAY CALLS BATCH..., WAY being eager or compiled."""

import json
import sys
import time

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

precision, way, calls, *batches = sys.argv[1:]
model = GPT2LMHeadModel(GPT2Config()).to(getattr(torch, precision)).eval()
cache = {}
if way == "compiled":
    model.forward, cache = torch.compile(model.forward), {"cache_implementation": "static"}
speeds = {}
for batch in map(int, batches):
    prompts = torch.from_numpy(np.random.default_rng(0).integers(0, 50_257, (batch, 32)))
    settings = {"attention_mask": torch.ones_like(prompts), "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    seconds = []
    for _ in range(int(calls) + 1):
        begun = time.perf_counter()
        made = model.generate(prompts, max_new_tokens=64, min_new_tokens=64, **settings, **cache)
        seconds.append(time.perf_counter() - begun)
        assert made.shape == (batch, 96)
    speeds[batch] = [batch * 64 / taken for taken in seconds[1:]]
print(json.dumps(speeds))
