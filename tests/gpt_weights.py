"""Weights of a model of GPT-2's smallest published shape, drawn the same here and where its golden file is made."""

from collections.abc import Iterator

import numpy as np


def large_tensors() -> Iterator[tuple[str, np.ndarray]]:
    """Name in the checkpoint, and value: normal draws, as wide as training makes them."""
    shapes = {"wte.weight": (50_257, 768), "wpe.weight": (1024, 768), "ln_f.weight": (768,), "ln_f.bias": (768,)}
    for i in range(12):
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (768,), f"h.{i}.{name}.bias": (768,)}
        for name, size in {"attn.c_attn": (768, 2304), "attn.c_proj": (768, 768)}.items():
            shapes |= {f"h.{i}.{name}.weight": size, f"h.{i}.{name}.bias": size[1:]}
        for name, size in {"mlp.c_fc": (768, 3072), "mlp.c_proj": (3072, 768)}.items():
            shapes |= {f"h.{i}.{name}.weight": size, f"h.{i}.{name}.bias": size[1:]}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        value = random.standard_normal(shape, np.float32) * np.float32(0.1)
        yield f"transformer.{name}", value + 1 if "ln_" in name and name.endswith("weight") else value
