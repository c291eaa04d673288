"""Makes the golden files of the BERT tests with torch and transformers (`make golden`).

`bert_tiny/` is a random checkpoint that `transformers` wrote, `bert_tiny.npz` what it computes with it, and
`minilm.npz` what it computes with the MiniLM-L6 checkpoint of the demo. The tests need neither library.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

HERE = Path(__file__).parent
WORDS = ["the", "cat", "sat", "on", "mat", "##s", "a", "dog", "ran", "."]
SENTENCES = [
    "Shares in the bank rose sharply after it reported record profits.",
    "England won the match in the last minute.",
    "Café, naïve and résumé lose their accents.",
]


def tiny() -> None:
    torch.manual_seed(0)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = BertConfig(
        vocab_size=len(vocab),
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
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:  # zeros and ones would hide a wrong assignment
            torch.nn.init.normal_(parameter, 1.0 if "LayerNorm.weight" in name else 0.0, 0.3)
    folder = HERE / "bert_tiny"
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}\n')
    inputs = {
        "input_ids": torch.randint(5, len(vocab), (3, 12)),
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
    minilm(sys.argv[1])
