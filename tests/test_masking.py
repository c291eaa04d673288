"""Which tokens are hidden, and behind what: of every row, and over many of them."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasformer.data.documents import Texts
from kerasformer.data.masking import MaskedWindows, Masking, masked_language_modelling
from kerasformer.data.prepare import prepare
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError
from kerasformer.text.bpe import BPE
from kerasformer.text.folder import read_tokenizer
from kerasformer.text.vocabulary import train_char
from kerasformer.text.wordpiece import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENIZER = WordPiece([*SPECIAL, "cat", "dog", "ran", "##s", "##ing", "a", "."])
VOCAB, PAD, SEP, MASK, FIRST = TOKENIZER.vocab_size, 0, 3, 4, 5

rows = st.integers(1, 30).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, VOCAB - 1), min_size=length, max_size=length), min_size=1, max_size=5
    )
)
seeds, shares = st.integers(0, 2**65 - 1), st.floats(0.01, 0.99)


def mask(token_ids, share=0.15, whole_words=False, seed=0, numbers=None) -> tuple[np.ndarray, np.ndarray]:
    token_ids = np.asarray(token_ids, np.int32)
    numbers = np.arange(len(token_ids)) if numbers is None else numbers
    masking = Masking(TOKENIZER, share=share, whole_words=whole_words, seed=seed)
    found, labels = masking(tf.constant(token_ids), tf.constant(numbers, tf.int64))
    return found.numpy(), labels.numpy()


def words_of(row) -> list[list[int]]:
    """The places of each word's tokens; what continues no word begins one."""
    words, open_word = [], False
    for place, token_id in enumerate(row):
        if token_id < FIRST:
            open_word = False
        elif open_word and TOKENIZER.continues_word[token_id]:
            words[-1].append(place)
        else:
            words.append([place])
            open_word = True
    return words


@settings(max_examples=30)
@given(token_ids=rows, share=shares, whole=st.booleans(), seed=seeds)
def test_what_is_chosen_is_labelled_and_all_else_is_left_alone(token_ids, share, whole, seed):
    original = np.array(token_ids, np.int32)
    found, labels = mask(original, share, whole, seed)
    assert found.dtype == labels.dtype == np.int32 and found.shape == labels.shape == original.shape
    chosen = labels >= 0
    np.testing.assert_array_equal(labels[chosen], original[chosen])
    np.testing.assert_array_equal(found[~chosen], original[~chosen])
    assert (labels[~chosen] == -1).all() and (original[chosen] >= FIRST).all()
    assert np.isin(found[chosen], [MASK, *range(FIRST, VOCAB)]).all()


@settings(max_examples=30)
@given(token_ids=rows, share=shares, seed=seeds)
def test_the_share_is_kept_in_every_row(token_ids, share, seed):
    _, labels = mask(token_ids, share, seed=seed)
    for row, row_labels in zip(token_ids, labels, strict=True):
        ordinary = sum(token_id >= FIRST for token_id in row)
        assert (row_labels >= 0).sum() == min(ordinary, max(1, round(share * ordinary)))


@settings(max_examples=30)
@given(token_ids=rows, share=shares, seed=seeds)
def test_whole_words_are_whole_and_as_many_as_fit(token_ids, share, seed):
    _, labels = mask(token_ids, share, True, seed)
    for row, row_labels in zip(token_ids, labels, strict=True):
        words = words_of(row)
        wanted = max(1, round(share * sum(map(len, words))))
        chosen = [word for word in words if row_labels[word[0]] >= 0]
        for word in words:
            assert len(set(row_labels[word] >= 0)) == 1
        count = sum(map(len, chosen))
        assert count <= wanted
        left = [len(word) for word in words if word not in chosen]
        assert not left or count + max(left) > wanted or count == wanted


