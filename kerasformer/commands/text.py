"""Commands that make of text what a model learns from: a vocabulary, and shards of token ids."""

import sys
from pathlib import Path
from typing import Literal

import tyro

from kerasformer.errors import InputError
from kerasformer.flags import parse, plain


def tokenizer(arguments: list[str]) -> None:
    """Train a vocabulary: `kerasformer tokenizer wordpiece|bpe|char --vocab-size 8000 --output DIR FILES...`."""

    def options(
        kind: tyro.conf.Positional[Literal["wordpiece", "bpe", "char"]],
        files: tyro.conf.Positional[tuple[Path, ...]],
        output: Path,
        vocab_size: int = 8000,
        lowercase: bool = True,
        text_column: str = "text",
        encoding: str = "utf-8",
    ) -> tuple:
        return kind, files, output, vocab_size, lowercase, {"text_column": text_column, "encoding": encoding}

    kind, files, output, vocab_size, lowercase, reading = parse(options, arguments, "tokenizer", tokenizer.__doc__)
    given = {plain(word).removeprefix("no-") for word in arguments}
    of_kinds = {"vocab-size": ("wordpiece", "bpe"), "lowercase": ("wordpiece",)}
    of_kinds |= dict.fromkeys(("text-column", "encoding"), ("bpe", "char"))
    for flag, kinds in of_kinds.items():
        if flag in given and kind not in kinds:
            raise InputError(f"expected no --{flag} for {kind}, got one; it is for {' and '.join(kinds)}: leave it out")
    from kerasformer.data.documents import Texts
    from kerasformer.files import new_folder
    from kerasformer.text import vocabulary

    texts = (piece.text for piece in Texts(files, validation=0.0, **reading).pieces())
    progress = sys.stderr.isatty()
    with new_folder(output) as folder:
        if kind == "wordpiece":
            trained = vocabulary.train_wordpiece(files, vocab_size=vocab_size, lowercase=lowercase, progress=progress)
        elif kind == "bpe":
            trained = vocabulary.bpe_of(texts, vocab_size=vocab_size, progress=progress)
        else:
            trained = vocabulary.char_of(texts)
        trained.save(folder)
    print(output)


def prepare(arguments: list[str]) -> None:
    """Tokenize texts to train a language model on: `kerasformer prepare --tokenizer DIR --output DIR FILES...`."""

    def options(
        files: tyro.conf.Positional[tuple[Path, ...]],
        tokenizer: Path,
        output: Path,
        documents: Literal["files", "lines"] = "files",
        validation: float = 0.1,
        validation_files: tuple[Path, ...] = (),
        text_column: str = "text",
        encoding: str = "utf-8",
        seed: int = 0,
    ) -> tuple[Path, Path, tuple]:
        """Tells of the flags.

        Args:
            files: .txt, .jsonl (each also as .gz), .parquet, or folders of them
            documents: what a document of a .txt file is: the file or each line of it
            validation: share to hold out: of one .txt file its last characters, else one document of every 1 / share
            validation_files: files to hold out instead
            seed: of the draw of documents
        """
        return tokenizer, output, (files, validation, validation_files, documents, text_column, encoding, seed)

    tokenizer, output, texts = parse(options, arguments, "prepare", prepare.__doc__)
    from kerasformer.data.documents import Texts
    from kerasformer.data.prepare import prepare as write
    from kerasformer.text.folder import read_tokenizer

    write(Texts(*texts), output, tokenizer=read_tokenizer(tokenizer))
    print(output)
