"""Makes `beams_tiny.npz` with torch and transformers: `python make_beams.py`, from this folder.

What `transformers` finds by beam search with the model of `gpt_tiny/`, where texts end early: each case takes another
token as the end of text. The tests need neither library.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

HERE = Path(__file__).parent
PROMPTS = [[51, 257, 261, 266, 268], [258, 264], [64], [35, 262, 82, 220, 64, 77, 67, 261, 82, 25, 258]]
END_IDS, NUM_BEAMS, LENGTH_PENALTIES, REPETITION_PENALTIES = (
    (57, 73, 101, 173),
    (2, 5),
    (-1.0, 0.0, 1.0, 2.0),
    (1.0, 1.3),
)
NEW_TOKENS = 12


def main() -> None:
    model = GPT2LMHeadModel.from_pretrained(HERE / "gpt_tiny").eval()
    cases = list(product(END_IDS, NUM_BEAMS, LENGTH_PENALTIES, REPETITION_PENALTIES))
    found = np.full((len(cases), len(PROMPTS), NEW_TOKENS), -1, np.int32)  # -1 after the end, which is left out
    for rows, (end_id, num_beams, length_penalty, repetition_penalty) in zip(found, cases, strict=True):
        for row, prompt in zip(rows, PROMPTS, strict=True):
            made = model.generate(
                torch.tensor([prompt]),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=end_id,
                pad_token_id=end_id,
                num_beams=num_beams,
                length_penalty=length_penalty,
                repetition_penalty=repetition_penalty,
            )[0, len(prompt) :].tolist()
            made = made[: made.index(end_id)] if end_id in made else made
            row[: len(made)] = made
    prompts = np.array([[-1] * (11 - len(prompt)) + prompt for prompt in PROMPTS], np.int32)
    np.savez_compressed(HERE / "beams_tiny.npz", prompts=prompts, cases=np.array(cases), found=found)


if __name__ == "__main__":
    main()
