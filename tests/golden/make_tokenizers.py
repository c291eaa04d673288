"""Makes `tokenizers.json` with transformers: the ids that it gives with the folders of `tests/tokenizer_folders.py`.

Each text is recorded without the special tokens around it; these, and the padding's id, once for each folder.
"""

import json
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from tokenizer_folders import BPES, TEXTS, WORDPIECES, write  # noqa: E402


def record(folder: Path) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    framed = [tokenizer(text)["input_ids"] for text in TEXTS]
    start, end = (framed[0][:1], framed[0][1:]) if framed[0] else ([], [])
    if framed != [[*start, *row, *end] for row in ids]:
        raise SystemExit(f"{folder.name}: special tokens are not around each text alike")
    return {"start": start, "end": end, "pad": tokenizer.pad_token_id, "size": len(tokenizer), "ids": ids}


def main() -> None:
    golden = {}
    for kind, folders in {"wordpiece": WORDPIECES, "bpe": BPES}.items():
        with tempfile.TemporaryDirectory() as root:
            golden[kind] = {name: record(write(Path(root, name), files)) for name, files in folders.items()}
    lines = [
        f'"{kind}": {{\n' + ",\n".join(f"{json.dumps(n)}: {json.dumps(r)}" for n, r in made.items()) + "}"
        for kind, made in golden.items()
    ]
    (HERE / "tokenizers.json").write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