@settings(max_examples=30)
@given(token_ids=rows, whole=st.booleans(), seed=seeds, data=st.data())
def test_a_row_is_masked_by_its_number_alone(token_ids, whole, seed, data):
    numbers = np.array(data.draw(st.lists(st.integers(0, 2**62), min_size=len(token_ids), max_size=len(token_ids))))
    together = mask(token_ids, 0.5, whole, seed, numbers)
    for i, row in enumerate(token_ids):
        for found, expected in zip(mask([row], 0.5, whole, seed, numbers[i : i + 1]), together, strict=True):
            np.testing.assert_array_equal(found[0], expected[i])


def test_of_ten_tokens_eight_are_hidden_one_is_another_and_one_stays():
    token_ids = np.full((4000, 40), FIRST, np.int32)
    found, labels = mask(token_ids)
    chosen = labels >= 0
    assert chosen.sum() == 4000 * 6
    values, counts = np.unique(found[chosen], return_counts=True)
    assert values.tolist() == [MASK, *range(FIRST, VOCAB)]
    others = 0.1 / (VOCAB - FIRST)  # a random token can be the one that was there
    expected = np.array([0.8, 0.1 + others, *[others] * (VOCAB - FIRST - 1)]) * 24_000
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < len(counts) - 1 + 5 * np.sqrt(2 * (len(counts) - 1))


@pytest.mark.parametrize("whole", [False, True])
def test_every_place_is_chosen_as_often_and_independently_of_other_seeds(whole):
    token_ids = np.full((8000, 40), FIRST, np.int32)
    chosen = {seed: mask(token_ids, whole_words=whole, seed=seed)[1] >= 0 for seed in (0, 1)}
    for drawn in chosen.values():
        np.testing.assert_allclose(drawn.mean(axis=0), 0.15, atol=5 * np.sqrt(0.15 * 0.85 / 8000))
        together = (drawn[:, :-1] & drawn[:, 1:]).mean()  # neighbours
        assert together == pytest.approx(0.15 * 5 / 39, abs=0.002)
    assert (chosen[0] & chosen[1]).mean() == pytest.approx(0.15**2, abs=0.002)


def test_long_words_are_hidden_about_as_often_as_short_ones():
    long, short = TOKENIZER.tokenize(["catsing"])[0], TOKENIZER.tokenize(["dog"])[0]
    token_ids = np.array([[*long, *short * 3] * 20] * 2000, np.int32)  # 120 tokens in 80 words
    chosen = mask(token_ids, whole_words=True)[1] >= 0
    assert 0.13 < chosen.mean() <= 0.15
    of_long = chosen.reshape(2000, 20, 6)[:, :, :3].mean()
    assert of_long / chosen.mean() == pytest.approx(1, abs=0.1)


TEXT = "a cat ran . dogs ran . a catsing dog .\n"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "animals.txt"
    path.write_text(TEXT * 60)
    return path


def opened(text, **options) -> tuple[MaskedWindows, MaskedWindows]:
    return masked_language_modelling(text, **{"tokenizer": TOKENIZER, "max_length": 18, "batch_size": 4, **options})


