import json
import pickle
from itertools import product

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from kerasformer.errors import InputError
from kerasformer.text.tokenizer import longest_first
from kerasformer.text.wordpiece import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCAB = [*SPECIAL, *"abcdé[]", "un", "##aff", "##able", "##b", "cls", "中", "e", "A", "##É"]
PAD, UNK, CLS, SEP, MASK = range(5)
ID = {token: i for i, token in enumerate(VOCAB)}


def rows(encoded):
    bounds = zip(encoded.offsets, encoded.offsets[1:], strict=False)
    return [
        list(zip(encoded.token_ids[a:b].tolist(), encoded.segment_ids[a:b].tolist(), strict=True)) for a, b in bounds
    ]


def ids_of(wordpiece, text):
    return wordpiece.encode([text], max_length=1000).token_ids.tolist()[1:-1]


def folder_with(tmp_path, **files):
    for name, content in files.items():
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / name.replace("__", ".")).write_bytes(content)
    return tmp_path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    WordPiece(VOCAB).save(folder)
    return folder


def test_attributes():
    wordpiece = WordPiece(VOCAB)
    assert wordpiece.vocab == VOCAB and wordpiece.vocab_size == len(VOCAB)
    special = (wordpiece.pad_id, wordpiece.unk_id, wordpiece.cls_id, wordpiece.sep_id, wordpiece.mask_id)
    assert special == (PAD, UNK, CLS, SEP, MASK)
    assert wordpiece.continues_word.dtype == bool
    assert [VOCAB[i] for i in np.flatnonzero(wordpiece.continues_word)] == ["##aff", "##able", "##b", "##É"]


def test_rows_of_single_texts():
    encoded = WordPiece(VOCAB).encode(["unaffable a", "", "x中b"], max_length=5)
    assert rows(encoded) == [
        [(i, 0) for i in (CLS, ID["un"], ID["##aff"], ID["##able"], SEP)],
        [(CLS, 0), (SEP, 0)],
        [(i, 0) for i in (CLS, UNK, ID["中"], ID["b"], SEP)],
    ]
    assert encoded.truncated.tolist() == [True, False, False]
    dtypes = [getattr(encoded, name).dtype.name for name in ("token_ids", "segment_ids", "offsets", "truncated")]
    assert dtypes == ["int32", "int32", "int64", "bool"]


def test_rows_of_pairs():
    encoded = WordPiece(VOCAB).encode(["a b", "a"], ["c", ""], max_length=6)
    a, b, c = ID["a"], ID["b"], ID["c"]
    assert rows(encoded) == [
        [(CLS, 0), (a, 0), (b, 0), (SEP, 0), (c, 1), (SEP, 1)],
        [(CLS, 0), (a, 0), (SEP, 0), (SEP, 1)],
    ]
    assert not encoded.truncated.any()


@pytest.mark.parametrize("pairs", [None, []])
def test_no_texts(pairs):
    encoded = WordPiece(VOCAB).encode([], pairs, max_length=8)
    assert encoded.offsets.tolist() == [0]
    assert len(encoded.token_ids) == len(encoded.segment_ids) == len(encoded.truncated) == 0


def test_many_texts_keep_their_order():
    texts = ["ab"[i % 2] * (i % 3) for i in range(1000)]
    encoded = WordPiece(VOCAB).encode(texts, max_length=8)
    assert rows(encoded) == [[(CLS, 0), *((i, 0) for i in ids_of(WordPiece(VOCAB), text)), (SEP, 0)] for text in texts]


def test_special_tokens_in_a_text_are_ordinary_text():
    assert ids_of(WordPiece(VOCAB), "[CLS] [PAD]") == [ID["["], ID["cls"], ID["]"], ID["["], UNK, ID["]"]]


@pytest.mark.parametrize(
    ("text", "options", "tokens"),
    [
        ("A É", {}, ["a", "e"]),
        ("A É", {"strip_accents": False}, ["a", "é"]),
        ("A É aÉ", {"lowercase": False}, ["A", "[UNK]", "a", "##É"]),
        ("A é", {"lowercase": False, "strip_accents": True}, ["A", "e"]),
        ("中中", {}, ["中", "中"]),
        ("中中", {"handle_chinese_chars": False}, ["[UNK]"]),
    ],
)
def test_normalization(text, options, tokens):
    assert ids_of(WordPiece(VOCAB, **options), text) == [ID[token] for token in tokens]


def test_words_of_more_than_100_characters_are_unknown():
    wordpiece = WordPiece(VOCAB)
    assert ids_of(wordpiece, "b" * 100) == [ID["b"], *[ID["##b"]] * 99]
    assert ids_of(wordpiece, "b" * 101) == [UNK]


