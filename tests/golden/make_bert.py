"""Makes the golden files of the BERT tests with torch and transformers (`make golden`).

`bert_tiny/` and `bert_masked/` are random checkpoints that `transformers` wrote, `bert_tiny.npz` and `bert_masked.npz`
what it computes with them, and `minilm.npz` what it computes with the MiniLM-L6 checkpoint of the demo. The tests need
neither library.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

HERE = Path(__file__).parent
WORDS = ["the", "cat", "sat", "on", "mat", "##s", "a", "dog", "ran", "."]
SENTENCES = [
    "Shares in the bank rose sharply after it reported record profits.",
    "England won the match in the last minute.",
    "Café, naïve and résumé lose their accents.",
]


VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def shake(model: torch.nn.Module) -> None:
    """Zeros and ones would hide a wrong assignment."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:
            torch.nn.init.normal_(parameter, 1.0 if "LayerNorm.weight" in name else 0.0, 0.3)


def save(model: torch.nn.Module, folder: Path) -> None:
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}\n')


def tiny() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
        initializer_range=0.3,  # wide, so that every part of the model shows in the outputs
        id2label={0: "cat", 1: "dog", 2: "neither"},
        label2id={"cat": 0, "dog": 1, "neither": 2},
    )
    model = BertForSequenceClassification(config).eval()
    shake(model)
    save(model, HERE / "bert_tiny")
    inputs = {
        "input_ids": torch.randint(5, len(VOCAB), (3, 12)),
        "token_type_ids": torch.tensor([[0] * 6 + [1] * 6] * 3),
        "attention_mask": torch.tensor([[1] * 12, [1] * 7 + [0] * 5, [1] * 2 + [0] * 10]),
    }
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
        pooled = model.bert(**inputs).pooler_output
    np.savez_compressed(
        HERE / "bert_tiny.npz",
        token_ids=inputs["input_ids"].int(),
        segment_ids=inputs["token_type_ids"].int(),
        padding_mask=inputs["attention_mask"].int(),
        hidden_states=outputs.hidden_states[-1],
        pooled=pooled,
        logits=outputs.logits,
    )


def masked() -> None:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        initializer_range=0.3,
    )
    model = BertForMaskedLM(config).eval()
    shake(model)
    save(model, HERE / "bert_masked")
    inputs = {
        "input_ids": torch.randint(4, len(VOCAB), (3, 10)),
        "token_type_ids": torch.tensor([[0] * 6 + [1] * 4] * 3),
        "attention_mask": torch.tensor([[1] * 10, [1] * 7 + [0] * 3, [1] * 2 + [0] * 8]),
    }
    labels = torch.where(torch.rand(3, 10) < 0.3, torch.randint(5, len(VOCAB), (3, 10)), -100)
    labels[inputs["attention_mask"] == 0] = -100
    with torch.no_grad():
        outputs = model(**inputs, labels=labels)
    np.savez_compressed(
        HERE / "bert_masked.npz",
        token_ids=inputs["input_ids"].int(),
        segment_ids=inputs["token_type_ids"].int(),
        padding_mask=inputs["attention_mask"].int(),
        labels=labels.int(),
        loss=outputs.loss,
        logits=outputs.logits,
    )


def minilm(folder: str) -> None:
    model, tokenizer = BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    np.savez_compressed(
        HERE / "minilm.npz",
        sentences=np.array(SENTENCES),
        token_ids=inputs["input_ids"].int(),
        padding_mask=inputs["attention_mask"].int(),
        hidden_states=outputs.last_hidden_state,
        pooled=outputs.pooler_output,
    )


if __name__ == "__main__":
    tiny()
    masked()
    minilm(sys.argv[1])
