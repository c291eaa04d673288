"""An exported language model: prompts in, the text that `transformers` continues them with out, row by row."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from exported import Call, in_python, in_session, ops_of, strings

import kerasformer as kf
from kerasformer.errors import InputError
from kerasformer.models.heads import CausalLM, from_folder
from kerasformer.serving import warmup
from kerasformer.serving.check import inspect
from kerasformer.serving.generator import ServedGenerator
from kerasformer.serving.ops import SERVERS
from kerasformer.serving.rest import RestApi
from kerasformer.serving.servables import Servables

GOLDEN = Path(__file__).parent / "golden"
ROOM = 12  # new tokens that the export allows; the model has 40 positions
PROMPTS = ["The cat sat on", "", " the dog 犬", "a" * 30, "Once"]


@pytest.fixture(scope="module")
def model() -> CausalLM:
    return CausalLM.from_pretrained(GOLDEN / "gpt_tiny", dtype="float32")


@pytest.fixture(scope="module")
def version(model, tmp_path_factory) -> Path:
    return kf.export(model, tmp_path_factory.mktemp("saved_models") / "gpt", max_new_tokens=ROOM)


@pytest.fixture(scope="module")
def call(version) -> Call:
    return in_session(version)


def settings(size: int, **given) -> dict[str, np.ndarray]:
    """The inputs of `generate` beside the prompts: a number for all rows, or one for each."""
    values = {"max_new_tokens": ROOM, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0} | given
    dtypes = dict.fromkeys(values, np.int32) | dict.fromkeys(("temperature", "top_p"), np.float32)
    return {name: np.broadcast_to(np.array(value, dtypes[name]), (size,)) for name, value in values.items()}


def drawn(call: Call, prompts: list[str], **given) -> list[bytes]:
    return call("generate", prompt=strings(prompts), **settings(len(prompts), **given))["text"].tolist()


@pytest.mark.parametrize("loader", [in_python, in_session])
def test_the_default_is_what_transformers_generates(version, gpt_golden, model, loader):
    outputs = loader(version)("serving_default", prompt=strings(map(str, gpt_golden["prompts"])))
    expected = [model.tokenizer.decode(row[row >= 0]) for row in gpt_golden["greedy"]]
    assert [text.decode() for text in outputs["text"]] == expected
    ended = np.where(gpt_golden["greedy"] == model.tokenizer.eot_id, -1, gpt_golden["greedy"])
    np.testing.assert_array_equal(outputs["token_count"], (ended >= 0).sum(axis=1))


def test_a_temperature_of_zero_is_the_default(call):
    assert drawn(call, PROMPTS, temperature=0) == call("serving_default", prompt=strings(PROMPTS))["text"].tolist()


def test_a_row_gets_what_it_would_get_alone(call):
    given = {"seed": [1, 2, 3, 4, 5], "temperature": [1, 0.5, 2, 0, 1], "max_new_tokens": [12, 5, 9, 12, 1]}
    given |= {"top_k": [0, 5, 0, 9, 3], "top_p": [1, 0.9, 0.5, 1, 0.1]}
    together = drawn(call, PROMPTS, **given)
    alone = [drawn(call, [p], **{n: v[i] for n, v in given.items()})[0] for i, p in enumerate(PROMPTS)]
    assert together == alone
    order = [3, 0, 4, 2, 1]
    moved = drawn(call, [PROMPTS[i] for i in order], **{n: [v[i] for i in order] for n, v in given.items()})
    assert moved == [together[i] for i in order]


def test_the_same_seed_gives_the_same_text_and_another_one_another(call):
    first = drawn(call, ["Once"] * 4, seed=[7, 7, 8, 9])
    assert first[0] == first[1]
    assert len(set(first)) == 3
    assert first == drawn(call, ["Once"] * 4, seed=[7, 7, 8, 9])


@pytest.mark.parametrize("given", [{"temperature": 0.0}, {"temperature": 0.8, "top_k": 40}, {"top_p": 0.7}], ids=str)
def test_the_text_is_that_of_generate_in_python(call, given):
    python, seeds = kf.CausalLM.from_pretrained(GOLDEN / "gpt_tiny", dtype="float32"), [3, 1, 4, 1, 5]
    texts = python.generate(PROMPTS, ROOM, seed=seeds, precision="float32", truncate_prompt=True, **given)
    assert [text.decode() for text in drawn(call, PROMPTS, seed=seeds, **given)] == texts


@pytest.fixture(scope="module")
def post(version):
    """Posts a document to the model through the REST API: status and answer."""
    with pytest.MonkeyPatch.context() as patch:  # for good, XLA would be off in the tests after this one too
        patch.setattr("kerasformer.serving.servables.disable_xla", lambda: True)
        servables = Servables()
    servables.load("gpt", version)
    api = RestApi(servables)

    def post(document: dict) -> tuple[int, dict]:
        status, body = api.respond("POST", "/v1/models/gpt:predict", json.dumps(document).encode())
        return status, json.loads(body)

    return post


def test_rest_takes_rows_and_columns(post, call):
    texts = [text.decode() for text in drawn(call, PROMPTS, seed=[1, 2, 3, 4, 5])]
    columns = {"prompt": PROMPTS} | {n: v.tolist() for n, v in settings(len(PROMPTS), seed=[1, 2, 3, 4, 5]).items()}
    status, answer = post({"signature_name": "generate", "inputs": columns})
    assert (status, answer["outputs"]["text"]) == (200, texts)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    status, answer = post({"signature_name": "generate", "instances": rows})
    assert (status, [prediction["text"] for prediction in answer["predictions"]]) == (200, texts)


def test_rest_takes_prompts_that_are_not_utf_8_as_base64(post, call):
    raw = b"the \xff cat"
    status, answer = post({"instances": [{"prompt": {"b64": base64.b64encode(raw).decode()}}]})
    expected = call("serving_default", prompt=np.array([raw], object))
    assert (status, answer["predictions"][0]["text"]) == (200, expected["text"][0].decode())


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"inputs": [["a"]]}, "[1,1] is not compatible with expected shape [?]"),
        ({"instances": [["a", "b"], ["c", "d"]]}, "[2,2] is not compatible with expected shape [?]"),
        ({"inputs": [["a"]], "signature_name": "score"}, "[1,1] is not compatible with expected shape [?]"),
        ({"inputs": "a", "signature_name": "score"}, "[] is not compatible with expected shape [?]"),
        ({"prompt": [["a"], ["b"]]}, "[2,1] is not compatible with expected shape [?]"),
        ({"prompt": ["a"]}, "got] [1] [2] [2] [2] [2] [2]"),
        ({"prompt": []}, "got] [0] [2] [2] [2] [2] [2]"),
        ({"seed": [1]}, "of prompt, max_new_tokens, seed, temperature, top_k, top_p, got] [2] [2] [1] [2] [2] [2]"),
        ({"seed": 1}, "[] is not compatible with expected shape [?]"),
        ({"seed": [1, 2**31]}, "is not of expected type: int32"),
        ({"temperature": ["x", "y"]}, "is not of expected type: float"),
    ],
    ids=str,
)
def test_inputs_of_another_shape_or_type_are_refused(post, document, said):
    if not document.keys() & {"inputs", "instances"}:
        inputs = {"prompt": ["a", "b"]} | {name: value.tolist() for name, value in settings(2).items()} | document
        document = {"signature_name": "generate", "inputs": inputs}
    status, answer = post(document)
    assert status == 400 and said in answer["error"], answer


def test_no_request_gets_more_than_the_export_allows(call):
    outputs = call("generate", prompt=strings(["Once"] * 4), **settings(4, max_new_tokens=[10**6, ROOM, 3, 0], seed=3))
    assert outputs["token_count"].tolist() == [ROOM, ROOM, 3, 0]
    assert outputs["text"][0] == outputs["text"][1]
    assert outputs["text"][3] == b""


@pytest.mark.parametrize(
    ("given", "same_as"),
    [
        ({"temperature": -1}, {"temperature": 0}),
        ({"temperature": np.nan}, {"temperature": 0}),
        ({"top_p": 0}, {"temperature": 0}),
        ({"top_p": -3}, {"temperature": 0}),
        ({"top_p": 7}, {}),
        ({"top_p": np.nan}, {}),
        ({"top_k": -4}, {}),
        ({"top_k": 10**6}, {}),
        ({"max_new_tokens": -1}, {"max_new_tokens": 0}),
        ({"temperature": 1e-30}, {"temperature": 0}),
    ],
    ids=str,
)
def test_settings_out_of_range_are_moved_into_it(call, given, same_as):
    assert drawn(call, PROMPTS, seed=5, **given) == drawn(call, PROMPTS, seed=5, **same_as)


def test_of_a_long_prompt_the_last_tokens_are_read(call):
    kept = "a" * (40 - ROOM)  # each letter is a token
    assert len(set(drawn(call, [kept, "b" + kept, "the cat" * 100 + kept], seed=1))) == 1


def test_an_empty_prompt_is_continued_from_an_end_of_text(call, model):
    [new] = drawn(call, [""], temperature=0, max_new_tokens=1)
    logits = np.array(model({"token_ids": np.array([[model.tokenizer.eot_id]])}))[0, -1]
    assert new.decode() == model.tokenizer.decode([logits.argmax()])


def test_bytes_that_are_not_utf_8_are_read_and_what_comes_out_is_utf_8(call):
    prompts = np.array([b"the \xff cat", b"\xc3", b"\x00\xed\xa0\x80"], object)
    texts = call("generate", prompt=prompts, **settings(3, seed=2))["text"]
    assert all(text.decode() for text in texts)
    assert texts[0] != call("generate", prompt=strings(["the  cat"]), **settings(1, seed=2))["text"][0]


def test_an_empty_batch_has_empty_answers(call):
    none = strings([])
    for outputs in (
        call("serving_default", prompt=none),
        call("generate", prompt=none, **settings(0)),
        call("score", text=none),
    ):
        assert {name: value.shape for name, value in outputs.items()} == dict.fromkeys(outputs, (0,))


def test_a_score_is_the_sum_of_the_tokens_log_probabilities(call, model):
    texts = ["The cat sat on", "", "a", "the dog " * 40]
    outputs = call("score", text=strings(texts))
    for i, text in enumerate(texts):
        ids = np.array([[model.tokenizer.eot_id, *model.tokenizer.tokenize([text])[0]][:40]])
        logits = np.array(model({"token_ids": ids}), np.float64)[0, :-1]
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        total, count = log_probabilities[np.arange(ids.size - 1), ids[0, 1:]].sum(), ids.size - 1
        np.testing.assert_allclose(outputs["log_likelihood"][i], total, rtol=1e-5, atol=1e-4)  # sums of float32 terms
        np.testing.assert_allclose(outputs["perplexity"][i], np.exp(-total / max(count, 1)), rtol=1e-4)
        assert outputs["token_count"][i] == count


def test_no_server_has_anything_to_refuse(version):
    report = inspect(version)
    assert report.findings == ()
    assert report.verdicts == dict.fromkeys(SERVERS, True)


def test_the_graph_keeps_no_state_and_needs_no_xla(version):
    ops = ops_of(version)
    assert {"LookupTableFindV2", "MatMul"} <= ops
    strange = [op for op in ops if ">" in op or "Xla" in op or "Mutable" in op or "PyFunc" in op or "Insert" in op]
    assert strange == []


def test_the_manifest_tells_the_signatures(version):
    manifest = json.loads((version / "kerasformer.json").read_text(encoding="utf-8"))
    assert (manifest["task"], manifest["context"], manifest["defaults"]["max_new_tokens"]) == ("generation", 40, ROOM)
    signatures = {n: (set(s["inputs"]), set(s["outputs"])) for n, s in manifest["signatures"].items()}
    assert signatures == {n: (set(s.inputs), set(s.outputs)) for n, s in inspect(version).signatures.items()}
    assert {name for name, _ in warmup.read(version)} == set(signatures)


def test_defaults_of_numpy_are_written_too(model):
    served = ServedGenerator(model, max_new_tokens=np.int64(3), temperature=np.float32(0.5), top_k=np.int64(2))
    assert json.loads(json.dumps(served.description()))["defaults"]["top_k"] == 2


@pytest.mark.parametrize(
    ("options", "temperature"),
    [({}, 0), ({"top_k": 5}, 1), ({"top_p": 0.5}, 1), ({"top_k": 5, "temperature": 0.3}, 0.3)],
)
def test_defaults_are_those_of_generate(model, options, temperature):
    served = ServedGenerator(model, seed=None, **options)
    expected = {"max_new_tokens": 20, "top_k": 0, "top_p": 1.0} | options | {"temperature": temperature}
    assert 0 <= served.defaults.pop("seed") < 2**31
    assert served.defaults == expected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"temperature": -1}, "expected temperature as a number of at least 0, got -1"),
        ({"max_new_tokens": -1}, "expected max_new_tokens as a whole number of at least 1, got -1"),
        ({"max_new_tokens": 0}, "expected max_new_tokens as a whole number of at least 1, got 0"),
        ({"max_new_tokens": "5"}, "expected max_new_tokens as a whole number of at least 1, got '5'"),
        ({"top_p": 5}, "expected top_p as a number above 0 of at most 1, got 5"),
        ({"repetition_penalty": 0}, "expected repetition_penalty as a number above 0, got 0"),
        ({"seed": 3_000_000_000}, "expected seed as a whole number of at least 0"),
    ],
    ids=str,
)
def test_defaults_that_cannot_be_are_refused(model, tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        kf.export(model, tmp_path / "gpt", **option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [40, 10**6])
def test_room_that_the_model_does_not_have_is_refused(model, tmp_path, room):
    with pytest.raises(InputError, match=rf"expected max_new_tokens from 1 to 39, .* got {room};"):
        kf.export(model, tmp_path / "gpt", max_new_tokens=room)
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_has_no_such_options(bert_tiny, tmp_path):
    classifier = from_folder(bert_tiny, dtype="float32")
    with pytest.raises(InputError, match="expected options of classification, which has none, got seed; leave it out"):
        kf.export(classifier, tmp_path / "news", seed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_task_is_refused(model, tmp_path):
    model.backbone.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"expected architectures with GPT2ForSequenceClassification or GPT2LMHead"):
        from_folder(tmp_path)
