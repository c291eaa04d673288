import unicodedata
from functools import cache

import numpy as np
import pytest
import tensorflow as tf
from exported import graph_of, nodes_of, ops_of
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.errors import InputError
from kerasformer.text.wordpiece import WordPiece
from kerasformer.text.wordpiece_graph import WordPieceGraph

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
MARKS = [char for char in CHARACTERS if unicodedata.category(char).startswith("M")]
UNCASED, CASED = (("lowercase", True),), (("lowercase", False),)
OTHER = (("lowercase", True), ("strip_accents", False), ("handle_chinese_chars", False))


def spelled_with(characters, options, words=()):
    """A WordPiece that can spell whatever the normalizer makes of the characters, and its graph."""
    normalizer = WordPiece(SPECIAL, **options).tokenizer.normalizer
    letters = sorted(set(normalizer.normalize_str("".join(characters))) - set(words))
    wordpiece = WordPiece([*SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters)], **options)
    return wordpiece, WordPieceGraph(wordpiece)


@cache
def pair_for(options):
    words = [
        "un",
        "unaffable",
        "##aff",
        "##able",
        "##bb",
        "aab",
        "##xy",
        "中文",
        "é",
        "##éé",
        "##ing" * 20,
        "",
        "##",
        "a b",
    ]
    some = [char for char in CHARACTERS[:0x3100] if ord(char) % 5]  # so that one in five is unknown
    return spelled_with([*some, *MARKS, *"中文字\u1100\u1161\u11a8", "\U0001d157"], dict(options), words)


