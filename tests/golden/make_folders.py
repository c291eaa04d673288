"""Makes `folders.npz` with torch and transformers: `python make_folders.py`, from this folder.

It holds what `transformers` computes with each folder of `folder_variants`, in float32, and which tensors it writes
when it saves what it read. The tests need neither library.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from folder_variants import IDS, MASK, VARIANTS, Variant, sampled  # noqa: E402


def outputs(variant: Variant, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Some logits, and the sorted names of what is saved."""
    variant.write(folder / "read")
    reader = getattr(transformers, variant.read_as or variant.named)
    model = reader.from_pretrained(folder / "read", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(IDS).long(), attention_mask=torch.from_numpy(MASK)).logits
    model.save_pretrained(folder / "written")
    return sampled(logits.numpy()), np.array(sorted(load_file(folder / "written" / "model.safetensors")))


if __name__ == "__main__":
    made = {}
    for name, variant in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            made[f"{name}/logits"], made[f"{name}/names"] = outputs(variant, Path(folder))
    np.savez_compressed(HERE / "folders.npz", **made)
