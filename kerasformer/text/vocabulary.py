"""Trains vocabularies from texts."""

import json
from collections.abc import Callable, Iterable

from tokenizers import trainers

from kerasformer.errors import InputError
from kerasformer.text.bpe import ALPHABET, BPE, EOT_TOKEN
from kerasformer.text.wordpiece import WordPiece

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_wordpiece(
    texts: Callable[[], Iterable[str]],
    *,
    vocab_size: int,
    lowercase: bool = True,
    min_frequency: int = 2,
    progress: bool = False,
) -> WordPiece:
    """Trains a WordPiece vocabulary: the special tokens, every character, and the most frequent pairs joined.

    The same texts give the same vocabulary.

    Args:
        texts: gives them, and is called twice.
        vocab_size: the number of tokens; there are fewer if pairs run out.
        min_frequency: how often a pair must occur to be joined.
        progress: shows a bar.

    Raises:
        InputError: there is no word in the texts, or vocab_size does not hold the characters.
    """

    def train(tokens: list[str], size: int) -> list[str]:
        """Returns the tokens given, then those that training adds until there are `size`."""
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, min_frequency=min_frequency, special_tokens=tokens, show_progress=progress
        )
        tokenizer = WordPiece(_SPECIAL_TOKENS, lowercase=lowercase).tokenizer
        tokenizer.train_from_iterator(texts(), trainer)
        ids = tokenizer.get_vocab()
        return sorted(ids, key=ids.get)

    # The trainer numbers the characters that continue a word in the order of a hash table, and of two pairs that are
    # as frequent it joins the one with the lower numbers. Tokens that are given to it keep their order.
    characters = train(_SPECIAL_TOKENS, 0)[len(_SPECIAL_TOKENS) :]
    tokens = _SPECIAL_TOKENS + sorted(characters, key=lambda token: (token.startswith("##"), token))
    if not characters:
        raise InputError("expected text to train a vocabulary on, found no word in it; name other files")
    if len(tokens) > vocab_size:
        raise InputError(f"vocab_size: expected at least {len(tokens)} for the characters alone, got {vocab_size}")
    return WordPiece(train(tokens, vocab_size), lowercase=lowercase)


def train_bpe(texts: Iterable[str], *, vocab_size: int, min_frequency: int = 2, progress: bool = False) -> BPE:
    """Trains a byte-level BPE vocabulary: the 256 bytes, the most frequent pairs joined, and the end of text.

    The same texts give the same vocabulary.

    Args:
        vocab_size: the number of tokens; there are fewer if pairs run out.
        min_frequency: how often a pair must occur to be joined.
        progress: shows a bar.

    Raises:
        InputError: vocab_size does not hold the bytes and the end of text.
    """
    alphabet = sorted(ALPHABET)
    if vocab_size <= len(alphabet):
        raise InputError(
            f"vocab_size: expected at least {len(alphabet) + 1}, for the bytes and the end of text, got {vocab_size}"
        )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, min_frequency=min_frequency, initial_alphabet=alphabet, show_progress=progress
    )
    tokenizer = BPE([*alphabet, EOT_TOKEN], []).tokenizer
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return BPE([*sorted(ids, key=ids.get), EOT_TOKEN], merges)


def train_char(texts: Iterable[str]) -> BPE:
    """Makes a vocabulary of characters, as a BPE whose merges only spell them, so that it can encode anything.

    Its tokens are the 256 bytes, the characters of the texts that take more than one byte, what these begin with,
    and the end of text.
    """
    characters = {char for text in texts for char in text}
    letter = {byte: char for char, byte in ALPHABET.items()}
    spelled = ["".join(letter[byte] for byte in char.encode()) for char in sorted(characters)]
    merges = dict.fromkeys((word[:end], word[end]) for word in spelled for end in range(1, len(word)))
    return BPE([*sorted(ALPHABET), *("".join(merge) for merge in merges), EOT_TOKEN], list(merges))
