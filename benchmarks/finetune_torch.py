"""One run of transformers on torch for finetune.py: PRECISION CHECKPOINT TRAIN.csv TEST.csv."""

import csv
import json
import statistics
import sys
import time

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

BATCH, LENGTH = 16, 128


def read(file: str, tokenizer, labels: list[str]):
    with open(file, newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    labels = labels or sorted({row["label"] for row in rows})
    ids = torch.tensor([labels.index(row["label"]) for row in rows])
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=LENGTH)
    return encoded, ids, labels


def batch_of(encoded, tokenizer, rows):
    return tokenizer.pad({name: [values[i] for i in rows] for name, values in encoded.items()}, return_tensors="pt")


precision, checkpoint, train_file, test_file = sys.argv[1:]
torch.manual_seed(0)
autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
begun = time.perf_counter()
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
train, train_ids, labels = read(train_file, tokenizer, [])
test, test_ids, _ = read(test_file, tokenizer, labels)
model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(labels))
order = torch.randperm(len(train_ids)).split(BATCH)
decayed = [p for n, p in model.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n]
others = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * len(order)), len(order))
model.train()
seconds = []
for rows in order:
    start = time.perf_counter()
    with autocast:
        loss = model(**batch_of(train, tokenizer, rows.tolist()), labels=train_ids[rows]).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - start)
model.eval()
right = 0
with torch.no_grad(), autocast:
    for rows in torch.arange(len(test_ids)).split(32):
        logits = model(**batch_of(test, tokenizer, rows.tolist())).logits
        right += int((logits.argmax(1) == test_ids[rows]).sum())
result = {"seconds": time.perf_counter() - begun, "accuracy": right / len(test_ids)}
print(json.dumps(result | {"step_ms": 1e3 * statistics.median(seconds)}))
