"""An exported model: the same answers as the model in Python, whatever loads it, and nothing that a server refuses."""

import json
import resource
from pathlib import Path

import keras
import numpy as np
import pytest
from exported import Call, in_python, in_session, ops_of, strings
from hypothesis import given
from hypothesis import strategies as st

import kerasformer as kf
from kerasformer.data.encoding import unlabelled
from kerasformer.errors import InputError
from kerasformer.serving import warmup
from kerasformer.serving.check import inspect
from kerasformer.serving.classifier import ServedClassifier
from kerasformer.serving.ops import SERVERS, TEXT_OPS
from kerasformer.serving.rest import RestApi
from kerasformer.serving.servables import Servables
from kerasformer.serving.versions import newest, next_version

LABELS = ["cat, or kitten", "Hündin", "犬 or other"]
LONG = "the cats ran on a mat . " * 20  # far more than the model's 24 positions
TEXTS = ["the cat sat on the mat .", "", " \n\t", "A DOG ran", "unheard-of wörds, 犬 and 🐈 \0", LONG, "cats"]
PAIRS = list(zip(TEXTS, reversed(TEXTS), strict=True))
NAMES = ("token_ids", "segment_ids", "padding_mask")


@pytest.fixture(scope="module")
def model(bert_tiny):
    keras.utils.set_random_seed(0)
    return kf.Classifier.from_pretrained(bert_tiny, LABELS, dtype="float32")


@pytest.fixture(scope="module")
def answers(model) -> np.ndarray:
    return model.predict(TEXTS)


@pytest.fixture(scope="module")
def version(model, tmp_path_factory) -> Path:
    return kf.export(model, tmp_path_factory.mktemp("saved_models") / "news")


@pytest.fixture(scope="module")
def pair_model(bert_tiny):
    keras.utils.set_random_seed(0)
    model = kf.Classifier.from_pretrained(bert_tiny, LABELS, dtype="float32")
    model.text_pair = True
    return model


@pytest.fixture(scope="module")
def pair_version(pair_model, tmp_path_factory) -> Path:
    return kf.export(pair_model, tmp_path_factory.mktemp("saved_models") / "pairs")


@pytest.fixture(scope="module", params=[in_python, in_session])
def call(request, version) -> Call:
    return request.param(version)


def assert_answers(outputs: dict[str, np.ndarray], probabilities: np.ndarray, atol: float = 1e-5) -> None:
    assert outputs.keys() == {"label", "probabilities"}
    assert outputs["probabilities"].dtype == np.float32
    np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=0, atol=atol)
    labels = [label.decode() for label in outputs["label"]]
    assert labels == [LABELS[i] for i in outputs["probabilities"].argmax(axis=1)]


# Answers


@pytest.mark.parametrize("rows", [slice(None), *(slice(i, i + 1) for i in range(len(TEXTS)))], ids=str)
def test_texts_are_answered_as_by_predict(call, answers, rows):
    assert_answers(call("serving_default", text=strings(TEXTS[rows])), answers[rows])


def test_the_answers_tell_texts_apart(answers):
    assert np.ptp(answers, axis=0).max() > 0.2


def test_an_empty_batch_has_empty_answers(call):
    no_ids = np.zeros((0, 5), np.int32)
    for outputs in (
        call("serving_default", text=strings([])),
        call("token_ids", token_ids=no_ids, segment_ids=no_ids, padding_mask=no_ids),
    ):
        assert outputs["label"].shape == (0,)
        assert outputs["probabilities"].shape == (0, len(LABELS))


def test_a_long_text_is_cut_at_the_length_of_the_model(call):
    texts = strings([LONG, LONG + "dog " * 50])
    first, second = call("serving_default", text=texts)["probabilities"]
    np.testing.assert_array_equal(first, second)


def test_token_ids_are_answered_as_texts(model, call, answers):
    batches = unlabelled(TEXTS, tokenizer=model.tokenizer)
    [inputs], [rows] = batches.dataset(), batches.order()
    outputs = call("token_ids", **{name: value.numpy() for name, value in inputs.items()})
    assert_answers(outputs, answers[rows])


def test_bytes_that_are_not_utf_8_are_answered(model, call):
    outputs = call("serving_default", text=np.array([b"the \xffcat", b"\xc3"], object))
    assert_answers(outputs, model.predict(["the cat", ""]))


@pytest.mark.parametrize("loader", [in_python, in_session])
def test_pairs_are_answered_as_by_predict(pair_model, pair_version, loader):
    texts, pairs = map(strings, zip(*PAIRS, strict=True))
    call = loader(pair_version)
    assert_answers(call("serving_default", text=texts, text_pair=pairs), pair_model.predict(PAIRS))
    assert len(call("serving_default", text=strings([]), text_pair=strings([]))["label"]) == 0


# Requests that cannot be answered


