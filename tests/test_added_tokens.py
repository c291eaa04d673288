"""Tokens that are found in a text before it is split: offline, in the graph, and by `tokenizers` itself."""

import gc
import pickle
import re
import tempfile
import unicodedata
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from exported import graph_of, nodes_of, ops_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import FLAGGED, TEXTS, TOKENS, WORDS, token
from tokenizers import AddedToken, Tokenizer, normalizers

from kerasformer.errors import InputError
from kerasformer.serving.ops import refusal
from kerasformer.text import added_graph
from kerasformer.text.bpe import BPE
from kerasformer.text.wordpiece import WordPiece

MERGES = [("a", "b"), ("ab", "c"), ("Ġ", "a"), ("c", "a"), ("ca", "t")]
MORE = [token("]x", normalized=False), token("É", special=True), token(" b"), token("[CLS]q", normalized=False)]
ADDED = [AddedToken(**entry) for entry in (*FLAGGED, *MORE)]
PLAIN = [AddedToken("[E1]", normalized=False), AddedToken("\n"), AddedToken("中文", special=False)]
N = len(WORDS)
CODE_POINTS = (
    range(0x3400),
    range(0xA000, 0xD800),
    range(0xE000, 0x20000),
    range(0xE0000, 0xE1000),
)  # with case or marks
ID = {word: i for i, word in enumerate(WORDS)}


def wordpiece(added, **options):
    return WordPiece(WORDS, added_tokens=added, **options)


def bpe(added, **options):
    return BPE(TOKENS, MERGES, added_tokens=added, **options)


MAKERS = {
    "uncased": lambda: wordpiece(ADDED),
    "cased": lambda: wordpiece(ADDED, lowercase=False),
    "lower-cased with accents": lambda: wordpiece(ADDED, strip_accents=False, handle_chinese_chars=False),
    "without normalized ones": lambda: wordpiece(PLAIN[:1]),
    "bpe": lambda: bpe([*ADDED, AddedToken("[PAD]", special=True)], pad_token="[PAD]"),
    "bpe, plain": lambda: bpe(PLAIN),
}


@cache
def made(name):
    """A tokenizer, its graph, and `tokenizers` with the same tokens."""
    tokenizer = MAKERS[name]()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        theirs = Tokenizer.from_file(f"{folder}/tokenizer.json")
    return tokenizer, tokenizer.in_graph(), theirs


def strings(texts):
    return tf.constant(texts, tf.string, [len(texts)])


def tokens_of(tokenizer, text):
    return [tokenizer.vocab[i] for i in tokenizer.tokenize([text])[0]]


PIECES = st.one_of(
    st.sampled_from([entry.content for entry in (*ADDED, *PLAIN)]),
    st.sampled_from(["[e1]", "AB", "é", "ab9", "[CLS]", "<|endoftext|>", "<|end", "cat", "the cat", "covid19", "_"]),
    st.sampled_from([" ", "  ", "\t\r\n", "\u3000", "\x85", "\x0b", "\x1c", "\u200b"]),
    st.sampled_from(
        ["\x00", "\x01", "\x01\x02", "\x02", "\x01\x03", "\u0301", "\u1b44", "\U0001d165", "İ", "ß", "👍🏽"]
    ),
    st.text(max_size=3),
)
TEXT = st.lists(PIECES, max_size=8).map("".join)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(texts=st.lists(TEXT, max_size=12))
def test_the_graph_and_tokenizers_find_the_same(name, texts):
    tokenizer, graph, theirs = made(name)
    ids = tokenizer.tokenize(texts)
    assert graph.tokenize(strings(texts)).to_list() == ids
    for text, row in zip(texts, ids, strict=True):
        if not re.search(r"\[CLS]|<\|endoftext\|>", text):  # to `tokenizers` these are special tokens
            assert theirs.encode(text, add_special_tokens=False).ids == row


