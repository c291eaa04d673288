"""Preparing text: which documents go where, what the streams of token ids hold, and what is refused."""

import gzip
import json
import re
import subprocess
import sys
import tempfile
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kerasformer.data import documents
from kerasformer.data.corpus import read_corpus
from kerasformer.data.documents import Texts
from kerasformer.data.prepare import _Speed, load, prepare
from kerasformer.data.readers import text as reading
from kerasformer.errors import InputError
from kerasformer.text.bpe import ALPHABET, BPE

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ċ", "Ċ"), ("Ġ", "Ġ"), ("a", "a"), ("aa", "aa")]
TOKENIZER = BPE([*ALPHABET, *("".join(merge) for merge in MERGES), "<|endoftext|>"], MERGES)
SHAKESPEARE = Path(__file__).parent.parent.parent / "shared/data/tinyshakespeare.txt"

# White space and what GPT-2's pattern does with it is what pieces can get wrong.
texts = st.text(st.sampled_from("the a\n \r\t'sé中\u2028\x1c\x85\xa0.1"), max_size=60)
documents_of_text = st.lists(texts.filter(lambda text: text and not text.isspace()), min_size=1, max_size=12)


def ids_of(*parts: str, ends: bool = True) -> list[int]:
    return list(chain.from_iterable([*ids, *[TOKENIZER.eot_id] * ends] for ids in TOKENIZER.tokenize(parts)))


def stream(corpus, split="train") -> list[int]:
    return list(chain.from_iterable(array.tolist() for array in corpus.split(split).arrays))


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return path


def records(texts) -> str:
    return "".join(json.dumps({"text": text, "other": 1}) + "\n" for text in texts)