@pytest.fixture(scope="module")
def post(version, pair_version):
    """Sends `inputs` to the server; returns the status and the answer."""
    servables = Servables()
    servables.load("news", version)
    servables.load("pairs", pair_version)
    api = RestApi(servables)

    def post(model: str, **document) -> tuple[int, dict]:
        status, body = api.respond("POST", f"/v1/models/{model}:predict", json.dumps(document).encode())
        return status, json.loads(body)

    yield post
    servables.close()


@pytest.mark.parametrize(
    ("name", "document", "said"),
    [
        ("news", {"inputs": "a"}, "[] is not compatible with expected shape [?]"),
        ("news", {"inputs": [["a"]]}, "[1,1] is not compatible with expected shape [?]"),
        ("news", {"instances": [["a", "b"], ["c", "d"]]}, "[2,2] is not compatible with expected shape [?]"),
        ("news", {"instances": [[]]}, "[1,0] is not compatible with expected shape [?]"),
        ("news", {"instances": ["a", ["b"]]}, "Expecting shape [] but got: [1]"),
        ("news", {"instances": [1]}, "is not of expected type: string"),
        ("pairs", {"inputs": {"text": ["a", "b"], "text_pair": ["c"]}}, "one shape of text, text_pair, got] [2] [1]"),
        ("pairs", {"inputs": {"text": [], "text_pair": ["c"]}}, "one shape of text, text_pair, got] [0] [1]"),
        ("pairs", {"inputs": {"text": ["a"], "text_pair": [["b"]]}}, "[1,1] is not compatible"),
        ("pairs", {"inputs": {"text": ["a"]}}, "Missing named input: text_pair"),
    ],
    ids=str,
)
def test_texts_of_another_shape_are_refused(post, name, document, said):
    status, answer = post(name, **document)
    assert status == 400 and said in answer["error"], answer


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"token_ids": [[2, -5, 3]]}, "expected token_ids from 0 to 14, got] [-5] [to] [3]"),
        ({"token_ids": [[2, 15, 3]]}, "expected token_ids from 0 to 14, got] [2] [to] [15]"),
        ({"segment_ids": [[0, 2, 0]]}, "expected segment_ids from 0 to 1, got] [0] [to] [2]"),
        ({"padding_mask": [[1, 1, -1]]}, "expected padding_mask from 0 to 1, got] [-1] [to] [1]"),
        (
            {"padding_mask": [[1, 1]]},
            "expected one shape of padding_mask, segment_ids, token_ids, got] [1 2] [1 3] [1 3]",
        ),
        ({"padding_mask": [1, 1, 1]}, "[3] is not compatible with expected shape [?,?]"),
        (dict.fromkeys(NAMES, [1, 1, 1]), "[3] is not compatible with expected shape [?,?]"),
        (dict.fromkeys(NAMES, [[[1]]]), "[1,1,1] is not compatible with expected shape [?,?]"),
        (dict.fromkeys(NAMES, [[]]), "expected the length of rows from 1 to 24, got] [0]"),
        (dict.fromkeys(NAMES, [[1] * 25]), "expected the length of rows from 1 to 24, got] [25]"),
        (dict.fromkeys(NAMES, [[1, 1], [1]]), "unexpected size: 1 at level: 1 expected size: 2"),
        ({"token_ids": [[2, 2**31, 3]]}, "is not of expected type: int32"),
        ({"token_ids": [[2, 4.0, 3]]}, "is not of expected type: int32"),
    ],
    ids=str,
)
def test_token_ids_that_the_model_does_not_have_are_refused(post, changed, said):
    inputs = {"token_ids": [[2, 4, 3]], "segment_ids": [[0, 0, 0]], "padding_mask": [[1, 1, 1]]} | changed
    status, answer = post("news", inputs=inputs, signature_name="token_ids")
    assert status == 400 and said in answer["error"], answer


@given(st.lists(st.integers(-20, 20) | st.integers(0, 14), min_size=1, max_size=26))
def test_rows_of_token_ids_are_answered_or_refused(post, row):
    inputs = {"token_ids": [row], "segment_ids": [[0] * len(row)], "padding_mask": [[1] * len(row)]}
    status, _ = post("news", inputs=inputs, signature_name="token_ids")
    assert status == (200 if len(row) <= 24 and all(0 <= i <= 14 for i in row) else 400)


# What a server gets


@pytest.mark.parametrize("texts", ["version", "pair_version"])
def test_no_server_has_anything_to_refuse(request, texts):
    report = inspect(request.getfixturevalue(texts))
    assert report.findings == ()
    assert report.verdicts == dict.fromkeys(SERVERS, True)


def test_the_warm_up_is_of_the_kind_that_clients_send(version, pair_version):
    for folder, names in ((version, {"text"}), (pair_version, {"text", "text_pair"})):
        requests = warmup.read(folder)
        assert [signature for signature, _ in requests] == ["serving_default", "token_ids"] * 2
        assert all(inputs.keys() == names for signature, inputs in requests if signature == "serving_default")
        longest = max(inputs["token_ids"].shape[1] for signature, inputs in requests if signature == "token_ids")
        assert longest == 24


