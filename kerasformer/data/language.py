"""Text -> windows to train a language model on and windows to validate it on."""

import os
from collections.abc import Sequence
from pathlib import Path

from kerasformer.config.ramp import Ramp
from kerasformer.data.corpus import INDEX, read_corpus
from kerasformer.data.documents import TRAIN, VALIDATION, Texts
from kerasformer.data.prepare import load
from kerasformer.data.windows import Order, Windows
from kerasformer.errors import InputError
from kerasformer.text.tokenizer import Tokenizer

File = str | os.PathLike[str]


def language_modelling(
    source: File | Sequence[File],
    *,
    tokenizer: Tokenizer | None = None,
    max_length: int = 128,
    batch_size: int = 16,
    batch_ramp: Ramp = (),
    order: Order = "random",
    seed: int = 0,
    **texts,
) -> tuple[Windows, Windows | None]:
    """Opens a prepared folder, or tokenizes text files in memory.

    Args:
        source: a folder that `kerasformer prepare` wrote; or a text file, a folder of them, or several: of what does
            not fit memory, prepare a folder.
        tokenizer: of text files; a prepared folder has its own.
        max_length: tokens of a window.
        batch_ramp: smaller batches of the training set before those; see `Windows`.
        order: of the training windows; see `Windows`.
        seed: of the order and of the documents that are held out.
        **texts: `validation`, `validation_files`, `documents`, `text_column`, `encoding` and `on_bad` of `Texts`, for
            text files.

    Returns:
        The training windows; and those held out, if any are, of which `in_order` gives each once.

    Raises:
        InputError: a folder or file that cannot be used, text files without a tokenizer, or too little text.
    """
    if isinstance(source, str | os.PathLike) and (Path(source) / INDEX).exists():
        if given := [name for name, value in {"tokenizer": tokenizer, **texts}.items() if value is not None]:
            raise InputError(
                f"{source}: expected no {given[0]} for a prepared folder, which has been split and tokenized; "
                "leave it out or prepare the text anew"
            )
        corpus = read_corpus(source)
    elif tokenizer is None:
        raise InputError(
            f"expected a tokenizer for text files, or a folder with {INDEX} that kerasformer prepare wrote, "
            f"got {str(source)!r:.200} without one; pass tokenizer="
        )
    else:
        files = [source] if isinstance(source, str | os.PathLike) else source
        corpus = load(Texts(files, seed=seed, **texts), tokenizer=tokenizer)
    common = {"batch_size": batch_size, "max_length": max_length, "seed": seed}
    valid = Windows(corpus, VALIDATION, **common) if VALIDATION in corpus.splits else None
    return Windows(corpus, TRAIN, order=order, batch_ramp=batch_ramp, **common), valid