def read(dataset) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and labels of all rows, [rows, T] each."""
    return tuple(np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True))


def test_rows_are_windows_between_the_special_tokens(text):
    training, valid = opened(text)
    assert (training.batch_size, training.max_length, training.vocab_size) == (4, 18, VOCAB)
    plain = Windows(training.windows.corpus, "validation", batch_size=4, max_length=16)
    for windows, unmasked in (
        (training.dataset(3, 5), training.windows.dataset(3, 5)),
        (valid.in_order(), plain.in_order()),
    ):
        token_ids, labels = read(windows)
        restored = np.where(labels >= 0, labels, token_ids)
        np.testing.assert_array_equal(restored[:, 1:-1], read(unmasked)[0])
        assert (token_ids[:, 0] == 2).all() and (token_ids[:, -1] == 3).all() and restored.shape[1] == 18
    assert training.dataset(0, 1).element_spec == (tf.TensorSpec([4, 18], tf.int32),) * 2
    assert int(valid.in_order().cardinality()) == -(-valid.windows.count // 4)


@pytest.mark.parametrize("order", ["random", "consecutive"])
def test_a_run_resumes_with_the_same_masks(text, order):
    whole = read(opened(text, order=order)[0].dataset(0, 30))
    for found, expected in zip(read(opened(text, order=order)[0].dataset(11, 19)), whole, strict=True):
        np.testing.assert_array_equal(found, expected[44:])


def test_masks_depend_on_the_seed_and_not_on_the_batch_size(text):
    four, six = (read(opened(text, batch_size=size)[0].dataset(0, 12 // size)) for size in (4, 6))
    np.testing.assert_array_equal(four[0], six[0])
    labels = [tuple(read(opened(text, seed=seed)[0].dataset(0, 3))[1].ravel()) for seed in (0, 1, 2**64 - 1)]
    assert len(set(labels)) == 3


def test_an_evaluation_hides_the_same_tokens_each_time_and_training_others(text):
    _, valid = opened(text)
    first, again, short = (read(valid.in_order(n)) for n in (None, None, 1))
    for a, b, c in zip(first, again, short, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[:4], c)
    training, _ = opened(text, order="consecutive")
    epochs = [read(training.dataset(i * training.steps_per_epoch, 1)) for i in range(2)]
    assert (epochs[0][1] != epochs[1][1]).any()


def test_a_prepared_folder_of_word_pieces_is_read_alike(text, tmp_path):
    texts = Texts([text], documents="lines", validation=0.25)
    prepare(texts, tmp_path / "prepared", tokenizer=TOKENIZER)
    assert json.loads((tmp_path / "prepared/index.json").read_text())["end_of_text"] == SEP
    prepared, held_out = masked_language_modelling(tmp_path / "prepared", max_length=18, batch_size=4)
    loaded, _ = opened(text, documents="lines", validation=0.25)
    assert isinstance(prepared.tokenizer(), WordPiece) and held_out is not None
    for found, expected in zip(read(prepared.dataset(0, 9)), read(loaded.dataset(0, 9)), strict=True):
        np.testing.assert_array_equal(found, expected)
    ids = TOKENIZER.tokenize([TEXT])[0]
    assert prepared.tokens == 45 * (len(ids) + 1)  # [SEP] after each line


def test_the_files_of_a_folder_tell_the_tokenizer(tmp_path, bert_tiny):
    for name, tokenizer in {"words": TOKENIZER, "bytes": train_char(["a"])}.items():
        tokenizer.save(tmp_path / name)
        assert read_tokenizer(tmp_path / name).vocab == tokenizer.vocab
        (tmp_path / name / "tokenizer.json").unlink()
        assert type(read_tokenizer(tmp_path / name)) is type(tokenizer)
    assert isinstance(read_tokenizer(bert_tiny), WordPiece) and issubclass(type(train_char(["a"])), BPE)
    (tmp_path / "words/tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(InputError, match="expected a tokenizer of the kind WordPiece or BPE, got Unigram; use another"):
        read_tokenizer(tmp_path / "words")
    with pytest.raises(InputError, match="got none of them"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_share": 0.0}, "expected a share of the tokens above 0 and below 1 to mask, got 0.0"),
        ({"mask_share": 1.0}, "expected a share of the tokens above 0 and below 1 to mask, got 1.0"),
        ({"max_length": 2}, "expected a max_length above 2, for .CLS. and .SEP., got 2"),
        ({"tokenizer": train_char(["a"])}, "expected a WordPiece tokenizer, whose .MASK. hides tokens, got a BPE"),
        ({"tokenizer": None}, "expected a tokenizer for text files"),
    ],
)
def test_bad_input(text, options, message):
    with pytest.raises(InputError, match=message):
        opened(text, **options)