def refusal(*files, output="out", **options) -> str:
    """What preparing says; it leaves nothing behind."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(InputError) as caught:
        prepare(Texts(files, **{"validation": 0, **options}), output, tokenizer=TOKENIZER)
    assert sorted(Path().rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Streams


@settings(max_examples=50)
@given(documents=documents_of_text, shard_tokens=st.integers(1, 50), kind=st.sampled_from(["files", "jsonl", "lines"]))
def test_the_stream_is_each_document_and_an_end_of_text(documents, shard_tokens, kind):
    if kind == "lines":
        documents = [text.replace("\n", "-").replace("\r", "-") for text in documents]
    with tempfile.TemporaryDirectory() as folder:
        if kind == "files":
            files = [write(Path(folder, f"{i:02}.txt"), text) for i, text in enumerate(documents)]
        elif kind == "lines":
            files = [write(Path(folder, "a.txt"), *(f"{text}\r\n" for text in documents))]
        else:
            files = [write(Path(folder, "a.jsonl"), records(documents))]
        source = Texts(files, validation=0, documents="lines" if kind == "lines" else "files")
        counts = prepare(source, Path(folder, "out"), tokenizer=TOKENIZER, shard_tokens=shard_tokens)["train"]
        corpus = read_corpus(Path(folder, "out"))
        expected = ids_of(*documents)
        assert stream(corpus) == stream(load(source, tokenizer=TOKENIZER)) == expected
        sizes = [len(array) for array in corpus.split("train").arrays]
        assert sizes[:-1] == [shard_tokens] * (len(sizes) - 1) and 0 < sizes[-1] <= shard_tokens
    assert counts == corpus.split("train").counts
    assert (counts.tokens, counts.documents) == (len(expected), len(documents))
    assert (counts.characters, counts.bytes) == (len("".join(documents)), len("".join(documents).encode()))


@settings(max_examples=200)
@given(text=texts, size=st.integers(1, 20))
@example("the  the\n\n the \n'\n's", 3)
@example("a" * 50, 4)
def test_pieces_have_the_tokens_of_the_whole(text, size):
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    pieces = list(documents._at_white_space(chunks))
    assert "".join(pieces) == text
    assert ids_of(*pieces, ends=False) == ids_of(text, ends=False)


def test_a_long_document_is_read_in_pieces(monkeypatch):
    monkeypatch.setattr(reading, "CHUNK_BYTES", 97)
    text = "To bé, or not\r\nto be: that's the  question.\n\n" * 50
    found = list(Texts([write(Path("a.txt"), text)], validation=0).pieces())
    assert len(found) > 20 and max(len(piece.text) for piece in found) < 150
    assert "".join(piece.text for piece in found) == text
    assert [piece.begins for piece in found] == [True] + [False] * (len(found) - 1)
    assert [piece.ends for piece in found] == [False] * (len(found) - 1) + [True]


def test_what_is_small_is_batched_and_what_is_large_is_not_gathered(monkeypatch):
    sizes = []
    monkeypatch.setattr("kerasformer.data.prepare._BATCH", 5000)
    monkeypatch.setattr("os.cpu_count", lambda: 1)

    class Spy(BPE):
        def tokenize(self, texts):
            sizes.append(sum(map(len, texts)))
            return super().tokenize(texts)

    spy = Spy(TOKENIZER.vocab, TOKENIZER.merges)
    write(Path("a.txt"), "the cat\n" * 40_000)
    load(Texts(["a.txt"], validation=0, documents="lines"), tokenizer=spy)
    load(Texts(["a.txt"], validation=0), tokenizer=spy)
    assert max(sizes) < 5000 + 2 * reading.CHUNK_BYTES
    assert len(sizes) < 1000


# Which part is held out


@given(text=texts.filter(lambda text: len(text) > 12), share=st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_the_tail_of_a_single_document_is_held_out_to_the_character(text, share):
    with tempfile.TemporaryDirectory() as folder:
        corpus = load(Texts([write(Path(folder, "a.txt"), text)], validation=share), tokenizer=TOKENIZER)
    kept = len(text) * (100 - round(share * 100)) // 100
    assert stream(corpus) == ids_of(text[:kept], ends=False)
    assert stream(corpus, "validation") == ids_of(text[kept:], ends=False)
    assert corpus.split("train").counts.documents == corpus.split("validation").counts.documents == 1


def test_the_split_of_tiny_shakespeare_is_the_usual_one():
    if not SHAKESPEARE.is_file():
        pytest.skip(f"{SHAKESPEARE.name} is not beside the repository")
    text = SHAKESPEARE.read_text(encoding="utf-8")
    byte = BPE([*ALPHABET, "<|endoftext|>"], [])  # all its characters are ASCII
    corpus = load(Texts([SHAKESPEARE]), tokenizer=byte)
    assert [corpus.split(name).counts.tokens for name in ("train", "validation")] == [1_003_854, 111_540]
    assert byte.decode(stream(corpus)) == text[: int(len(text) * 0.9)]
    assert byte.decode(stream(corpus, "validation")) == text[int(len(text) * 0.9) :]


def held_out(count, share=0.1, seed=0) -> list[int]:
    write(Path("a.jsonl"), records(f"document {i}" for i in range(count)))
    pieces = list(Texts(["a.jsonl"], validation=share, seed=seed).pieces())
    assert [piece.text for piece in pieces] == [f"document {i}" for i in range(count)]
    return [i for i, piece in enumerate(pieces) if piece.split == "validation"]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.005, 1 / 3, 0.75])
def test_one_document_of_every_so_many_is_held_out(share):
    found = held_out(2000, share)
    assert abs(len(found) - 2000 * share) <= 1
    assert max(b - a for a, b in pairwise(found)) < 2 / share + 1


def test_the_draw_of_documents_depends_on_the_seed_alone():
    found = held_out(500)
    assert held_out(500) == found
    assert len({number % 10 for number in found}) == 10
    assert held_out(1000)[:50] == found  # and not on what is added later
    assert held_out(500, seed=1) != found


def test_a_share_too_small_to_write_down_is_none():
    assert held_out(3, share=1e-12) == []


def test_files_can_be_held_out_by_name():
    for name in ("a", "b", "c"):
        write(Path(f"books/{name}.txt"), f"the {name}")
    for files in (["books"], ["books/a.txt", "books/b.txt", "books/c.txt"]):
        corpus = load(Texts(files, validation_files=[Path("books").resolve() / "b.txt"]), tokenizer=TOKENIZER)
        assert stream(corpus) == ids_of("the a", "the c")
        assert stream(corpus, "validation") == ids_of("the b")


# Files


def test_files_of_each_kind_and_folders_read_alike():
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    found = ["the cat\nsat", "é中"]
    write(Path("a.jsonl"), records(["", found[0], " \n", found[1]]))
    Path("b.jsonl.gz").write_bytes(gzip.compress(Path("a.jsonl").read_bytes()))
    parquet.write_table(pyarrow.table({"other": [1, 2, 3], "text": [*found, ""]}), "c.parquet")
    for i, text in enumerate(found):
        Path("d").mkdir(exist_ok=True)
        Path(f"d/{i}.txt.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
        write(Path(f"e/deep/{i}.TXT"), text)
    write(Path("e/.hidden/x.txt"), "not this")
    write(Path("e/notes.md"), "nor this")
    write(Path("f.txt"), f"{found[1]}\n\n  \n{found[1]}")
    for path in ("a.jsonl", "b.jsonl.gz", "c.parquet", "d", "e"):
        corpus = load(Texts([path], validation=0), tokenizer=TOKENIZER)
        assert stream(corpus) == ids_of(*found), path
    lines = load(Texts(["f.txt"], validation=0, documents="lines"), tokenizer=TOKENIZER)
    assert stream(lines) == ids_of(found[1], found[1])
    several = load(Texts(["d", "a.jsonl", "d/0.txt.gz"], validation=0), tokenizer=TOKENIZER)
    assert stream(several) == ids_of(*found, *found)  # each file once


def test_other_encodings_and_columns():
    Path("a.txt").write_bytes("café".encode("utf-16"))
    assert stream(load(Texts(["a.txt"], validation=0, encoding="utf-16"), tokenizer=TOKENIZER)) == ids_of("café")
    Path("a.jsonl").write_bytes('{"body": "café"}'.encode("latin-1"))
    source = Texts(["a.jsonl"], validation=0, encoding="latin-1", text_column="body")
    assert stream(load(source, tokenizer=TOKENIZER)) == ids_of("café")


def test_a_text_can_spell_the_end_of_text():
    corpus = load(Texts([write(Path("a.txt"), "<|endoftext|>")], validation=0), tokenizer=TOKENIZER)
    assert stream(corpus).count(TOKENIZER.eot_id) == 1


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", "", {}, "a.txt: expected text, got an empty file; remove it"),
        ("a.md", "text", {}, "a.md: unknown kind of file; expected .txt, .jsonl, .ndjson, .json (each"),
        ("a.txt", b"one\ntwo\ncaf\xe9", {}, "a.txt:3: byte 0xe9 is not utf-8; name the encoding of the file, such as"),
        ("a.txt", b"one\n" * 40_000 + b"\xe9", {}, "a.txt:40001: byte 0xe9 is not utf-8"),
        (
            "a.txt",
            b"caf\xc3",
            {},
            "a.txt:1: byte 0xc3 is not utf-8; name the encoding of the file, such as latin-1 "
            "(--data.encoding of train, --encoding of prepare and tokenizer, encoding= in Python)",
        ),
        ("a.txt", "text", {"encoding": "klingon"}, "unknown encoding 'klingon'; expected one such as utf-8"),
        ("a.txt", "text", {"encoding": "hex"}, "unknown encoding 'hex'; expected one such as utf-8"),
        ("a.txt.gz", b"text", {}, "a.txt.gz: cannot be read: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], {}, "a.txt.gz: cannot be read: Compressed file ended"),
        ("a.txt", " \n\n", {"documents": "lines"}, "expected text to train on, found none that is not blank"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"body": 1}',
            {},
            "a.jsonl:2: expected one column 'text', found none among 'body'; "
            "name that of the texts (--data.text_column of train, --text-column of prepare and tokenizer, text_column= "
            "in Python)",
        ),
        ("a.jsonl", '{"text": "a"}\n\n{"text": null}', {}, "a.jsonl:3: the text is missing; mend or remove it"),
        ("a.jsonl", '{"text": 3}', {}, "a.jsonl:1: the text is not a string but of type int"),
        ("a.jsonl", r'{"text": "\ud800"}', {}, "a.jsonl:1: the text holds half of a surrogate pair"),
        ("a.jsonl", '["a"]', {}, "a.jsonl:1: expected an object of named values, found a list"),
        ("a.jsonl", '{"text": "a"}\n{"te', {}, "a.jsonl:2: expected one JSON object a line"),
        ("a.parquet", b"PAR1", {}, "a.parquet: not a Parquet file that can be read"),
        ("a/notes.md", "text", {}, "a: expected text files in this folder, found none; add .txt"),
        ("a.txt", "text", {"validation": 1}, "expected a share of at least 0 and below 1 for validation, got 1"),
        ("a.txt", "text", {"validation": float("nan")}, "and below 1 for validation, got nan"),
        (
            "a.txt",
            "text",
            {"validation_files": "b.txt"},
            "expected validation_files as a sequence of paths, got 'b.txt'",
        ),
        ("a.txt", "text", {"documents": "words"}, "expected documents as files or lines, got 'words'"),
        ("a.txt", "text", {"seed": -1}, "expected a seed of 0 or more, got -1"),
        ("a.txt", "text", {"validation_files": ["a.txt"]}, "expected text files to train on, got none; name some"),
        ("a.txt", "text", {"validation_files": ["b.txt"]}, "expected a file or folder of texts, found none at 'b.txt'"),
        ("a.txt", "a", {"validation": 0.1}, "expected text to train on, found none"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": "b"}',
            {"validation": 0.1},
            "expected at least 10 documents to hold out a share of 0.1, got 2; hold out a larger share",
        ),
    ],
)
def test_what_cannot_be_prepared_is_refused(name, content, options, message):
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refusal(path.parts[0], **options)


def test_too_few_files_to_hold_out_any_are_refused_before_they_are_read():
    for name in ("a", "b", "c"):
        Path(f"{name}.txt").write_bytes(b"\xff")
    assert "expected at least 4 documents to hold out a share of 0.3, got 3" in refusal(
        "a.txt", "b.txt", "c.txt", validation=0.3
    )


def test_blank_files_to_validate_on_are_refused():
    write(Path("a.txt"), "text")
    write(Path("b.txt"), "\n \n")
    said = refusal("a.txt", validation_files=["b.txt"], documents="lines")
    assert said == "expected text in the files to validate on, found none that is not blank; name others"


def test_no_files_are_refused():
    assert refusal() == "expected text files to train on, got none; name some"
    assert "found none at 'none.txt'; check the path" in refusal("none.txt")


def test_an_output_in_use_is_refused():
    write(Path("a.txt"), "text")
    assert refusal("a.txt", output="a.txt") == (
        "expected a new or empty folder, got a.txt, which is in use; name another or remove it"
    )


def test_parquet_without_the_column_is_refused():
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"body": ["a"]}), "a.parquet")
    assert "a.parquet: expected one column 'text', found none among 'body'; name that of" in refusal("a.parquet")
    parquet.write_table(pyarrow.table({"text": ["a", None]}), "a.parquet")
    assert "a.parquet: row 2: the text is missing" in refusal("a.parquet")


def test_nothing_is_left_of_what_is_interrupted():
    class Stopping(BPE):
        def tokenize(self, texts):
            raise KeyboardInterrupt

    write(Path("a.txt"), "text")
    with pytest.raises(KeyboardInterrupt):
        prepare(Texts(["a.txt"]), "out", tokenizer=Stopping(TOKENIZER.vocab, TOKENIZER.merges))
    assert sorted(Path().iterdir()) == [Path("a.txt")]


# Progress


def test_a_line_now_and_then_tells_how_far_it_is(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("kerasformer.data.prepare._Speed", partial(_Speed, every=0.0))
    prepare(Texts([write(Path("a.txt"), "the cat")], validation=0), "out", tokenizer=TOKENIZER)
    said, result = caplog.messages
    assert re.fullmatch(r"6 tokens in 1 document, \d+\.\d MB/s", said)
    assert result == "train: 6 tokens in 1 document, 1.17 bytes a token"


def test_a_terminal_shows_it_in_place(monkeypatch, caplog, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    prepare(Texts([write(Path("a.txt"), "the cat")], validation=0), "out", tokenizer=TOKENIZER)
    assert "6 tokens in 1 document, " in capsys.readouterr().err
    assert caplog.messages == []


# From the command line


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "-m", "kerasformer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prepares_what_python_reads():
    TOKENIZER.save("bpe")
    write(Path("texts/a.jsonl"), records(f"the document {i}" for i in range(30)))
    write(Path("texts/b.txt"), "the cat\n" * 10)
    options = ["--tokenizer", "bpe", "--output", "out", "--documents", "lines", "--seed", "3"]
    done = run("prepare", *options, "texts", "--validation", "0.25")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert "train: " in done.stderr and "tokens in 30 documents" in done.stderr
    expected = load(Texts(["texts"], validation=0.25, documents="lines", seed=3), tokenizer=TOKENIZER)
    corpus = read_corpus("out")
    for split in ("train", "validation"):
        assert stream(corpus, split) == stream(expected, split)
        assert corpus.split(split).counts == expected.split(split).counts
    again = run("prepare", *options, "texts")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "kerasformer: expected a new or empty folder, got out, which is in use; name another or remove it\n"
    )


def test_preparing_needs_no_tensorflow():
    code = "import sys, kerasformer.data.prepare; sys.exit('tensorflow' in sys.modules)"
    environment_root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=environment_root, check=False).returncode == 0