def test_longest_first_truncation_is_that_of_the_tokenizers_library(saved):
    theirs = Tokenizer.from_file(str(saved / "tokenizer.json"))
    texts = [" ".join("abcdabcd"[:n]) for n in range(9)]
    firsts, seconds = zip(*product(texts, texts), strict=True)
    for max_length in range(4, 21):
        theirs.enable_truncation(max_length, strategy="longest_first")
        expected = theirs.encode_batch(list(zip(firsts, seconds, strict=True)))
        encoded = WordPiece(VOCAB).encode(firsts, seconds, max_length=max_length)
        assert rows(encoded) == [list(zip(row.ids, row.type_ids, strict=True)) for row in expected]
        assert encoded.truncated.tolist() == [bool(row.overflowing) for row in expected]


def test_longest_first_never_leaves_room_unused():
    first, second = np.meshgrid(np.arange(40), np.arange(40))
    for room in range(1, 50):
        kept = longest_first(first, second, room)
        assert (kept[0] + kept[1] == np.minimum(first + second, room)).all()


def test_decode_leaves_out_special_tokens():
    wordpiece = WordPiece(VOCAB)
    assert wordpiece.decode(wordpiece.encode(["Unaffable a,"], ["b"], max_length=12).token_ids) == "unaffable a b"
    assert wordpiece.decode([]) == ""


def test_it_can_be_pickled():
    assert ids_of(pickle.loads(pickle.dumps(WordPiece(VOCAB))), "unaffable") == ids_of(WordPiece(VOCAB), "unaffable")


@pytest.mark.parametrize("names", [{"tokenizer.json"}, {"vocab.txt", "tokenizer_config.json"}])
@pytest.mark.parametrize(
    "options",
    [{}, {"lowercase": False, "handle_chinese_chars": False}, {"strip_accents": False}, {"sep_token": "cls"}],
)
def test_save_and_from_folder(tmp_path, names, options):
    wordpiece = WordPiece([*VOCAB, "\u2028", "\x85"], **options)
    wordpiece.save(tmp_path / "new" / "folder")
    for path in (tmp_path / "new" / "folder").iterdir():
        if path.name not in names:
            path.unlink()
    loaded = WordPiece.from_folder(tmp_path / "new" / "folder")
    assert loaded.vocab == wordpiece.vocab
    assert loaded.normalization == wordpiece.normalization
    assert loaded.special_tokens == wordpiece.special_tokens


def test_max_length_is_kept(tmp_path):
    WordPiece(VOCAB, max_length=128).save(tmp_path)
    assert WordPiece.from_folder(tmp_path).max_length == 128
    WordPiece(VOCAB).save(tmp_path)
    assert WordPiece.from_folder(tmp_path).max_length is None


def test_no_limit_of_transformers_is_none(tmp_path):
    folder = folder_with(tmp_path, vocab__txt=VOCAB_TXT, tokenizer_config__json={"model_max_length": 10**30})
    assert WordPiece.from_folder(folder).max_length is None


@pytest.mark.parametrize(("piece", "lowercase"), [("##able", True), ("Able", False)])
def test_a_vocabulary_alone_tells_whether_it_is_cased(tmp_path, piece, lowercase):
    folder = folder_with(tmp_path, vocab__txt="\n".join([*SPECIAL, "a", piece]).encode())
    assert WordPiece.from_folder(folder).normalization["lowercase"] is lowercase


def test_the_saved_tokenizer_json_is_complete(saved):
    theirs = Tokenizer.from_file(str(saved / "tokenizer.json"))
    pair = theirs.encode("unaffable [MASK]", "É")
    assert pair.tokens == ["[CLS]", "un", "##aff", "##able", "[MASK]", "[SEP]", "e", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 0, 0, 0, 1, 1]
    assert theirs.decode(pair.ids) == "unaffable e"


def test_from_folder_reads_files_as_other_tools_write_them(tmp_path, saved):
    config = {"unk_token": {"content": "[UNK]"}, "pad_token": None, "tokenizer_class": "BertTokenizerFast"}
    vocab = "\r\n".join(VOCAB).encode()
    folder = folder_with(tmp_path, vocab__txt=vocab, tokenizer_config__json=config)
    assert WordPiece.from_folder(folder).vocab == VOCAB

    theirs = Tokenizer.from_file(str(saved / "tokenizer.json"))
    theirs.enable_padding(length=16)
    theirs.enable_truncation(8)
    theirs.add_special_tokens(["[NEW]"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert WordPiece.from_folder(folder).vocab == [*VOCAB, "[NEW]"]


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ([*VOCAB, "b"], "'b' for ids 6 and 21"),
        (SPECIAL[:3], r"\[SEP\], \[MASK\] missing"),
        ([*VOCAB, "x\n"], "one line"),
        ([*VOCAB, "x\r"], "one line"),
        ([*VOCAB, 7], "got 7 for id 21"),
        ([*VOCAB, "\ud800"], "Unicode"),
    ],
)
def test_a_bad_vocabulary(vocab, message):
    with pytest.raises(InputError, match=message):
        WordPiece(vocab)


