"""Trains vocabularies from text files."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from tokenizers import trainers

from kerasformer.errors import InputError
from kerasformer.text.lines import read_lines
from kerasformer.text.wordpiece import WordPiece

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_wordpiece(
    files: Sequence[Path], *, vocab_size: int, lowercase: bool = True, min_frequency: int = 2, progress: bool = False
) -> WordPiece:
    """Trains a WordPiece vocabulary: the special tokens, every character, and the most frequent pairs joined.

    The same files give the same vocabulary.

    Args:
        files: UTF-8 text.
        vocab_size: the number of tokens; there are fewer if pairs run out.
        min_frequency: how often a pair must occur to be joined.
        progress: shows a bar.

    Raises:
        InputError: a file is missing, empty or not UTF-8, or vocab_size does not hold the characters.
    """
    paths = [Path(file) for file in files]
    if empty := [str(path) for path in paths if path.is_file() and path.stat().st_size == 0]:
        raise InputError(f"{', '.join(empty)}: expected text, got an empty file")

    def train(tokens: list[str], size: int) -> list[str]:
        """Returns the tokens given, then those that training adds until there are `size`."""
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, min_frequency=min_frequency, special_tokens=tokens, show_progress=progress
        )
        tokenizer = WordPiece(_SPECIAL_TOKENS, lowercase=lowercase).tokenizer
        tokenizer.train_from_iterator(chain.from_iterable(map(read_lines, paths)), trainer)
        ids = tokenizer.get_vocab()
        return sorted(ids, key=ids.get)

    # The trainer numbers the characters that continue a word in the order of a hash table, and of two pairs that are
    # as frequent it joins the one with the lower numbers. Tokens that are given to it keep their order.
    characters = train(_SPECIAL_TOKENS, 0)[len(_SPECIAL_TOKENS) :]
    tokens = _SPECIAL_TOKENS + sorted(characters, key=lambda token: (token.startswith("##"), token))
    if not characters:
        raise InputError(f"files: expected text, found no word in {len(paths)} files")
    if len(tokens) > vocab_size:
        raise InputError(f"vocab_size: expected at least {len(tokens)} for the characters alone, got {vocab_size}")
    return WordPiece(train(tokens, vocab_size), lowercase=lowercase)
