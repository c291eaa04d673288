"""Makes the golden files of the GPT tests with torch and transformers: `python make_gpt.py`, from this folder.

`gpt_tiny/` is a random checkpoint that `transformers` wrote, and `gpt_tiny.npz` what it computes and generates with it.
`gpt2_124m.npz` is what it computes with the weights of `large_tensors`, which the test draws again. The tests need
neither library.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2TokenizerFast

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from gpt_weights import large_tensors  # noqa: E402

MERGES = ["Ġ t", "h e", "Ġt he", "a t", "c at", "Ġ cat", "o g", "d og", "Ġ dog", "s at", "Ġ sat", "Ġ o", "Ġo n"]
PROMPTS = ["The cat sat on", " the dog", "a", "Dogs and cats: the"]
NEW_TOKENS = 12


def tiny() -> None:
    torch.manual_seed(0)
    folder = HERE / "gpt_tiny"
    tokens = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>"]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = GPT2TokenizerFast(vocab=ids, merges=[tuple(merge.split(" ")) for merge in MERGES])
    tokenizer.save_pretrained(folder)
    end = ids["<|endoftext|>"]
    config = GPT2Config(
        vocab_size=len(ids), n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=40, initializer_range=0.3,
        bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "ln_" in name:  # zeros and ones would hide a wrong assignment
            torch.nn.init.normal_(parameter, 1.0 if "ln_" in name and "weight" in name else 0.0, 0.3)
    model.save_pretrained(folder)
    classifier = GPT2ForSequenceClassification(GPT2Config(**{**config.to_dict(), "num_labels": 3})).eval()
    classifier.transformer.load_state_dict(model.transformer.state_dict())

    inputs = {
        "input_ids": torch.randint(0, len(ids) - 1, (3, 12)),
        "attention_mask": torch.tensor([[1] * 12, [1] * 7 + [0] * 5, [1] * 2 + [0] * 10]),
    }
    inputs["input_ids"][inputs["attention_mask"] == 0] = end
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
        classes = classifier(**inputs).logits
    np.savez_compressed(
        HERE / "gpt_tiny.npz",
        token_ids=inputs["input_ids"].int(),
        padding_mask=inputs["attention_mask"].int(),
        hidden_states=outputs.hidden_states[-1],
        logits=outputs.logits,
        score=classifier.score.weight.detach(),
        classes=classes,
        **continuations(model, tokenizer),
    )


def continuations(model: GPT2LMHeadModel, tokenizer: GPT2TokenizerFast) -> dict[str, np.ndarray]:
    """New tokens [N, NEW_TOKENS] of each prompt alone, filled up with -1 after the end."""
    ways = {
        "greedy": {},
        "penalty": {"repetition_penalty": 1.3},
        "beam4": {"num_beams": 4},
        "beam3_short": {"num_beams": 3, "length_penalty": 0.0},
    }
    made = {"prompts": np.array(PROMPTS)}
    for name, options in ways.items():
        rows = np.full((len(PROMPTS), NEW_TOKENS), -1, np.int32)
        for row, prompt in zip(rows, PROMPTS, strict=True):
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            new = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False, **options)[0, ids.shape[1] :]
            row[: len(new)] = new
        made[name] = rows
    return made


def large() -> None:
    model = GPT2LMHeadModel(GPT2Config()).eval()
    state = {name: torch.from_numpy(value) for name, value in large_tensors()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 50_257, (2, 48)))
    with torch.no_grad():
        logits = model(ids).logits
    np.savez_compressed(HERE / "gpt2_124m.npz", token_ids=ids.int(), logits=logits[:, ::8, ::101])


if __name__ == "__main__":
    tiny()
    large()
