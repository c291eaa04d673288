"""The decoding loop against `transformers` (golden/make_gpt.py), and against itself: batched, compiled, on JAX."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasformer.generation.decoding import decode
from kerasformer.generation.sampling import Rules
from kerasformer.models.heads import CausalLM

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "gpt_tiny"
ROOM = 12


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "gpt_tiny.npz")


@pytest.fixture(scope="module")
def model():
    return CausalLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def prompts(golden, model):
    return model.tokenizer.tokenize([str(prompt) for prompt in golden["prompts"]])


def padded(prompts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    columns = max(map(len, prompts))
    ids = [[0] * (columns - len(row)) + row for row in prompts]
    mask = [[0] * (columns - len(row)) + [1] * len(row) for row in prompts]
    return np.array(ids, np.int32), np.array(mask, np.int32)


def rules(batch: int, **values) -> Rules:
    """The values, each one for all rows or one for each."""
    defaults = {"max_new_tokens": ROOM, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    dtypes = {"max_new_tokens": np.int32, "top_k": np.int32, "seed": np.int32}
    values = defaults | {"seed": 0} | values
    return Rules(**{n: np.broadcast_to(np.asarray(v, dtypes.get(n, np.float32)), batch) for n, v in values.items()})


def run(model, prompts, compiled=lambda function: function, end_id=-1, **values) -> list[list[int]]:
    function = compiled(lambda *inputs: decode(model.backbone, *inputs, room=ROOM, end_id=end_id))
    ids, lengths = function(*padded(prompts), rules(len(prompts), **values))
    return [np.asarray(row)[:length].tolist() for row, length in zip(ids, np.asarray(lengths), strict=True)]


WAYS = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "values"), [("greedy", {}), ("penalty", {"repetition_penalty": 1.3})])
def test_prompts_of_different_lengths_continue_as_each_does_alone(name, values, way, golden, model, prompts):
    assert run(model, prompts, WAYS[way], **values) == golden[name].tolist()


def test_a_row_ends_at_the_end_of_text_or_at_its_own_limit(golden, model, prompts):
    expected = [row.tolist()[: row.tolist().index(73)] for row in golden["greedy"]]
    assert run(model, prompts, end_id=73) == expected
    limits = [3, 12, 1, 7]
    expected = [row.tolist()[:limit] for row, limit in zip(golden["greedy"], limits, strict=True)]
    assert run(model, prompts, max_new_tokens=limits) == expected


def test_a_row_is_the_same_in_any_company(model, prompts):
    values = {"temperature": [1.0, 0.0, 0.7, 1.5], "top_k": [0, 0, 5, 30], "top_p": [0.9, 1.0, 1.0, 0.5]}
    values |= {"repetition_penalty": [1.0, 1.2, 1.0, 0.8], "seed": [3, 3, 1, 2], "max_new_tokens": [12, 5, 9, 12]}
    together = run(model, prompts, **values)
    order = [2, 0, 3, 1]
    moved = run(model, [prompts[i] for i in order], **{n: [v[i] for i in order] for n, v in values.items()})
    assert moved == [together[i] for i in order]
    for i, row in enumerate(together):
        assert run(model, [prompts[i]], **{n: [v[i]] for n, v in values.items()}) == [row]


def test_no_row_outgrows_the_positions_of_the_model(model):
    room_left = 3
    prompt = [65] * (model.backbone.config.max_length - room_left)
    short, long = run(model, [[65], prompt])
    assert (len(short), len(long)) == (ROOM, room_left)
    assert [long] == run(model, [prompt])


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="the jax extra is not installed")
def test_jax_decodes_the_same_without_tensorflow(tmp_path, model, prompts):
    values = {"temperature": [1.0, 0.0, 0.7, 1.5], "top_p": [0.9, 1.0, 1.0, 0.5], "seed": [3, 3, 1, 2]}
    np.savez(tmp_path / "inputs.npz", *padded(prompts), **rules(4, **values)._asdict())
    program = f"""
import jax, sys, numpy as np
from kerasformer.generation.decoding import decode
from kerasformer.generation.sampling import Rules
from kerasformer.models.heads import CausalLM
model = CausalLM.from_pretrained({str(TINY)!r})
inputs = np.load({str(tmp_path / "inputs.npz")!r})
rules = Rules(*(inputs[name] for name in Rules._fields))
jitted = jax.jit(lambda *inputs: decode(model.backbone, *inputs, room={ROOM}, end_id=-1))
ids, _ = jitted(inputs["arr_0"], inputs["arr_1"], rules)
np.save({str(tmp_path / "ids.npy")!r}, ids)
assert "tensorflow" not in sys.modules
"""
    environment = {"KERAS_BACKEND": "jax", "PATH": "", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    jax_rows = [row[:n].tolist() for row, n in zip(np.load(tmp_path / "ids.npy"), [12] * 4, strict=True)]
    assert jax_rows == run(model, prompts, **values)
