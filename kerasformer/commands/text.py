"""Commands that make of text what a model learns from: a vocabulary, and shards of token ids."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import tyro

from kerasformer.config.run import OnBad
from kerasformer.errors import InputError
from kerasformer.flags import parse, plain


def tokenizer(arguments: list[str]) -> None:
    """Train a vocabulary, wordpiece for a BERT, else for a GPT: `kerasformer tokenizer bpe --output DIR FILES...`."""

    def options(
        kind: tyro.conf.Positional[Literal["wordpiece", "bpe", "char"]],
        files: tyro.conf.Positional[tuple[Path, ...]],
        output: Path,
        vocab_size: int = 8000,
        lowercase: bool = True,
        text_column: str = "text",
        encoding: str = "utf-8",
        on_bad: OnBad = "few",
    ) -> tuple:
        """Train a vocabulary.

        Args:
            files: .txt, .jsonl, .json (each also as .gz), .parquet, or folders of them
            vocab_size: of wordpiece and bpe: the number of tokens; there are fewer if pairs to join run out
            lowercase: of wordpiece: make no difference between upper and lower case, and drop accents
            text_column: of the texts in JSON and .parquet
            encoding: of .txt and JSON without a byte order mark
            on_bad: few leaves out up to one in a hundred records that cannot be used, with a warning that counts
                them; skip up to half of all; with stop the first is an error
        """
        reading = {"text_column": text_column, "encoding": encoding, "on_bad": on_bad}
        return kind, files, output, vocab_size, lowercase, reading

    kind, files, output, vocab_size, lowercase, reading = parse(options, arguments, "tokenizer", tokenizer.__doc__)
    given = {plain(word).removeprefix("no-") for word in arguments if word.startswith("--")}
    for flag, kinds in {"vocab-size": ("wordpiece", "bpe"), "lowercase": ("wordpiece",)}.items():
        if flag in given and kind not in kinds:
            raise InputError(f"expected no --{flag} for {kind}, got one; it is for {' and '.join(kinds)}: leave it out")
    from kerasformer.data.documents import Texts
    from kerasformer.files import new_folder
    from kerasformer.text import vocabulary

    def texts() -> Iterator[str]:
        return (piece.text for piece in Texts(files, validation=0.0, **reading).pieces())

    settings = {"vocab_size": vocab_size, "progress": sys.stderr.isatty()}
    with new_folder(output) as folder:
        match kind:
            case "wordpiece":
                trained = vocabulary.train_wordpiece(texts, lowercase=lowercase, **settings)
            case "bpe":
                trained = vocabulary.train_bpe(texts(), **settings)
            case "char":
                trained = vocabulary.train_char(texts())
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
        on_bad: OnBad = "few",
    ) -> dict:
        """Tokenize texts to train a language model on.

        Args:
            files: .txt, .jsonl, .json (each also as .gz), .parquet, or folders of them
            documents: what a document of a .txt file is: the file or each line of it
            validation: share to hold out: of one .txt file its last characters, else one document of every 1 / share
            validation_files: files to hold out instead
            text_column: of the texts in JSON and .parquet
            encoding: of .txt and JSON without a byte order mark
            on_bad: few leaves out up to one in a hundred records that cannot be used, with a warning that counts
                them; skip up to half of all; with stop the first is an error
            seed: of the draw of documents
        """
        return locals()

    texts = parse(options, arguments, "prepare", prepare.__doc__)
    tokenizer, output = texts.pop("tokenizer"), texts.pop("output")
    from kerasformer.data.documents import Texts
    from kerasformer.data.prepare import prepare as write
    from kerasformer.text.folder import read_tokenizer

    write(Texts(**texts), output, tokenizer=read_tokenizer(tokenizer))
    print(output)