def test_added_tokens_of_all_flags():
    tokenizer = wordpiece(ADDED)
    assert tokenizer.vocab == [*WORDS, "[E1]", "[E1", "<s>", "\n", "]x", " b", "[CLS]q"] and tokenizer.base_size == N
    assert tokens_of(tokenizer, "The[e1]cat [E1") == ["the", "[E1]", "cat", "[E1"]
    assert tokens_of(tokenizer, "ab cab") == ["ab", "[UNK]"] and tokens_of(tokenizer, "L\tL") == ["L", "L"]
    assert tokens_of(tokenizer, "[CLS]") == ["[", "[UNK]", "]"] and tokens_of(tokenizer, "[CLS]q") == ["[CLS]q"]
    assert tokenizer.decode([ID["the"], N, N + 1, ID["cat"], ID["[SEP]"]]) == "the [e1] cat"  # as in `tokenizers`
    special = [token.content for token in tokenizer.added_tokens if token.special]
    assert tokenizer.special_ids == {tokenizer.vocab.index(content) for content in special}


def test_words_are_spelled_with_the_vocabulary_alone():
    tokenizer = wordpiece([AddedToken("cats", single_word=True, normalized=False)])
    texts = ["cats Cats cats1 cat"]
    assert tokens_of(tokenizer, texts[0]) == ["cats", "cat", "##s", "cat", "##s", "##1", "cat"]
    assert tokenizer.in_graph().tokenize.python_function(strings(texts)).to_list() == tokenizer.tokenize(texts)


def test_bpe_decodes_added_tokens_as_they_are_written():
    tokenizer = bpe([*PLAIN, AddedToken("é中", normalized=False), AddedToken("[X]", special=True)])
    text = "cat[E1]\n é中 中文"
    [ids] = tokenizer.tokenize([text])
    assert tokenizer.decode(ids) == text and tokens_of(tokenizer, "[X]") == ["[X]"]
    assert tokenizer.decode([*ids, tokenizer.vocab.index("[X]"), tokenizer.eot_id]) == text


@settings(max_examples=40)
@given(
    texts=st.lists(
        st.lists(st.one_of(st.binary(max_size=4), TEXT.map(str.encode)), max_size=6).map(b"".join), max_size=6
    )
)
def test_any_bytes_come_back(texts):
    tokenizer, graph, _ = made("bpe, plain")
    ids = graph.tokenize(strings(texts))
    assert [tokenizer.decode_bytes(row) for row in ids.to_list()] == texts
    assert graph.detokenize(ids).numpy().tolist() == [text.decode(errors="replace").encode() for text in texts]


@pytest.mark.parametrize("name", ["uncased", "bpe"])
def test_it_can_be_pickled(name):
    tokenizer = made(name)[0]
    again = pickle.loads(pickle.dumps(tokenizer))
    texts = [*TEXTS, "[CLS] <|endoftext|>"]
    assert again.tokenize(texts) == tokenizer.tokenize(texts)
    assert again.in_graph().tokenize.python_function(strings(texts)).to_list() == tokenizer.tokenize(texts)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False])
def test_to_normalize_twice_changes_nothing(lowercase, strip_accents):
    # The graph does so with what lies between normalized tokens. (Ideographs only get more spaces around them.)
    options = {"lowercase": lowercase, "strip_accents": strip_accents, "handle_chinese_chars": False}
    normalize = normalizers.BertNormalizer(**options).normalize_str
    marks = "".join(chr(c) for c in range(0x20000) if unicodedata.combining(chr(c)))
    for text in (*("".join(f"a{chr(c)}b" for c in span) for span in CODE_POINTS), marks, marks[::-1]):
        once = normalize(text)
        assert normalize(once) == once