@pytest.mark.parametrize(
    ("texts", "pairs", "max_length", "message"),
    [
        ("one string", None, 8, "texts: expected a list"),
        (["a", None], None, 8, r"texts\[1\]: .*None"),
        (["a", ("a", "b")], None, 8, r"texts\[1\]"),
        (["\ud83d"], None, 8, r"texts\[0\]: .*Unicode"),
        (["a"], [b"a"], 8, r"text_pairs\[0\]"),
        (["a"], "a", 8, "text_pairs: expected a list"),
        (["a"], [], 8, "text_pairs: expected 1, .* got 0"),
        (["a"], None, 2, "max_length: .* 2 special tokens"),
        (["a"], ["a"], 3, "max_length: .* 3 special tokens"),
    ],
)
def test_bad_texts(texts, pairs, max_length, message):
    with pytest.raises(InputError, match=message):
        WordPiece(VOCAB).encode(texts, pairs, max_length=max_length)


def word_piece(ids=ID, **options):
    return models.WordPiece(ids, unk_token="[UNK]", **options)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda t: setattr(t, "model", models.BPE(ID, [])), "model.* type 'WordPiece', got 'BPE'"),
        (
            lambda t: setattr(t, "model", word_piece(max_input_chars_per_word=50)),
            "max_input_chars_per_word 100, got 50",
        ),
        (lambda t: setattr(t, "model", word_piece(continuing_subword_prefix="@")), "'##', got '@'"),
        (lambda t: setattr(t, "model", word_piece({**ID, "z": 99})), "ids 0 to 21"),
        (lambda t: setattr(t, "normalizer", normalizers.NFC()), "'BertNormalizer', got 'NFC'"),
        (
            lambda t: setattr(t, "normalizer", normalizers.BertNormalizer(clean_text=False)),
            "clean_text True, got False",
        ),
        (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()), "'BertPreTokenizer', got 'Whitespace'"),
        (lambda t: setattr(t, "post_processor", processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))), "adds"),
    ],
)
def test_from_folder_refuses_other_tokenizers(tmp_path, saved, part, message):
    theirs = Tokenizer.from_file(str(saved / "tokenizer.json"))
    part(theirs)
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=message):
        WordPiece.from_folder(tmp_path)


VOCAB_TXT = "\n".join(VOCAB).encode()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected tokenizer.json or vocab.txt, got neither"),
        ({"tokenizer__json": b'{"model": '}, "tokenizer.json: expected the JSON of a tokenizer"),
        ({"tokenizer__json": {}}, "tokenizer.json: expected the JSON of a tokenizer"),
        ({"vocab__txt": b"[PAD]\na\n\xe9\n", "tokenizer_config__json": {}}, "vocab.txt, line 3: expected UTF-8"),
        ({"vocab__txt": VOCAB_TXT + b"\na", "tokenizer_config__json": {}}, "'a' for ids 5 and 21"),
        ({"vocab__txt": b"a\nb", "tokenizer_config__json": {}}, "missing"),
        ({"vocab__txt": VOCAB_TXT, "tokenizer_config__json": b"{"}, "expected the tokenizer's settings as JSON"),
        ({"vocab__txt": VOCAB_TXT, "tokenizer_config__json": b"\xff"}, "expected the tokenizer's settings as JSON"),
        ({"vocab__txt": VOCAB_TXT, "tokenizer_config__json": [1]}, "JSON object .* got a list"),
        ({"vocab__txt": VOCAB_TXT, "tokenizer_config__json": {"sep_token": 3}}, "string as sep_token, got 3"),
        ({"vocab__txt": VOCAB_TXT, "tokenizer_config__json": {"sep_token": "[X]"}}, r"\[X\] missing"),
        ({"vocab__txt": VOCAB_TXT, "tokenizer_config__json": {"do_lower_case": "no"}}, "as do_lower_case, got 'no'"),
        ({"vocab__txt": VOCAB_TXT, "tokenizer_config__json": {"do_lower_case": None}}, "as do_lower_case, got None"),
        (
            {"vocab__txt": VOCAB_TXT, "tokenizer_config__json": {"tokenizer_class": "BertJapaneseTokenizer"}},
            "got BertJapaneseTokenizer",
        ),
    ],
)
def test_bad_folders(tmp_path, files, message):
    with pytest.raises(InputError, match=message) as error:
        WordPiece.from_folder(folder_with(tmp_path, **files))
    assert "\n" not in str(error.value)
