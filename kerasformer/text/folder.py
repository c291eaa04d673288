"""The tokenizer of a folder, whichever it is."""

from pathlib import Path

from kerasformer.errors import InputError
from kerasformer.files import read_json
from kerasformer.text.bpe import BPE
from kerasformer.text.tokenizer_files import WHOLE
from kerasformer.text.wordpiece import WordPiece

_KINDS = {"WordPiece": WordPiece, "BPE": BPE}  # by the name of their model in tokenizer.json


def read_tokenizer(folder: str | Path) -> WordPiece | BPE:
    """Reads a tokenizer whose kind its files tell.

    Raises:
        InputError: a file is missing or malformed, or describes a tokenizer of neither kind.
    """
    whole = Path(folder) / WHOLE
    if not whole.is_file():
        return (WordPiece if whole.with_name("vocab.txt").is_file() else BPE).from_folder(folder)
    model = read_json(whole, "a tokenizer").get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if isinstance(model, dict) and kind is None:  # as the first releases of `tokenizers` wrote it
        kind = "BPE" if "merges" in model else "WordPiece"
    if kind not in _KINDS:
        raise InputError(f"{whole}: expected a tokenizer of the kind {' or '.join(_KINDS)}, got {kind}; use another")
    return _KINDS[kind].from_folder(folder)
