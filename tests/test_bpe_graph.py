import random
import sysconfig
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exported import graph_of, nodes_of, ops_of
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.errors import InputError
from kerasformer.serving.ops import refusal
from kerasformer.text.bpe import ALPHABET, BPE, EOT_TOKEN
from kerasformer.text.bpe_merges import Merges
from kerasformer.text.vocabulary import train_bpe, train_char

SHARED = Path(__file__).parents[2] / "shared/data"
CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
SAMPLE = """It's said we'll see what they've done, I'm sure: you'd say they don't, but we're not 'til 1984's end.
    def tokenize(self, text):\n\t\treturn [1, 22, 333]  # 4,444.5555 — "so-called" naïve café\r\n\r\n
Ελληνικά και русский текст, हिन्दी में, 中文没有空格的句子。日本語の文章です。
한국어 문장 ①②③ ½ ٣٤٥ 👩‍👩‍👧‍👦🏽 é e\u0301 \u3000\u3000 \u00a0!
"""


@pytest.fixture(scope="session")
def trained():
    """A BPE of 700 tokens, and its graph."""
    words = random.Random(0).choices(SAMPLE.split(" "), k=3000)
    bpe = train_bpe([SAMPLE * 3 + " ".join(words)], vocab_size=700)
    return bpe, bpe.in_graph()


@cache
def real():
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here")
    bpe = BPE.from_folder(SHARED / "gpt2")
    return bpe, bpe.in_graph()


def strings(texts):
    return tf.constant(texts, tf.string, [len(texts)])


def assert_equal(pair, texts):
    bpe, graph = pair
    expected, actual = bpe.tokenize(texts), graph.tokenize(strings(texts))
    assert actual.dtype == tf.int32
    np.testing.assert_array_equal(actual.row_lengths(), [len(row) for row in expected])
    np.testing.assert_array_equal(actual.values, [i for row in expected for i in row])


def test_every_code_point(trained):
    # Planes 4 to 13 hold no character at all: some of them are enough here.
    some = [c for c in CHARACTERS if not 0x40000 <= ord(c) < 0xE0000 and ord(c) < 0xE1000 or ord(c) % 64 == 0]
    assert_equal(trained, ["".join(f"a{c}b {c}1" for c in some[i : i + 4096]) for i in range(0, len(some), 4096)])


@pytest.mark.slow
def test_every_code_point_in_all_contexts(trained):
    for start in range(0, len(CHARACTERS), 1 << 16):
        block = CHARACTERS[start : start + (1 << 16)]
        assert_equal(trained, [f"a{c}b {c}{c} {c}1" for c in block])
        assert_equal(trained, [f" {c}  {c}\n{c}" for c in block])
        assert_equal(trained, [f"!{c}'s{c}'{c}" for c in block])


def test_every_short_string_of_the_characters_that_the_pattern_names(trained):
    assert_equal(trained, ["".join(chars) for chars in product("'strevmld 1", repeat=4)])
    assert_equal(trained, ["".join(chars) for chars in product("'sS \n\u3000\u00a0a9!é", repeat=4)])


def generated(count, seed=0):
    """Strings of many scripts, emoji sequences, runs of white space, contractions and single code points."""
    numbers = random.Random(seed)
    spans = [
        *[(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x780), (0x900, 0xE00), (0xE00, 0x1000)],
        *[(0x10A0, 0x1200), (0x1780, 0x1800), (0x2000, 0x2070), (0x20A0, 0x2200), (0x2460, 0x2500), (0x3040, 0x3100)],
        *[(0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xFE00, 0xFE10), (0x1D400, 0x1D800), (0x1F1E6, 0x1F200)],
        *[(0x1F300, 0x1F700), (0x20000, 0x20100), (0xE0020, 0xE0080), (0, 0x20), (0, 0xD800), (0xE000, 0x110000)],
    ]
    spaces = " \t\n\r\x0b\x0c\x85\u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"
    pieces = [
        "'s",
        "'re",
        "'LL",
        "''",
        "'",
        "👩‍👩‍👧‍👦",
        "👍🏽",
        "🇰🇿",
        "e\u0301",
        "  ",
        " ",
        "\n\n",
        "0",
        "²",
        "Ⅷ",
        "the",
        " The",
    ]

    def piece():
        kind = numbers.random()
        if kind < 0.5:
            first, last = numbers.choice(spans)
            return "".join(chr(numbers.randrange(first, last)) for _ in range(numbers.randint(1, 8)))
        if kind < 0.7:
            return "".join(numbers.choices(spaces, k=numbers.randint(1, 5)))
        return numbers.choice(pieces)

    return ["".join(piece() for _ in range(numbers.randint(0, 12))) for _ in range(count)]


