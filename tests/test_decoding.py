"""The decoding loop against `transformers` (golden/make_gpt.py), and against itself: batched, compiled, on JAX."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exported import nodes_of

from kerasformer import backend
from kerasformer.generation.beam import search
from kerasformer.generation.decoding import decode
from kerasformer.generation.sampling import Rules

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "gpt_tiny"
ROOM = 12


@pytest.fixture(scope="module")
def prompts(gpt_golden, gpt):
    return gpt.tokenizer.tokenize([str(prompt) for prompt in gpt_golden["prompts"]])


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


def eager(model):
    return lambda *inputs: decode(model.backbone, *inputs[:3], room=ROOM, end_id=inputs[3])


def compiled(model, xla: bool):
    """`decode` in a graph, which is traced for each shape once."""
    function = eager(model)
    return backend.fused(function) if xla else tf.function(function, reduce_retracing=True)


@pytest.fixture(scope="module")
def run(gpt):
    """Decodes prompts in a graph: the new ids of each."""
    graph = compiled(gpt, xla=False)

    def decode_in(prompts, function=graph, end_id=-1, **values) -> list[list[int]]:
        ids, lengths = function(*padded(prompts), rules(len(prompts), **values), tf.constant(end_id))
        return [row[:length].tolist() for row, length in zip(np.asarray(ids), np.asarray(lengths), strict=True)]

    return decode_in


@pytest.mark.parametrize("way", [eager, lambda m: compiled(m, xla=False), lambda m: compiled(m, xla=True)])
def test_prompts_of_different_lengths_continue_as_each_does_alone(way, gpt_golden, gpt, prompts, run):
    function = way(gpt)
    assert run(prompts, function) == gpt_golden["greedy"].tolist()
    assert run(prompts, function, repetition_penalty=1.3) == gpt_golden["penalty"].tolist()


def test_a_row_ends_at_the_end_of_text_or_at_its_own_limit(gpt_golden, prompts, run):
    expected = [row.tolist()[: row.tolist().index(73)] for row in gpt_golden["greedy"]]
    assert run(prompts, end_id=73) == expected
    limits = [3, 12, 1, 7]
    expected = [row.tolist()[:limit] for row, limit in zip(gpt_golden["greedy"], limits, strict=True)]
    assert run(prompts, max_new_tokens=limits) == expected


def test_a_row_is_the_same_in_any_company(prompts, run):
    values = {"temperature": [1.0, 0.0, 0.7, 1.5], "top_k": [0, 0, 5, 30], "top_p": [0.9, 1.0, 1.0, 0.5]}
    values |= {"repetition_penalty": [1.0, 1.2, 1.0, 0.8], "seed": [3, 3, 1, 2], "max_new_tokens": [12, 5, 9, 12]}
    together = run(prompts, **values)
    order = [2, 0, 3, 1]
    moved = run([prompts[i] for i in order], **{n: [v[i] for i in order] for n, v in values.items()})
    assert moved == [together[i] for i in order]
    for i, row in enumerate(together):
        assert run([prompts[i]], **{n: [v[i]] for n, v in values.items()}) == [row]


def test_a_row_without_tokens_disturbs_no_other(gpt_golden, prompts, run):
    assert run([*prompts, []], max_new_tokens=[ROOM] * 4 + [0]) == [*gpt_golden["greedy"].tolist(), []]


def test_no_operation_of_xla_is_left_in_a_graph(gpt):
    """TF Serving runs without XLA."""
    inputs = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.int32))
    of_rules = Rules(*(tf.TensorSpec((None,), tf.as_dtype(value.dtype)) for value in rules(1)))
    graph = compiled(gpt, xla=False).get_concrete_function(*inputs, of_rules, tf.TensorSpec((), tf.int32)).graph
    ops = {node.op for node in nodes_of(graph.as_graph_def())}
    assert "MatMul" in ops or "BatchMatMulV2" in ops
    assert not [op for op in ops if "xla" in op.lower()]


@pytest.mark.parametrize("num_beams", [2, 5])
def test_beams_find_what_transformers_finds(num_beams, gpt):
    found = np.load(GOLDEN / "beams_tiny.npz")
    token_ids, padding_mask = np.maximum(found["prompts"], 0), (found["prompts"] >= 0).astype(np.int32)

    @tf.function
    def find(of_rules, length_penalty, end_id):
        sizes = {"num_beams": num_beams, "room": ROOM, "end_id": end_id}
        return search(gpt.backbone, token_ids, padding_mask, of_rules, length_penalty, **sizes)

    for (end_id, beams, length_penalty, repetition_penalty), expected in zip(
        found["cases"], found["found"], strict=True
    ):
        if beams == num_beams:
            of_rules = rules(4, repetition_penalty=repetition_penalty)
            ids, lengths = find(of_rules, np.full(4, length_penalty, np.float32), tf.constant(int(end_id)))
            ours = np.where(np.arange(ROOM) < lengths.numpy()[:, None], ids, -1)
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("name", "num_beams", "penalty"), [("beam4", 4, 1.0), ("beam3_short", 3, 0.0)])
def test_beams_that_meet_no_end_find_what_transformers_finds(name, num_beams, penalty, gpt_golden, gpt, prompts):
    found = search(
        gpt.backbone, *padded(prompts), rules(4), np.full(4, penalty, np.float32),
        num_beams=num_beams, room=ROOM, end_id=gpt.tokenizer.eot_id,
    )  # fmt: skip
    np.testing.assert_array_equal(found[0], gpt_golden[name])


def test_no_row_outgrows_the_positions_of_the_model(gpt, run):
    room_left = 3
    prompt = [65] * (gpt.backbone.config.max_length - room_left)
    short, long = run([[65], prompt])
    assert (len(short), len(long)) == (ROOM, room_left)
    assert [long] == run([prompt])


def test_jax_generates_the_same_without_tensorflow(on_jax, gpt_golden, prompts, run):
    program = f"""
from kerasformer.generation.generating import Generating
from kerasformer.models.heads import CausalLM

class Model(Generating, CausalLM):
    pass

model = Model.from_pretrained({str(TINY)!r})
values = {{"max_new_tokens": {ROOM}, "precision": "float32"}}
drawn = model.generate({prompts}, temperature=0.9, top_p=0.9, seed=[3, 4, 5, 6], **values)
beams = model.generate({prompts}, num_beams=4, **values)
embeddings = model.backbone.embedding.token.embeddings
embeddings.assign(2 * embeddings)
print([drawn, beams, model.generate({prompts}, **values)])
"""
    drawn, beams, changed = json.loads(on_jax(program))
    assert drawn == run(prompts, temperature=0.9, top_p=0.9, seed=[3, 4, 5, 6])
    assert beams == gpt_golden["beam4"].tolist()
    assert changed != run(prompts)  # the weights are inputs of what was compiled, not constants in it
