import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from kerasformer.errors import InputError
from kerasformer.text.bpe import ALPHABET, BPE, EOT_TOKEN, bytes_of

BYTES = sorted(ALPHABET)
MERGES = [("a", "b"), ("ab", "c"), ("Ġ", "abc"), ("Ã", "©"), ("'", "s"), ("Ċ", "Ċ")]
VOCAB = [*BYTES, *("".join(merge) for merge in MERGES), EOT_TOKEN]
ID = {token: i for i, token in enumerate(VOCAB)}
EOT = len(VOCAB) - 1
GPT2 = Path(__file__).parents[2] / "shared/data/gpt2"


@pytest.fixture(scope="module")
def bpe():
    return BPE(VOCAB, MERGES)


@pytest.fixture(scope="module")
def saved(bpe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    bpe.save(folder)
    return folder


def rows(encoded):
    assert not encoded.segment_ids.any()
    return [ids.tolist() for ids in np.split(encoded.token_ids, encoded.offsets[1:-1])]


def tokens_of(bpe, text):
    return [bpe.vocab[i] for i in bpe.tokenize([text])[0]]


def test_attributes(bpe):
    assert bpe.vocab == VOCAB and bpe.vocab_size == len(VOCAB) and bpe.merges == MERGES
    assert (bpe.eot_token, bpe.eot_id, bpe.pad_id, bpe.max_length) == ("<|endoftext|>", EOT, EOT, None)
    assert bpe.continues_word.dtype == bool
    assert not bpe.continues_word[[ID["Ġ"], ID["Ġabc"], ID["Ċ"], ID["ĉ"]]].any()
    assert bpe.continues_word[[ID["abc"], ID["Ã©"], ID["'s"], ID["¤"]]].all()


def test_the_alphabet_is_that_of_the_tokenizers_library():
    assert set(ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(ALPHABET.values()) == list(range(256))
    text = "".join(map(chr, range(1, 0x800)))
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert b"".join(bytes_of(piece) for piece, _ in pieces) == text.encode()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("abc abc", ["abc", "Ġabc"]),
        ("b\n\nab\n\n", ["b", "Ċ", "Ċ", "ab", "ĊĊ"]),
        ("it's 's ''s", ["i", "t", "'s", "Ġ", "'", "s", "Ġ", "'", "'", "s"]),
        ("é", ["Ã©"]),
        ("a  b", ["a", "Ġ", "Ġ", "b"]),
        ("", []),
        ("<|endoftext|>", list("<|endoftext|>")),
    ],
)
def test_tokens(bpe, text, tokens):
    assert tokens_of(bpe, text) == tokens


def test_rows_of_single_texts(bpe):
    encoded = bpe.encode(["abc abca", "", "ab"], max_length=2)
    assert rows(encoded) == [[ID["abc"], ID["Ġabc"]], [EOT], [ID["ab"]]]
    assert encoded.truncated.tolist() == [True, False, False]


def test_rows_of_pairs(bpe):
    encoded = bpe.encode(["abcabca", "", "", "ab"], ["ab", "ab", "", ""], max_length=4)
    abc, ab = ID["abc"], ID["ab"]
    assert rows(encoded) == [[abc, abc, EOT, ab], [EOT, ab], [EOT], [ab, EOT]]
    assert encoded.truncated.tolist() == [True, False, False, False]


def test_no_texts(bpe):
    assert bpe.tokenize([]) == []
    assert bpe.encode([], max_length=1).offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("pairs", "max_length", "message"),
    [(None, 0, "0 special tokens of a row, got 0"), (["a"], 1, "1 special tokens of a row, got 1")],
)
def test_max_length_too_small(bpe, pairs, max_length, message):
    with pytest.raises(InputError, match=message):
        bpe.encode(["a"], pairs, max_length=max_length)


@pytest.mark.parametrize("texts", ["one string", [b"bytes"], ["\ud800"], [None]])
def test_bad_texts(bpe, texts):
    with pytest.raises(InputError, match="texts"):
        bpe.tokenize(texts)


@given(st.text())
def test_any_text_comes_back(text):
    bpe = BPE(VOCAB, MERGES)
    [ids] = bpe.tokenize([text])
    assert bpe.decode(ids) == text and bpe.decode_bytes(np.array(ids)) == text.encode()


def test_decode_leaves_out_special_tokens_and_replaces_bytes_that_are_no_text():
    bpe = BPE([*VOCAB, "<pad>", "<|中|>"], MERGES, pad_token="<pad>")
    assert bpe.pad_id == EOT + 1
    assert bpe.decode_bytes([ID["abc"], EOT, ID["Ã"], EOT + 1]) == b"abc\xc3"
    assert bpe.decode([ID["abc"], ID["Ã"], EOT, ID["b"], EOT + 2]) == "abc\ufffdb<|中|>"
    for bad in (-1, bpe.vocab_size):
        with pytest.raises(InputError, match=f"from 0 to {EOT + 2}, got {bad}"):
            bpe.decode([1, bad])


def test_it_can_be_pickled(bpe):
    assert pickle.loads(pickle.dumps(bpe)).tokenize(["abc abc"]) == bpe.tokenize(["abc abc"])


@pytest.mark.parametrize("names", [{"tokenizer.json"}, {"vocab.json", "merges.txt"}])
@pytest.mark.parametrize("options", [{}, {"pad_token": "<pad>", "max_length": 64}, {"eot_token": "<pad>"}])
def test_save_and_from_folder(tmp_path, names, options):
    bpe = BPE([*VOCAB, "<pad>"], MERGES, **options)
    bpe.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
    }
    for path in tmp_path.iterdir():
        if path.name not in {*names, "tokenizer_config.json"}:
            path.unlink()
    loaded = BPE.from_folder(tmp_path)
    for name in ("vocab", "merges", "eot_id", "pad_id", "max_length"):
        assert getattr(loaded, name) == getattr(bpe, name)