def test_generated_strings(trained):
    assert_equal(trained, generated(20_000))


CHUNKS = st.one_of(
    st.text(max_size=12).map(str.encode),
    st.text("'strevmld 1\n\u3000\u00a0é中", max_size=12).map(str.encode),
    st.sampled_from([SAMPLE[:200], "aaaaaaaaaaaaaaa", "\x00", "<|endoftext|>", " \n \n"]).map(str.encode),
    st.binary(max_size=6),
    st.sampled_from([b"\xe4\xb8", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xff", b"\xe3\x80", b"\x80"]),
)
TEXTS = st.lists(CHUNKS, max_size=8).map(b"".join)


def is_text(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=200)
@given(texts=st.lists(TEXTS, max_size=4))
def test_any_bytes_come_back_and_text_is_tokenized_as_offline(trained, texts):
    bpe, graph = trained
    actual = graph.tokenize(strings(texts)).to_list()
    assert [bpe.decode_bytes(ids) for ids in actual] == texts
    valid = [i for i, text in enumerate(texts) if is_text(text)]
    assert [actual[i] for i in valid] == bpe.tokenize([texts[i].decode() for i in valid])


@settings(max_examples=200)
@given(rows=st.lists(st.lists(st.integers(-1, 701), max_size=8), max_size=4))
def test_detokenize_is_decode(trained, rows):
    bpe, graph = trained
    ids = tf.RaggedTensor.from_row_lengths(tf.constant(sum(rows, []), tf.int32), [len(row) for row in rows])
    expected = [bpe.decode(i for i in row if 0 <= i < bpe.vocab_size).encode() for row in rows]
    assert graph.detokenize(ids).numpy().tolist() == expected
    assert graph.detokenize(tf.cast(ids, tf.int64)).numpy().tolist() == expected


def padded(encoded, pad_id):
    """What the graph should return for these rows."""
    lengths = np.diff(encoded.offsets)
    real = np.arange(lengths.max(initial=0)) < lengths[:, None]
    token_ids = np.full(real.shape, pad_id)
    token_ids[real] = encoded.token_ids
    return {"token_ids": token_ids, "padding_mask": real}


@settings(max_examples=100)
@given(
    pairs=st.lists(st.tuples(*[st.text("ab' é中", max_size=9)] * 2), max_size=4),
    paired=st.booleans(),
    max_length=st.sampled_from([2, 3, 6, 100]),
)
def test_rows_as_offline(trained, pairs, paired, max_length):
    bpe, graph = trained
    texts = [list(texts) for texts in zip(*pairs, strict=True)][: 1 + paired] or [[]] * (1 + paired)
    actual = graph(*map(strings, texts), max_length=max_length)
    expected = padded(bpe.encode(*texts, max_length=max_length), bpe.pad_id)
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == tf.int32
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_max_length_too_small(trained):
    with pytest.raises(InputError, match="max_length: .* 1 special tokens .* got 1"):
        trained[1](tf.constant(["a"]), tf.constant(["b"]), max_length=1)


def pairs_of_few_letters(numbers):
    """Pairs to join, most in an order that no training gives: a token can come before one that it is made of."""
    tokens, pairs = list("abc"[: numbers.randint(1, 3)]), []
    for _ in range(numbers.randint(1, 16)):
        pair = (numbers.choice(tokens), numbers.choice(tokens))
        if pair not in pairs and len("".join(pair)) <= 6:
            pairs.append(pair)
            tokens.append("".join(pair))
    return numbers.sample(pairs, len(pairs)) if numbers.random() < 0.7 else pairs


def assert_merged(merges, words):
    made = dict.fromkeys("".join(merge) for merge in merges)
    bpe = BPE([*sorted(ALPHABET), *made, EOT_TOKEN], merges)
    assert Merges(bpe)(strings(words)).to_list() == bpe.tokenize(words)


@pytest.mark.parametrize("seed", range(24))
def test_merges_in_any_order_over_words_of_many_blocks(seed):
    numbers = random.Random(seed)
    words = ["".join(numbers.choices("abc", [6, 3, 1], k=numbers.randint(1, 120))) for _ in range(60)]
    assert_merged(pairs_of_few_letters(numbers), [*words, *("a" * length for length in range(1, 40))])


def test_a_run_over_many_blocks_is_joined_from_its_start():
    assert_merged([("b", "a"), ("a", "a"), ("c", "b")], ["cb" + "a" * length for length in range(1, 40)])


@pytest.mark.parametrize("text", ["plain letters", "naïve, 犬 and 👩‍🦰"])  # the first needs no merges at all
def test_a_vocabulary_of_characters(text):
    bpe = train_char([text])
    assert_equal((bpe, bpe.in_graph()), [text, "", "犬é"])
    assert len(bpe.tokenize([text])[0]) == len(text)


@pytest.mark.parametrize("alphabet", ["a", "the ", "中"])
def test_a_text_of_many_bytes_in_one_word(trained, alphabet):
    numbers = random.Random(0)
    assert_equal(trained, ["a" + "".join(numbers.choices(alphabet.strip(), k=30_000))])


def test_a_million_times_one_letter(trained):
    assert_equal(trained, ["a" * 1_000_000])


def test_inside_a_dataset(trained):
    bpe, graph = trained
    texts = [SAMPLE, "", "we'll", "x", "中文 é"]
    batches = tf.data.Dataset.from_tensor_slices(texts).batch(2).map(graph.tokenize)
    assert [row for batch in batches for row in batch.to_list()] == bpe.tokenize(texts)


class Served(tf.Module):
    """A module that takes strings and gives them back, as an exported model does."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, text):
        return {"text": self.graph.detokenize(self.graph.tokenize(text)), **self.graph(text, max_length=9)}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    served = Served(trained[1])
    tf.saved_model.save(served, str(folder), signatures=served.serve)
    return folder


def test_a_saved_model_gives_the_same(trained, exported):
    served = tf.saved_model.load(str(exported))
    texts = [SAMPLE, "", "we'll \x00é"]
    rows = served.signatures["serving_default"](text=tf.constant(texts))
    expected = padded(trained[0].encode(texts, max_length=9), trained[0].pad_id)
    np.testing.assert_array_equal(rows["token_ids"], expected["token_ids"])
    assert [text.decode() for text in rows["text"].numpy()] == texts
    assert served.graph.tokenize(tf.constant(texts)).to_list() == trained[0].tokenize(texts)


def test_a_saved_model_has_operations_of_every_server_and_no_mutable_state(exported):
    operations = ops_of(exported)
    assert {"DecodeRaw", "LookupTableFindV2", "HashTableV2"} <= operations
    assert not [name for name in operations if "Mutable" in name or "PyFunc" in name or "Xla" in name]
    # Only added tokens need them; TensorFlow's own looks whether it saves to S3.
    patterns = [node.attr["pattern"].s for node in nodes_of(graph_of(exported)) if "Regex" in node.op]
    assert patterns in ([], [b"^s3://.*"])
    assert not [name for name in operations if not hasattr(tf.raw_ops, name)]  # no TF Text
    assert not [complaint for node in nodes_of(graph_of(exported)) if (complaint := refusal(node))]


def test_the_real_vocabulary_on_real_text():
    pair = real()
    for path in [*sorted((SHARED / "wikitext-2").glob("*.txt")), SHARED / "tinyshakespeare.txt"]:
        assert_equal(pair, [path.read_text("utf-8")])


def test_the_real_vocabulary_on_generated_strings():
    assert_equal(real(), generated(20_000, seed=1))


@pytest.mark.slow
def test_the_real_vocabulary_on_the_standard_library():
    pair = real()
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    texts = [
        data.decode() for path in files if "site-packages" not in path.parts and is_text(data := path.read_bytes())
    ]
    assert len(texts) > 500
    for start in range(0, len(texts), 100):
        assert_equal(pair, texts[start : start + 100])
