"""`generate` and `stream` as users call them: texts and ids, stop strings, precisions, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasformer import backend
from kerasformer.errors import InputError
from kerasformer.generation import decoder
from kerasformer.generation.arguments import prompt_rows
from kerasformer.generation.decoding import as_it_is
from kerasformer.generation.precision import in_precision
from kerasformer.generation.text import GrowingText
from kerasformer.models.families import families
from kerasformer.text.bpe import BPE
from kerasformer.training.tasks import CausalLM

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "gpt_tiny"
EXACT = {"max_new_tokens": 12, "precision": "float32", "xla": False}


@pytest.fixture(scope="module")
def prompts(gpt_golden):
    return [str(prompt) for prompt in gpt_golden["prompts"]]


@pytest.fixture(scope="module")
def texts(gpt_golden, gpt):
    return [gpt.tokenizer.decode(row) for row in gpt_golden["greedy"]]


def test_texts_are_continued_as_transformers_does(gpt, prompts, texts):
    assert gpt.generate(prompts, **EXACT) == texts
    assert gpt.generate(prompts[1], **EXACT) == texts[1]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("penalty", {"repetition_penalty": 1.3}),
        ("beam4", {"num_beams": 4}),
        ("beam3_short", {"num_beams": 3, "length_penalty": 0.0}),
    ],
)
def test_ids_are_continued_as_transformers_does(name, values, gpt_golden, gpt, prompts):
    ids = gpt.tokenizer.tokenize(prompts)
    assert gpt.generate(ids, **values, **EXACT) == gpt_golden[name].tolist()
    assert gpt.generate(np.array(ids[2]), **values, **EXACT) == gpt_golden[name][2].tolist()


def test_a_stream_is_the_text_piece_by_piece(gpt, prompts, texts):
    pieces = list(gpt.stream(prompts[0], **EXACT))
    assert "".join(pieces) == texts[0] and len(pieces) > 6
    ids = gpt.tokenizer.tokenize(prompts)[0]
    assert list(gpt.stream(ids, **EXACT)) == gpt.generate(ids, **EXACT)


def test_drawn_texts_depend_on_prompt_and_seed_alone(gpt, prompts):
    values = {**EXACT, "temperature": 1.0, "top_k": 50, "top_p": 0.95}
    together = gpt.generate(prompts, seed=7, **values)
    assert together == [gpt.generate(prompt, seed=7, **values) for prompt in prompts]
    assert "".join(gpt.stream(prompts[0], seed=7, **values)) == together[0]
    several = gpt.generate([prompts[0]] * 3, seed=[1, 2, 1], **values)
    assert several[0] == several[2] != several[1]
    assert len(set(gpt.generate([prompts[0]] * 3, **values))) == 3


def test_top_k_alone_draws_at_temperature_one(gpt, prompts):
    values = {**EXACT, "seed": 1, "top_k": 40}
    assert gpt.generate(prompts, **values) == gpt.generate(prompts, temperature=1.0, **values)
    assert gpt.generate(prompts, temperature=0, **values) == gpt.generate(prompts, **EXACT)


def test_a_stop_string_ends_the_text_across_borders_of_tokens(gpt, prompts, texts):
    tokens = [gpt.tokenizer.decode([i]) for i in gpt.tokenizer.tokenize([texts[0]])[0]]
    stop = texts[0][5:9]
    assert stop not in tokens and texts[0].index(stop) == 5
    assert gpt.generate(prompts, stop=["never", stop], **EXACT)[0] == texts[0][:5]
    assert "".join(gpt.stream(prompts[0], stop=stop, **EXACT)) == texts[0][:5]


def test_an_empty_prompt_starts_from_the_end_of_text(gpt):
    end = gpt.tokenizer.eot_id
    assert gpt.generate("", **EXACT) == gpt.tokenizer.decode(gpt.generate([end], **EXACT))
    assert gpt.generate([[]], **EXACT) == gpt.generate([[end]], **EXACT)


def test_of_a_long_prompt_the_end_is_read(gpt):
    long = list(range(100))
    with pytest.raises(InputError, match="at most 40 tokens together"):
        gpt.generate(long, **EXACT)
    assert gpt.generate(long, truncate_prompt=True, **EXACT) == gpt.generate(long[-28:], **EXACT)


def test_a_text_that_slides_goes_on_from_the_last_half_of_the_positions(gpt):
    positions, values = gpt.backbone.config.max_length, {"precision": "float32", "xla": False}
    prompts = [[65, 66], list(range(35)), list(range(100))]  # the last one is too long
    rows = [list(prompt) for prompt in prompts]
    rows[2] = rows[2][-positions // 2 :]
    expected = [[], [], []]
    while min(map(len, expected)) < 70:
        for row, made in zip(rows, expected, strict=True):
            made += (new := gpt.generate(row, positions - len(row), **values))
            row[:] = (row + new)[-positions // 2 :]
    found = gpt.generate(prompts, 70, slide=True, **values)
    assert found == [made[:70] for made in expected]
    assert list(gpt.stream(prompts[1], 70, slide=True, **values)) == found[1]
    text = "the cat"
    drawn = {**values, "slide": True, "temperature": 1.0, "seed": 3}
    together = gpt.generate([text, text + " sat on the mat"], 90, **drawn)
    assert together[0] == gpt.generate(text, 90, **drawn) == "".join(gpt.stream(text, 90, **drawn))
    assert gpt.generate(text, 20, **drawn) == gpt.generate(text, 20, **{**drawn, "slide": False})
    stop = together[0][50:53]
    assert gpt.generate(text, 90, stop=stop, **drawn) == together[0][: together[0].index(stop)]


def test_like_lengths_share_what_is_compiled(gpt, monkeypatch):
    traces = []
    extend = type(gpt.backbone).extend
    monkeypatch.setattr(
        type(gpt.backbone), "extend", lambda self, *args, **kwargs: traces.append(1) or extend(self, *args, **kwargs)
    )
    fresh = CausalLM(gpt.backbone, gpt.tokenizer)
    fresh.generate([[5, 6, 7], [8]], **EXACT)
    assert len(traces) == 2  # the prompt, and a token
    fresh.generate([[5] * 15, [8, 9]], **{**EXACT, "max_new_tokens": 5}, temperature=0.3, top_p=0.4, seed=3)
    assert len(traces) == 2
    list(fresh.stream([3], **EXACT))
    assert len(traces) <= 4  # a step of one row is another function, as its weights are not packed
    fresh.generate([5] * 9, **EXACT, stop=())
    fresh.generate([[5] * 9] * 3, **EXACT)
    assert len(traces) <= 5  # another number of rows may take another trace


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.06)])
def test_xla_takes_any_number_of_prompts(gpt, prompts, precision, tolerance):
    fresh = CausalLM(gpt.backbone, gpt.tokenizer)
    rows = gpt.tokenizer.tokenize(prompts)
    for prompt in (rows[:1], rows):
        for row, new in zip(prompt, fresh.generate(prompt, 6, precision=precision, xla=True), strict=True):
            scores = np.asarray(gpt({"token_ids": np.array([row + new])}))[0, len(row) - 1 : -1]  # of each new token
            chosen = np.take_along_axis(scores, np.array(new)[:, None], axis=-1)[:, 0]
            # Which of two tokens of nearly one score is the best depends on how a CPU's kernels round.
            assert (scores.max(axis=-1) - chosen).max() <= tolerance * np.ptp(scores)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_any_way_to_run_a_step_gives_the_same_text(precision, prompts, monkeypatch):
    model = CausalLM.from_pretrained(TINY)  # of its own, as functions stay compiled
    monkeypatch.setattr(decoder, "PROBE_DIM", 0)
    for module in ("decoder", "precision"):  # bfloat16 would round otherwise in each
        monkeypatch.setattr(f"kerasformer.generation.{module}.native", lambda: "float32")
    offered, texts = {}, {}
    for rows in (prompts[:1], prompts):
        for name in decoder.STEP_COMPILERS:

            def choose(choice, candidates, name=name):
                offered[choice] = set(candidates)
                return name if name in candidates else next(iter(candidates))

            monkeypatch.setattr(decoder, "fastest", choose)
            texts[name] = model.generate(rows, 6, precision=precision)
        assert texts["operations"] == texts["packed"] == texts["xla"]
    assert all({"operations", "xla"} <= names for names in offered.values())
    assert {f"decoding {rows} rows of width 32 in {precision} on a CPU" for rows in (1, 4)} <= offered.keys()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_narrow_weights_score_nearly_as_float32(precision):
    model = CausalLM.from_pretrained(TINY, dtype="float32")
    copy = in_precision(model.backbone, precision)
    inputs = {"token_ids": np.arange(20).reshape(2, 10)}
    exact = np.asarray(model(inputs))
    near = np.asarray(CausalLM(copy)(inputs)).astype(np.float32)
    # Weights and activations of 8 bits, through two layers: a few hundredths of what the scores span.
    assert np.abs(near - exact).max() < 0.06 * np.ptp(exact)
    matrices = sum(int(np.prod(v.shape)) for v in model.weights if len(v.shape) == 2)
    size = {"bfloat16": 0, "int8": matrices}[precision]
    assert sum(int(np.prod(v.shape)) for v in copy.variables if v.dtype == "int8") == size


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_weights_that_change_are_read_anew(prompts, precision, monkeypatch):
    model = CausalLM.from_pretrained(TINY)
    values = {"max_new_tokens": 12, "precision": precision, "xla": False}
    before = model.generate(prompts, **values)
    assert model.generate(prompts, **values) == before
    kernel = next(weight for weight in model.weights if weight.path.endswith("mlp/down/kernel"))
    kernel.assign(kernel[::-1])  # of the same sum
    after = model.generate(prompts, **values)
    assert after != before
    monkeypatch.setattr(backend, "packed", as_it_is)  # products of bfloat16 round otherwise where weights are packed
    assert after == CausalLM(model.backbone, model.tokenizer).generate(prompts, **values)


def test_copies_of_the_weights_are_no_part_of_the_model(prompts):
    model = CausalLM.from_pretrained(TINY)
    names = [weight.path for weight in model.weights]
    model.generate(prompts, 3, precision="bfloat16", xla=False)
    assert [weight.path for weight in model.weights] == names


REFUSED = [
    ({"max_new_tokens": 0}, "max_new_tokens as a whole number of at least 1, got 0"),
    ({"max_new_tokens": 2.5}, "max_new_tokens as a whole number"),
    ({"max_new_tokens": 40}, "max_new_tokens of at most 39, as the model has 40 positions, got 40"),
    ({"temperature": -0.1}, "temperature as a number of at least 0, got -0.1"),
    ({"temperature": float("nan")}, "temperature as a number of at least 0, got nan"),
    ({"top_k": -1}, "top_k as a whole number of at least 0, got -1"),
    ({"top_p": 0.0}, "top_p as a number above 0 of at most 1, got 0.0"),
    ({"top_p": 1.1}, "top_p as a number above 0 of at most 1, got 1.1"),
    ({"repetition_penalty": 0}, "repetition_penalty as a number above 0, got 0"),
    ({"num_beams": 0}, "num_beams as a whole number of at least 1"),
    ({"num_beams": 1000}, "num_beams as a whole number .*of at most 135"),
    ({"num_beams": 2, "temperature": 1.0}, "beams or drawn tokens, got num_beams=2 and temperature=1"),
    ({"num_beams": 2, "top_k": 5}, "beams or drawn tokens"),
    ({"num_beams": 2, "slide": True}, "no slide with beams, got num_beams=2"),
    ({"length_penalty": float("inf")}, "length_penalty as a number, got inf"),
    ({"stop": ""}, "stop strings of a character or more, got ''"),
    ({"stop": [3]}, "stop strings of a character or more, got 3"),
    ({"seed": -1}, "seed as a whole number of at least 0"),
    ({"seed": 2**31}, "seed as a whole number .*of at most 2147483647"),
    ({"seed": [1, 2]}, "one seed, or 1, one for each prompt, got 2"),
    ({"precision": "half"}, "precision of auto, float32, bfloat16, int8, got 'half'"),
    ({"max_new_tokens": "5"}, "max_new_tokens as a whole number of at least 1, got '5'"),
    ({"max_new_tokens": 1.5, "truncate_prompt": True}, "max_new_tokens as a whole number"),
    ({"top_k": 2**31}, "top_k as a whole number .* got 2147483648"),
    ({"top_k": "many"}, "top_k as a whole number"),
    ({"temperature": 1e39}, "temperature as a number .* got 1e[+]39"),
    ({"temperature": 10**400}, "temperature as a number"),
    ({"max_new_tokens": 10**400}, "max_new_tokens as a whole number"),
    ({"top_p": 1e-46}, "top_p as a number above 0"),
    ({"num_beams": 2, "length_penalty": -1e39}, "length_penalty as a number of at least -1e[+]30"),
    ({"seed": np.array([1, 2])}, "one seed, or 1"),
    ({"stop": None}, "stop strings of a character or more, got None"),
    ({"prompts": 5}, "texts or lists of token ids as prompts, got 5"),
    ({"prompts": []}, r"texts or lists of token ids as prompts, got \[\]"),
    ({"prompts": ["a", [1]]}, "texts or lists of token ids"),
    ({"prompts": b"abc"}, "got the bytes b'abc'"),
    ({"prompts": bytearray(b"abc")}, "got the bytes bytearray"),
    ({"prompts": [b"abc", "d"]}, "got the bytes b'abc'"),
    ({"prompts": np.array([b"abc"])}, "got the bytes b'abc'"),
    ({"prompts": tf.constant("abc")}, "got the bytes b'abc'"),
    ({"prompts": tf.constant(["abc"])}, "got the bytes b'abc'"),
    ({"prompts": [tf.constant("abc")]}, "got the bytes b'abc'"),
    ({"stop": b"x"}, "stop strings of a character or more, got b'x'"),
    ({"prompts": np.array([True, False])}, "texts or lists of token ids"),
    ({"prompts": [1.5]}, "texts or lists of token ids"),
    ({"prompts": [[270]]}, "token ids from 0 to 269, got 270"),
    ({"prompts": [3, -1]}, "token ids from 0 to 269, got -1"),
    ({"prompts": [3], "stop": "x"}, "texts as prompts where stop strings are given"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_refused(values, message, gpt):
    with pytest.raises(InputError, match=f"expected .*{message}.*; ") as caught:
        gpt.generate(**{"prompts": "a", "max_new_tokens": 3, **values})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "same_as"),
    [
        (np.str_("the"), "the"),
        (np.array("the"), "the"),
        (np.array(["the", "a"]), ["the", "a"]),
        (np.array(["the", "a"], object), ["the", "a"]),
        (np.array([5, 6]), [5, 6]),
        (tf.constant([5, 6]), [5, 6]),
        (tf.constant([[5, 6]]), [[5, 6]]),
        ([tf.constant([5, 6]), np.array([7])], [[5, 6], [7]]),
        ([np.int64(5), 6], [5, 6]),
    ],
    ids=repr,
)
def test_arrays_and_tensors_are_prompts_too(given, same_as):
    assert prompt_rows(given) == prompt_rows(same_as)


def test_what_a_stream_refuses_is_told_at_once(gpt):
    with pytest.raises(InputError, match="one prompt, got a list"):
        gpt.stream(["a", "b"], 3)
    with pytest.raises(InputError, match="top_p"):
        gpt.stream("a", 3, top_p=2)


def test_a_model_without_tokenizer_takes_ids_alone(gpt, gpt_golden, prompts):
    bare = CausalLM(gpt.backbone)
    with pytest.raises(InputError, match="no tokenizer, got text"):
        bare.generate("a")
    with pytest.raises(InputError, match="no tokenizer, got none"):
        bare.generate([[]])
    ids = gpt.tokenizer.tokenize(prompts)
    assert bare.generate(ids, **EXACT) == gpt_golden["greedy"].tolist()


@pytest.mark.parametrize("family", [f for f in families().values() if "CausalLM" in f.architectures])
def test_every_family_generates(family):
    sizes = {"vocab_size": 30, "num_layers": 2, "num_heads": 2, "dim": 8, "mlp_dim": 12, "max_length": 16}
    model = CausalLM(family(family.config_class(**sizes)))
    together = model.generate([[1, 2, 3], [4]], 12, precision="float32", xla=False)
    # Each token is the best after those before it, as the whole model sees them.
    for prompt, new in zip([[1, 2, 3], [4]], together, strict=True):
        ids = np.array([prompt + new], np.int32)
        logits = np.asarray(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))[0]
        assert logits.argmax(-1)[len(prompt) - 1 : -1].tolist() == new


TOKENIZER = BPE.from_folder(TINY)


@given(st.binary(max_size=30), st.data())
def test_a_growing_text_is_the_whole_one(text, data):
    ids = [TOKENIZER.token_bytes.index(bytes([byte])) for byte in text]
    growing, pieces = GrowingText(TOKENIZER), []
    while ids:
        count = data.draw(st.integers(1, 4))
        piece, ids = growing.add(ids[:count]), ids[count:]
        piece.encode()  # no half of a character
        pieces.append(piece)
    assert "".join(pieces) + growing.add([], is_last=True) == text.decode(errors="replace")


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_a_stop_string_is_found_however_the_text_comes(text, stop, data):
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(string) for string in stop)]
    expected = text[: ends[0] - max(len(s) for s in stop if text[: ends[0]].endswith(s))] if ends else text
    ids = [TOKENIZER.token_bytes.index(char.encode()) for char in text]
    growing, made = GrowingText(TOKENIZER, stop), ""
    while ids and not growing.is_stopped:
        count = data.draw(st.integers(1, 4))
        made, ids = made + growing.add(ids[:count]), ids[count:]
        assert expected.startswith(made)  # nothing is taken back
    assert made + growing.add([], is_last=True) == expected
    assert growing.is_stopped == bool(ends)
