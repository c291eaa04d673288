"""A prepared folder: what is in it, how it is opened, and what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from kerasformer.data import language_modelling
from kerasformer.data.corpus import fingerprint, id_type, read_corpus
from kerasformer.data.documents import Texts
from kerasformer.data.prepare import prepare
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError
from kerasformer.files import write_json
from kerasformer.text.bpe import ALPHABET, BPE, EOT_TOKEN

TOKENIZER = BPE([*ALPHABET, "Ġt", EOT_TOKEN], [("Ġ", "t")])
COUNTS = ("tokens", "documents", "characters", "bytes")
TEXT = "the cat sat on the mat. " * 20  # 480 characters


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def prepared() -> Path:
    Path("a.txt").write_text(TEXT)
    prepare(Texts(["a.txt"]), "out", tokenizer=TOKENIZER, shard_tokens=100)
    return Path("out")


def test_the_folder_is_all_that_training_needs(prepared):
    index = json.loads((prepared / "index.json").read_text())
    assert {path.name for path in prepared.iterdir()} == {
        "index.json",
        "tokenizer",
        *(shard["file"] for split in index["splits"].values() for shard in split["shards"]),
    }
    for split in index["splits"].values():
        for shard in split["shards"]:
            data = (prepared / shard["file"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (2 * shard["tokens"], shard["sha256"])
    windows = Windows(prepared, batch_size=2, max_length=8)
    assert windows.vocab_size == TOKENIZER.vocab_size == index["vocab_size"]
    assert windows.tokenizer().vocab == TOKENIZER.vocab
    ids = np.concatenate([ids.ravel() for ids, _ in windows.in_order().as_numpy_iterator()])
    text = windows.tokenizer().decode(ids)
    assert TEXT.startswith(text) and len(text) > 400
    assert windows.bytes_per_token == pytest.approx(432 / windows.tokens)


def alter(path: Path, **values) -> None:
    index = json.loads(path.read_text())
    write_json(path, {name: value for name, value in {**index, **values}.items() if value is not None})


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (
            lambda out: (out / "index.json").unlink(),
            "expected the index of a prepared corpus at out/index.json, got no",
        ),
        (lambda out: (out / "index.json").write_text("{"), "expected the index of a prepared corpus as JSON at"),
        (
            lambda out: alter(out / "index.json", version=2),
            "expected version 1 of kerasformer-tokens, got version 2 of",
        ),
        (lambda out: alter(out / "index.json", format=None), "got version 1 of None; run kerasformer prepare again"),
        (
            lambda out: alter(out / "index.json", vocab_size=None),
            "out/index.json: expected an index as prepared, got no",
        ),
        (lambda out: alter(out / "index.json", dtype="float32"), "as prepared, got dtype float32 for 258 tokens"),
        (lambda out: alter(out / "index.json", splits={"train": {"shards": [], "tokens": 7}}), "got no 'documents'"),
        (
            lambda out: alter(out / "index.json", splits={"train": dict.fromkeys(COUNTS, 0) | {"shards": []}}),
            "out/index.json: expected an index as prepared, got 0 tokens in shards of []; prepare the text again",
        ),
        (lambda out: alter(out / "index.json", splits=[]), "out/index.json: expected an index as prepared"),
        (
            lambda out: (out / "train-00001.bin").unlink(),
            "out/train-00001.bin: expected a shard of 200 bytes, as index",
        ),
        (
            lambda out: (out / "train-00000.bin").write_bytes(b"12"),
            "expected a shard of 200 bytes, as index.json says, got 2; copy it again or prepare the text again",
        ),
        (
            lambda out: flip(out / "train-00001.bin"),
            "out/train-00001.bin: expected the checksum in index.json, got ano",
        ),
    ],
)
def test_a_broken_folder_is_refused(prepared, breaks, message):
    breaks(prepared)
    with pytest.raises(InputError) as caught:
        Windows(prepared, batch_size=2, max_length=8)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_checksums_of_a_large_split_are_left_unread(prepared, monkeypatch):
    monkeypatch.setattr("kerasformer.data.corpus.VERIFIED_BYTES", 10)
    flip(prepared / "train-00001.bin")
    assert Windows(prepared, batch_size=2, max_length=8).tokens > 200


def test_another_tokenizer_in_the_folder_is_refused(prepared):
    other = BPE(TOKENIZER.vocab[::-1], TOKENIZER.merges)
    assert fingerprint(other) != fingerprint(TOKENIZER) == fingerprint(BPE.from_folder(prepared / "tokenizer"))
    other.save(prepared / "tokenizer")
    with pytest.raises(InputError, match="out/tokenizer: expected the tokenizer of the shards, got another; prepare"):
        read_corpus(prepared).tokenizer()


# In Python


def test_language_modelling_of_a_folder_and_of_its_text_are_alike(prepared):
    settings = {"max_length": 8, "batch_size": 3, "seed": 5}
    for order in ("random", "consecutive"):
        found = language_modelling(prepared, order=order, **settings)
        read = language_modelling("a.txt", tokenizer=TOKENIZER, order=order, **settings)
        for ours, theirs in zip(found, read, strict=True):
            assert (ours.tokens, ours.bytes, ours.seed) == (theirs.tokens, theirs.bytes, 5)
            for a, b in zip(ours.dataset(3, 9), theirs.dataset(3, 9), strict=True):
                np.testing.assert_array_equal(a, b)
        parts = TOKENIZER.tokenize([TEXT[:432], TEXT[432:]])
        assert [windows.tokens for windows in found] == [*map(len, parts)]


def test_language_modelling_without_validation():
    Path("a.txt").write_text("the cat sat\n" * 20)
    train, valid = language_modelling(["a.txt"], tokenizer=TOKENIZER, validation=0, documents="lines", max_length=9)
    assert valid is None and train.tokenizer() is TOKENIZER
    assert train.tokens == 20 * (len(TOKENIZER.tokenize(["the cat sat"])[0]) + 1)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("out", {"validation": 0.2}, "out: expected no validation for a prepared folder, which has been split and"),
        ("out", {"tokenizer": TOKENIZER}, "out: expected no tokenizer for a prepared folder"),
        ("out", {"max_length": 100}, "out: expected more than max_length tokens, 100, in the validation split, got"),
        (
            "a.txt",
            {},
            "expected a tokenizer for text files, or a folder with index.json that kerasformer prepare wrote",
        ),
        ("none", {"tokenizer": TOKENIZER}, "expected a file or folder of texts, found none at 'none'"),
    ],
)
def test_language_modelling_refuses(prepared, source, options, message):
    with pytest.raises(InputError) as caught:
        language_modelling(source, **options)
    assert message in str(caught.value)


# Types


@pytest.mark.parametrize(("vocab_size", "name"), [(1, "uint16"), (2**16, "uint16"), (2**16 + 1, "uint32")])
def test_the_smallest_type_that_holds_the_ids(vocab_size, name):
    assert id_type(vocab_size).name == name
    assert np.array([vocab_size - 1]).astype(id_type(vocab_size)) == vocab_size - 1


def test_a_large_vocabulary_takes_four_bytes():
    more = [f"<{i}>" for i in range(2**16)]
    large = BPE([*ALPHABET, *more, EOT_TOKEN], [])
    Path("a.txt").write_text("abc")
    prepare(Texts(["a.txt"], validation=0), "out", tokenizer=large)
    [ids] = read_corpus("out").split("train").arrays
    assert Path("out/train-00000.bin").stat().st_size == 4 * len(ids)
    assert ids.tolist() == [*large.tokenize(["abc"])[0], large.eot_id]
    assert large.eot_id > 2**16
