"""Training steps on torch for gpt.py: TASK MODE STEPS [TEXT].

TASK is `step`, GPT-2's model of `transformers` at the benchmark's size, or `shakespeare`, a plain GPT in torch with
the hyperparameters of nanoGPT's recipe for a CPU. MODE is float32 or bfloat16 (autocast), after "compiled-" by
torch.compile.
"""

import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

task, mode, steps, *rest = sys.argv[1:]
SHAKESPEARE = task == "shakespeare"
LAYERS, HEADS, DIM, LENGTH, BATCH = (4, 4, 128, 64, 12) if SHAKESPEARE else (4, 4, 256, 256, 8)


class Block(nn.Module):
    """Pre-norm causal attention and MLP, without biases."""

    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(DIM, bias=False), nn.LayerNorm(DIM, bias=False)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)
        self.up, self.down = nn.Linear(DIM, 4 * DIM, bias=False), nn.Linear(4 * DIM, DIM, bias=False)

    def forward(self, x):
        qkv = self.qkv(self.norm_1(x)).view(*x.shape[:2], 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.out(attended)
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class PlainGPT(nn.Module):
    """Token and position tables, blocks, a norm, and the token table again for the logits."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab_size, DIM), nn.Embedding(LENGTH, DIM)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(DIM, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                narrow = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if narrow else 0.02)

    def forward(self, ids, labels):
        x = self.token(ids) + self.position(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy((self.norm(x) @ self.token.weight.T).flatten(0, 1), labels.flatten())


def of_transformers():
    from transformers import GPT2Config, GPT2LMHeadModel

    rates = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"vocab_size": 8192, "n_positions": LENGTH, "n_embd": DIM, "n_layer": LAYERS, "n_head": HEADS}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **rates, bos_token_id=0, eos_token_id=0))
    return lambda ids, labels: F.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten()), model


torch.manual_seed(0)
if SHAKESPEARE:
    text = Path(rest[0]).read_text(encoding="utf-8")
    places = {char: i for i, char in enumerate(sorted(set(text)))}
    stream = torch.tensor([places[char] for char in text])
    stream, held_out = stream[: int(0.9 * len(stream))], stream[int(0.9 * len(stream)) :]
    model = PlainGPT(len(places))
    loss_of = model
else:
    stream = torch.randint(8192, (1_000_000,))
    loss_of, model = of_transformers()
if mode.startswith("compiled-"):
    loss_of = torch.compile(loss_of)
autocast = torch.autocast("cpu", torch.bfloat16, enabled=mode.endswith("bfloat16"))
matrices = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() <= 1]
groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
steps, seconds = int(steps), []
begun = time.perf_counter()
for step in range(steps):
    start = time.perf_counter()
    cosine = 0.5 + 0.5 * math.cos(math.pi * max(0.0, step - 100) / 1900)
    rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + cosine * 9e-4
    for group in optimizer.param_groups:
        group["lr"] = rate
    starts = torch.randint(len(stream) - LENGTH, (BATCH,))
    rows = torch.stack([stream[i : i + LENGTH + 1] for i in starts])
    with autocast:
        loss = loss_of(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    loss.item()
    seconds.append(time.perf_counter() - start)
median = statistics.median(seconds[min(5, steps // 2) :])
result = {"seconds": time.perf_counter() - begun, "step_ms": 1e3 * median, "tokens_s": BATCH * LENGTH / median}
if SHAKESPEARE:
    count = (len(held_out) - 1) // LENGTH * LENGTH
    ids, labels = held_out[:count].view(-1, LENGTH), held_out[1 : count + 1].view(-1, LENGTH)
    with torch.no_grad(), autocast:
        losses = [model(a, b) * len(a) for a, b in zip(ids.split(64), labels.split(64), strict=True)]
    result["val_loss"] = float(sum(losses)) / len(ids)
print(json.dumps(result))
