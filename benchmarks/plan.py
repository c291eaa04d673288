"""Planned and measured peak memory of training steps, of GPT-2's smallest size and BERT's base size, on this CPU.

    python benchmarks/plan.py [--json FILE] [SETTING ...]

Each setting, such as gpt:512x4:bfloat16:remat, is measured in a process of its own: how far its peak of resident memory
rose above what it took before there was a model, after three steps of `fit` with AdamW.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = """
gpt:512x1:float32 gpt:512x4:float32 gpt:1024x1:float32 gpt:512x4:float32:remat gpt:1024x2:float32:remat
gpt:512x4:bfloat16 gpt:1024x2:bfloat16 gpt:512x4:bfloat16:remat
bert:128x8:float32 bert:512x2:float32 bert:128x16:float32:remat bert:128x16:bfloat16 bert:512x4:bfloat16:remat
""".split()
STEPS = 3


def resident() -> int:
    """Bytes of memory that this process has now."""
    [line] = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def make(family: str, length: int, policy: str):
    from kerasformer.models.bert.config import BertConfig
    from kerasformer.models.bert.model import Bert
    from kerasformer.models.gpt.config import GPTConfig
    from kerasformer.models.gpt.model import GPT
    from kerasformer.training.tasks import CausalLM, Classifier

    if family == "gpt":  # as gpt_pretrain trains it, without dropout
        return CausalLM(GPT(GPTConfig(max_length=length, dropout=0.0, attention_dropout=0.0), dtype=policy))
    return Classifier(Bert(BertConfig(), dtype=policy), ["no", "yes"])


def measure(setting: str) -> dict:
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasformer.training.meter import host_memory
    from kerasformer.training.optimizers import adamw
    from kerasformer.training.plan import Step, Weightless, memory

    family, size, precision, *remat = setting.split(":")
    length, batch = map(int, size.split("x"))
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]

    step = Step(batch, length, remat=bool(remat))
    plan = memory(Weightless.of(lambda: make(family, length, policy), adamw(1e-4, steps=100)), step)
    tf.matmul(tf.ones([64, 64]), tf.ones([64, 64])).numpy()
    before = resident()
    model = make(family, length, policy)
    model.backbone.set_remat(bool(remat))
    model.compile(adamw(1e-4, steps=100))
    ids = np.random.default_rng(0).integers(0, model.backbone.config.vocab_size, (batch, length)).astype(np.int32)
    inputs, labels = {"token_ids": ids}, ids
    if family == "bert":
        inputs |= {"segment_ids": np.zeros_like(ids), "padding_mask": np.ones_like(ids)}
        labels = np.zeros(batch, np.int32)
    begun = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            begun.append(time.perf_counter())

    data = tf.data.Dataset.from_tensors((inputs, labels)).repeat(STEPS)
    model.fit(data, shuffle=False, verbose=0, callbacks=[Clock()])
    seconds = time.perf_counter() - begun[-1]
    measured = host_memory() - before
    figures = {"planned_gb": plan.peak / 1e9, "measured_gb": measured / 1e9, "ratio": plan.peak / measured}
    return {"setting": setting, **figures, "step_seconds": seconds, "phases_gb": plan.phases}


def main(arguments: list[str]) -> None:
    file = Path(arguments.pop(arguments.index("--json") + 1)) if "--json" in arguments else None
    results = []
    print(f"{'setting':28} {'planned':>8} {'measured':>8} {'ratio':>6} {'s a step':>8}")
    for setting in [a for a in arguments if a != "--json"] or SETTINGS:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, "--measure", setting]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        result = json.loads(done.stdout)
        results.append(result)
        figures = f"{result['planned_gb']:8.2f} {result['measured_gb']:8.2f} {result['ratio']:6.2f}"
        print(f"{setting:28} {figures} {result['step_seconds']:8.1f}", flush=True)
    if file:
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:])