def test_the_saved_tokenizer_json_is_complete(saved):
    theirs = Tokenizer.from_file(str(saved / "tokenizer.json"))
    assert theirs.encode("abc<|endoftext|>é").tokens == ["abc", "<|endoftext|>", "Ã©"]
    assert theirs.decode(theirs.encode(" abc<|endoftext|>é").ids) == " abcé"


def test_from_folder_reads_the_files_that_gpt2_came_with(tmp_path, saved):
    (tmp_path / "encoder.json").write_bytes((saved / "vocab.json").read_bytes())
    (tmp_path / "vocab.bpe").write_bytes((saved / "merges.txt").read_bytes().replace(b"\n", b"\r\n"))
    loaded = BPE.from_folder(tmp_path)
    assert (loaded.vocab, loaded.merges, loaded.eot_id) == (VOCAB, MERGES, EOT)


def test_from_folder_reads_the_real_vocabulary():
    if not GPT2.is_dir():
        pytest.skip("../shared/data/gpt2 is not here")
    bpe = BPE.from_folder(GPT2)
    assert (bpe.vocab_size, bpe.eot_id, len(bpe.merges)) == (50257, 50256, 50000)
    assert bpe.tokenize(["Hello world", "one.\n\nPara"]) == [[15496, 995], [505, 13, 198, 198, 47, 3301]]


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ([*VOCAB, "ab"], MERGES, "'ab' for ids 256 and"),
        (VOCAB[:-1], MERGES, r"special tokens, <\|endoftext\|> missing"),
        (VOCAB[1:], MERGES, "256 bytes, ! missing"),
        (VOCAB, [*MERGES, ("a", "b")], r"merges\[6\]: .*once, got a b again"),
        (VOCAB, [("b", "c")], r"merges\[0\]: .* vocabulary, got 'bc'"),
        (VOCAB, [("a", "zz")], "got 'zz'"),
        (VOCAB, [("a",)], "a pair of tokens, got"),
        (VOCAB, [("a", 1)], "a pair of tokens, got"),
    ],
)
def test_a_bad_vocabulary(vocab, merges, message):
    with pytest.raises(InputError, match=message):
        BPE(vocab, merges)


def bpe_model(**options):
    return models.BPE(ID, MERGES, **options)


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda t: setattr(t, "model", models.WordPiece(ID, unk_token="a")), "model, its type 'BPE', got 'WordPiece'"),
        (lambda t: setattr(t, "model", bpe_model(ignore_merges=True)), "ignore_merges False, got True"),
        (lambda t: setattr(t, "model", bpe_model(dropout=0.5)), "dropout None, got 0.5"),
        (lambda t: setattr(t, "model", bpe_model(end_of_word_suffix="</w>")), "end_of_word_suffix None, got '</w>'"),
        (lambda t: setattr(t, "normalizer", normalizers.NFC()), "normalizer, its type None, got 'NFC'"),
        (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()), "'ByteLevel', got 'Whitespace'"),
        (lambda t: setattr(t, "pre_tokenizer", byte_level(add_prefix_space=True)), "add_prefix_space False, got True"),
        (lambda t: setattr(t, "pre_tokenizer", byte_level(use_regex=False)), "use_regex True, got False"),
        (lambda t: setattr(t, "post_processor", processors.RobertaProcessing(("a", 1), ("b", 2))), "adds"),
    ],
)
def test_from_folder_refuses_other_tokenizers(tmp_path, saved, part, message):
    theirs = Tokenizer.from_file(str(saved / "tokenizer.json"))
    part(theirs)
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=message):
        BPE.from_folder(tmp_path)


def test_from_folder_takes_an_empty_prefix_for_none(tmp_path, saved):
    state = json.loads((saved / "tokenizer.json").read_text("utf-8"))
    state["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    assert BPE.from_folder(tmp_path).vocab == VOCAB


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected tokenizer.json, vocab.json and merges.txt or encoder.json and vocab.bpe, got none of them"),
        ({"tokenizer.json": "{"}, "tokenizer.json: expected the JSON of a tokenizer"),
        ({"vocab.json": ID}, "merges.txt: expected a text file, found none"),
        ({"merges.txt": "a b"}, "expected the vocabulary at .*vocab.json"),
        ({"vocab.json": {**ID, "new": 999}, "merges.txt": ""}, "vocab.json: expected the ids 0 to"),
        ({"vocab.json": {**ID, "new": "x"}, "merges.txt": ""}, "vocab.json: expected numbers as token ids, got 'x'"),
        (
            {"vocab.json": ID, "merges.txt": "#version: 0.2\nab\n"},
            "merges.txt, line 2: expected two tokens .* got 'ab'",
        ),
        ({"vocab.json": ID, "merges.txt": "a b c\n"}, "merges.txt, line 1: expected two tokens .* got 'a b c'"),
        ({"vocab.json": ID, "merges.txt": "b a\n"}, r"merges\[0\]: .*got 'ba'"),
        ({"tokenizer_config.json": {"add_prefix_space": True}}, "expected add_prefix_space false, got True"),
        ({"tokenizer_config.json": {"eos_token": 1}}, "string as eos_token, got 1"),
        (
            {"vocab.json": ID, "merges.txt": "", "tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}},
            "tokenizer_class GPT2Tokenizer, got RobertaTokenizer",
        ),
        (
            {"vocab.json": ID, "merges.txt": "", "tokenizer_config.json": {"eos_token": {"content": "</s>"}}},
            "special tokens, </s> missing",
        ),
    ],
)
def test_bad_folders(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        BPE.from_folder(tmp_path)
    assert "\n" not in str(error.value)