def test_the_graph_is_of_core_operations_that_keep_no_state(version):
    ops = ops_of(version)
    assert "LookupTableFindV2" in ops and "MatMul" in ops
    assert not ops & TEXT_OPS
    strange = [op for op in ops if ">" in op or "Xla" in op or "Mutable" in op or "PyFunc" in op or "Random" in op]
    assert strange == []


def test_the_files_of_a_version(version, model):
    names = {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()}
    variables = {"variables/variables.index", "variables/variables.data-00000-of-00001"}
    assert names == {
        *("saved_model.pb", "fingerprint.pb", "kerasformer.json", "assets/labels.txt", str(warmup.FILE)),
        *variables,
    }
    assert (version / "assets/labels.txt").read_text(encoding="utf-8").splitlines() == LABELS
    manifest = json.loads((version / "kerasformer.json").read_text(encoding="utf-8"))
    assert (manifest["labels"], manifest["max_length"]) == (LABELS, 24)
    assert manifest["num_parameters"] == model.count_params()
    assert manifest["model"]["model_type"] == "bert"
    signatures = {name: set(signature["inputs"]) for name, signature in manifest["signatures"].items()}
    assert signatures == {"serving_default": {"text"}, "token_ids": {"token_ids", "segment_ids", "padding_mask"}}
    assert signatures == {name: set(s.inputs) for name, s in inspect(version).signatures.items()}


def test_the_weights_are_stored_once(version, model):
    stored = (version / "variables/variables.data-00000-of-00001").stat().st_size
    assert 4 * model.count_params() <= stored < 1.5 * 4 * model.count_params()


# Versions


def test_the_second_export_is_version_2_and_computes_in_float32(bert_tiny, version, answers):
    before = {path: path.read_bytes() for path in version.rglob("*") if path.is_file()}
    keras.utils.set_random_seed(0)
    model = kf.Classifier.from_pretrained(bert_tiny, LABELS, dtype="mixed_bfloat16")
    second = kf.export(model, version.parent)
    assert (version.name, second) == ("1", version.parent / "2")
    assert {path: path.read_bytes() for path in version.rglob("*") if path.is_file()} == before
    assert b"bfloat16" not in (second / "saved_model.pb").read_bytes()
    assert_answers(in_session(second)("serving_default", text=strings(TEXTS)), answers)
    assert model.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], None),
        (["1"], "1"),
        (["2", "10", "9"], "10"),
        (["007"], "007"),
        ([".3-tmp", "draft", "-4", "5.5", "README.md", "\u0661"], None),
    ],
)
def test_versions_are_folders_that_numbers_name(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).mkdir()
    assert newest(tmp_path) == (expected and tmp_path / expected)
    assert next_version(tmp_path) == int(expected or 0) + 1
    (tmp_path / "99").write_text("no version, but its name is taken")
    assert newest(tmp_path) == (expected and tmp_path / expected)
    assert next_version(tmp_path) == 100
    assert newest(tmp_path / "missing") is None and next_version(tmp_path / "missing") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize(
    "step", ["kerasformer.serving.classifier.ServedClassifier.save", "kerasformer.serving.warmup.write"]
)
def test_an_export_that_is_broken_off_leaves_nothing(model, tmp_path, monkeypatch, error, step):
    def save(served: ServedClassifier, folder: Path) -> None:
        (folder / "saved_model.pb").write_bytes(b"half of")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ServedClassifier, "save", save)
    monkeypatch.setattr(step, fail)
    (tmp_path / "1").mkdir()
    with pytest.raises(error):
        kf.export(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


# What cannot be exported


def test_a_model_without_a_tokenizer_is_refused(model, tmp_path):
    bare = kf.Classifier(model.backbone, LABELS)
    with pytest.raises(InputError, match="expected a model with a tokenizer, got one without"):
        kf.export(bare, tmp_path / "news")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/news"])
def test_a_file_in_the_place_of_a_folder_is_refused(model, tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=rf"expected a folder for the versions .*, got the file {tmp_path}/file;"):
        kf.export(model, tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("label", ["two\nlines", "ends\n", "\r", "a\u2028b", ""])
def test_a_label_that_is_no_line_is_refused(bert_tiny, label):
    with pytest.raises(InputError, match="expected labels of one line") as caught:
        kf.Classifier.from_pretrained(bert_tiny, ["cat", label])
    assert "\n" not in str(caught.value)


def test_a_version_that_cannot_be_written_leaves_nothing(model, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # bytes of any file: fewer than the graph has
    try:
        with pytest.raises(OSError, match=r"news/1: File too large$"):
            kf.export(model, tmp_path / "news")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*(tmp_path / "news").iterdir()]