def ids_of(wordpiece, texts):
    return [encoding.ids for encoding in wordpiece.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def dense(encoded, pad_id):
    """What the graph should return for these rows."""
    lengths = np.diff(encoded.offsets)
    real = np.arange(lengths.max(initial=0)) < lengths[:, None]
    token_ids = np.full(real.shape, pad_id)
    token_ids[real] = encoded.token_ids
    segment_ids = np.zeros_like(token_ids)
    segment_ids[real] = encoded.segment_ids
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": real}


def assert_rows(actual, encoded, pad_id=0):
    expected = dense(encoded, pad_id)
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == tf.int32
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("options", [UNCASED, CASED], ids=["uncased", "cased"])
def test_every_code_point(options):
    # Planes 2 to 13 hold ideographs that stay as they are, or nothing: some of them as pieces are enough.
    known = [
        c for c in CHARACTERS if not 0x20000 <= ord(c) < 0xE0000 or 0x2F800 <= ord(c) < 0x2FA20 or ord(c) % 64 == 0
    ]
    wordpiece, graph = spelled_with(known, dict(options))
    for start in range(0, len(CHARACTERS), 1 << 16):
        block = CHARACTERS[start : start + (1 << 16)]
        texts = ["".join(f"a{char}b {char} " for char in block[i : i + 256]) for i in range(0, len(block), 256)]
        expected = ids_of(wordpiece, texts)
        actual = graph.tokenize(tf.constant(texts))
        np.testing.assert_array_equal(actual.row_lengths(), [len(row) for row in expected])
        np.testing.assert_array_equal(actual.values, np.concatenate(expected))


def test_marks_dropped_and_kept_between_marks_that_canonical_ordering_swaps():
    wordpiece, graph = pair_for(UNCASED)
    dropped = [char for char in CHARACTERS if unicodedata.category(char) in ("Cc", "Cf")]
    texts = [f"a\U0001d16d{char}\U0001d165" for char in [*MARKS, *dropped, *CHARACTERS[::101]]]
    assert graph.tokenize(tf.constant(texts)).to_list() == ids_of(wordpiece, texts)


def test_marks_stay_in_their_texts():
    wordpiece, graph = pair_for(UNCASED)
    texts = ["a\U0001d16d", "\U0001d165\u1b44", "\u1b44\U0001d165b"]
    assert graph.tokenize(tf.constant(texts)).to_list() == ids_of(wordpiece, texts)


CHUNKS = st.one_of(
    st.text(max_size=12).map(str.encode),
    st.text(st.characters(max_codepoint=0x3100), max_size=12).map(str.encode),
    st.text([*MARKS, "\u302e", "\u1b44", "\U0001d165", "\U0001e944", "\U0001e94a", "a"], max_size=6).map(str.encode),
    st.lists(st.sampled_from(["un", "aff", "able", "aab", "bb", "xy", "ing", "é"]), max_size=6)
    .map("".join)
    .map(str.encode),
    st.sampled_from(
        [
            "unaffable",
            "中文字",
            "각",
            "İSTANBUL ΑΣ ß",
            "Crème brûlée",
            "👩‍👩‍👧‍👦🏽",
            "[CLS] [MASK]##ing",
            " \t\n\r\u00a0\u3000\u2028  ",
            "\x00\x1f\x7f\x85\u200d\ufeff\ufffd\ufffe\ue000",
            "b" * 100,
            "b" * 101,
            "é" * 200,
            "ing" * 33,
        ]
    ).map(str.encode),
    st.binary(max_size=6),
    st.sampled_from([b"\xe4\xb8", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xff", b" "]),
)
TEXTS = st.lists(CHUNKS, max_size=8).map(b"".join)


def decoded(texts):
    return [text.decode(errors="replace") for text in texts]


@pytest.mark.parametrize("options", [UNCASED, CASED, OTHER], ids=["uncased", "cased", "other"])
@settings(max_examples=100)
@given(texts=st.lists(TEXTS, max_size=4), max_length=st.sampled_from([3, 4, 7, 16, 300]))
def test_single_texts_as_offline(options, texts, max_length):
    wordpiece, graph = pair_for(options)
    assert graph.tokenize(tf.constant(texts, tf.string, [len(texts)])).to_list() == ids_of(wordpiece, decoded(texts))
    actual = graph(tf.constant(texts, tf.string, [len(texts)]), max_length=max_length)
    assert_rows(actual, wordpiece.encode(decoded(texts), max_length=max_length))


@settings(max_examples=60)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=4), max_length=st.sampled_from([4, 5, 8, 15, 300]))
def test_pairs_as_offline(pairs, max_length):
    wordpiece, graph = pair_for(UNCASED)
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    actual = graph(*(tf.constant(texts, tf.string, [len(pairs)]) for texts in (first, second)), max_length=max_length)
    assert_rows(actual, wordpiece.encode(decoded(first), decoded(second), max_length=max_length))


def test_inside_a_dataset():
    wordpiece, graph = pair_for(UNCASED)
    texts = ["unaffable", "", "a bb", "x", "Éa 中文"]
    batches = tf.data.Dataset.from_tensor_slices(texts).batch(2).map(lambda text: graph(text, text, max_length=6))
    for start, batch in zip(range(0, 5, 2), batches, strict=True):
        part = texts[start : start + 2]
        assert_rows(batch, wordpiece.encode(part, part, max_length=6))


class Served(tf.Module):
    """A module that takes strings, as an exported model does."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
    def serve(self, text, text_pair):
        return self.graph(text, text_pair, max_length=9)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    served = Served(pair_for(UNCASED)[1])
    tf.saved_model.save(served, str(folder), signatures=served.serve)
    return folder


def test_a_saved_model_gives_the_same_rows(exported):
    wordpiece, _ = pair_for(UNCASED)
    texts, pairs = ["unaffable é", "", "각 \U0001e944\U0001e94a"], ["b" * 101, "aab", "中文"]
    served = tf.saved_model.load(str(exported))
    expected = wordpiece.encode(texts, pairs, max_length=9)
    assert_rows(served.serve(tf.constant(texts), tf.constant(pairs)), expected)
    assert_rows(served.signatures["serving_default"](text=tf.constant(texts), text_pair=tf.constant(pairs)), expected)
    assert served.graph.tokenize(tf.constant(texts)).to_list() == ids_of(wordpiece, texts)


def test_a_saved_model_has_core_operations_alone_and_no_mutable_state(exported):
    operations = ops_of(exported)
    assert {"UnicodeDecode", "LookupTableFindV2", "HashTableV2"} <= operations
    assert not [name for name in operations if not hasattr(tf.raw_ops, name)]
    assert not [name for name in operations if "Mutable" in name or "PyFunc" in name or "Xla" in name]
    # Only added tokens need them; TensorFlow's own looks whether it saves to S3.
    patterns = [node.attr["pattern"].s for node in nodes_of(graph_of(exported)) if "Regex" in node.op]
    assert patterns in ([], [b"^s3://.*"])


def test_max_length_too_small():
    _, graph = pair_for(UNCASED)
    with pytest.raises(InputError, match="max_length: .* 3 special tokens .* got 3"):
        graph(tf.constant(["a"]), tf.constant(["b"]), max_length=3)