def test_the_characters_of_words_are_those_of_tokenizers():
    word = re.compile(
        f"[{re.sub(r'.x.([0-9a-f]+).', lambda code: re.escape(chr(int(code[1], 16))), added_graph._word_characters())}]"
    )
    assert all(map(word.fullmatch, "aZ_9é中\u0301\u200dⅧⒶ٣‿")) and not any(map(word.fullmatch, "- .²½\u200b👍\u00a0\n"))


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([AddedToken("\x07")], "text that can be found, got '.x07'"),  # normalized, it is nothing
        ([AddedToken("a\x00", normalized=False)], "text that can be found, got 'a.x00'"),
        ([AddedToken("[E1]"), AddedToken("[e1]")], r"got '\[E1\]' and '\[e1\]', which are the same once normalized"),
    ],
)
def test_added_tokens_that_cannot_be_told_apart(added, message):
    with pytest.raises(InputError, match=message):
        wordpiece(added)


def test_the_token_for_unknown_words_belongs_to_the_vocabulary():
    with pytest.raises(InputError, match=r"expected \[NEW\] for unknown words"):
        wordpiece([AddedToken("[NEW]")], unk_token="[NEW]")


def test_more_added_tokens_than_a_graph_takes():
    many = bpe([AddedToken(f"[entity {i}]") for i in range(1000)])
    assert tokens_of(many, "a[entity 77]") == ["a", "[entity 77]"]
    with pytest.raises(InputError, match="at most 10000 bytes of them in a graph, got 11903"):
        many.in_graph()


@pytest.mark.parametrize("make", [lambda: wordpiece(()), lambda: bpe(PLAIN)])
def test_a_graph_that_nothing_else_keeps(make):
    tokenizer, texts = make(), ["the cat[E1]", ""]
    assert tokenizer.in_graph().tokenize(strings(texts)).to_list() == tokenizer.tokenize(texts)
    data = tf.data.Dataset.from_tensor_slices(texts).batch(2)
    datasets = [data.map(make().in_graph().tokenize), data.map(lambda text: make().in_graph().tokenize(text))]
    gc.collect()
    for dataset in datasets:
        assert [batch.to_list() for batch in dataset] == [tokenizer.tokenize(texts)]


@pytest.mark.parametrize("make", [lambda **options: wordpiece((), **options), lambda **options: bpe((), **options)])
def test_the_length_of_rows_is_the_tokenizers_own_by_default(make):
    texts = ["the cat sat on the cat", "a"]
    for max_length, length in ((None, 1000), (4, 4)):
        rows = make(max_length=max_length).in_graph()(texts)
        encoded = make().encode(texts, max_length=length)
        assert np.array_equal(tf.boolean_mask(rows["token_ids"], rows["padding_mask"] == 1), encoded.token_ids)
        assert np.array_equal(tf.reduce_sum(rows["padding_mask"], axis=1), np.diff(encoded.offsets))
    assert make().in_graph()([])["token_ids"].shape[0] == 0


@pytest.mark.parametrize(
    ("texts", "message"), [("one", "text: .*got 'one'"), ([1], "text: .*1"), ([None], "text: .*None")]
)
def test_what_is_no_list_of_texts(texts, message):
    graph = made("without normalized ones")[1]
    with pytest.raises(InputError, match=message):
        graph(texts)
    with pytest.raises(InputError, match=message.replace("text", "text_pair")):
        graph(["a"], texts)


@pytest.mark.parametrize("name", ["uncased", "bpe"])
def test_a_saved_model_finds_them_with_core_operations_alone(name, tmp_path):
    tokenizer, graph, _ = made(name)
    tf.saved_model.save(graph, str(tmp_path))
    assert tf.saved_model.load(str(tmp_path)).tokenize(strings(TEXTS)).to_list() == tokenizer.tokenize(TEXTS)
    assert not [
        name for name in ops_of(tmp_path) if "Mutable" in name or "PyFunc" in name or not hasattr(tf.raw_ops, name)
    ]
    assert not [complaint for node in nodes_of(graph_of(tmp_path)) if (complaint := refusal(node))]
