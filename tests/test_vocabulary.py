import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from kerasformer.cli import main
from kerasformer.errors import InputError
from kerasformer.text.bpe import ALPHABET, EOT_TOKEN, bytes_of
from kerasformer.text.folder import read_tokenizer
from kerasformer.text.vocabulary import train_bpe, train_char, train_wordpiece

TEXT = (
    """The low lower lowest slow glow, the new newer newest renew.
The wide wider widest width; the deep deeper deepest depth! Café, naïve, 中文 – 123 12 1.
"""
    * 3
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TRAIN = """
import sys
from kerasformer.text.vocabulary import train_bpe, train_char, train_wordpiece
text = open(sys.argv[1], encoding="utf-8").read()
bpe = train_bpe([text], vocab_size=420, min_frequency=1)
print(repr([train_wordpiece(lambda: [text], vocab_size=200).vocab, bpe.vocab, bpe.merges, train_char([text]).vocab]))
"""


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_special_tokens_then_characters_then_joined_pieces():
    vocab = train_wordpiece(lambda: [TEXT], vocab_size=80).vocab
    assert vocab[:5] == SPECIAL and len(vocab) == len(set(vocab)) == 80
    starts = [token for token in vocab[5:] if len(token) == 1]
    continues = [token for token in vocab if token.startswith("##") and len(token) == 3]
    assert vocab[5 : 5 + len(starts) + len(continues)] == sorted(starts) + sorted(continues)
    assert {"low", "the"} <= set(vocab)


def test_it_can_spell_its_corpus():
    for lowercase in (True, False):
        wordpiece = train_wordpiece(lambda: [TEXT], vocab_size=100, lowercase=lowercase)
        assert wordpiece.normalization["lowercase"] == lowercase
        assert wordpiece.unk_id not in wordpiece.encode(TEXT.splitlines(), max_length=500).token_ids
        assert ("T" in wordpiece.vocab) != lowercase


def test_other_processes_and_thread_counts_train_the_same_vocabulary(corpus):
    # The trainer's hash tables are seeded anew in each process, so that one process alone would prove nothing.
    def run(threads):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", TRAIN, str(corpus)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    [trained] = {run(threads) for threads in ("1", "2", "3", "4")}
    bpe = train_bpe([TEXT], vocab_size=420, min_frequency=1)
    here = [train_wordpiece(lambda: [TEXT], vocab_size=200).vocab, bpe.vocab, bpe.merges, train_char([TEXT]).vocab]
    assert trained == repr(here) + "\n"


def test_several_texts_count_together():
    lines = TEXT.splitlines(keepends=True)
    apart = train_wordpiece(lambda: ["".join(lines[::2]), "".join(lines[1::2])], vocab_size=120)
    assert apart.vocab == train_wordpiece(lambda: [TEXT], vocab_size=120).vocab


def test_min_frequency():
    texts = ["ab ab cd\n"]
    assert set(train_wordpiece(lambda: texts, vocab_size=50).vocab) == {*SPECIAL, *"abcd", "##b", "##d", "ab"}
    assert "cd" in train_wordpiece(lambda: texts, vocab_size=50, min_frequency=1).vocab


@pytest.mark.parametrize(
    ("text", "message"),
    [(" \n\t\n", "found no word in it"), ("abc", "vocab_size: expected at least 10 .*, got 9")],
)
def test_texts_that_make_no_vocabulary(text, message):
    with pytest.raises(InputError, match=message):
        train_wordpiece(lambda: [text], vocab_size=9)


def test_the_smallest_vocabulary_holds_the_characters():
    assert train_wordpiece(lambda: ["abc"], vocab_size=10).vocab == [*SPECIAL, "a", "b", "c", "##b", "##c"]


def test_bpe_bytes_then_joined_pairs_then_the_end_of_text():
    bpe = train_bpe([TEXT], vocab_size=300)
    assert bpe.vocab[:256] == sorted(ALPHABET) and bpe.vocab[-1] == EOT_TOKEN and bpe.vocab_size == 300
    assert bpe.vocab[256:-1] == ["".join(merge) for merge in bpe.merges]
    assert "Ġthe" in bpe.vocab and bpe.decode(bpe.tokenize([TEXT])[0]) == TEXT


def test_the_smallest_bpe_holds_the_bytes_alone():
    assert train_bpe([TEXT], vocab_size=257).vocab == [*sorted(ALPHABET), EOT_TOKEN]
    with pytest.raises(InputError, match="vocab_size: expected at least 257, .* got 256"):
        train_bpe([TEXT], vocab_size=256)


def test_bpe_joins_no_pair_that_is_rarer_than_asked():
    assert train_bpe(["ab ab cd\n"], vocab_size=300).merges == [("a", "b")]
    assert ("c", "d") in train_bpe(["ab ab cd\n"], vocab_size=300, min_frequency=1).merges


def test_bpe_learns_line_ends_and_white_space():
    text = "def f():\r\n        return 1\n\n\n" * 5
    vocab = {bytes_of(token) for token in train_bpe([text], vocab_size=400).vocab}
    assert {b"\r\n       ", b"\n\n"} <= vocab


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "char"])
def test_the_command_reads_records_and_compressed_text(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("one.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in TEXT.splitlines()))
    Path("two.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    Path("plain.txt").write_text(TEXT + TEXT)
    size = [] if kind == "char" else ["--vocab-size", "300"]
    for output, files in {
        "mixed": ["one.jsonl", "two.txt.gz", "--text-column", "body"],
        "vocab-size": ["plain.txt"],
    }.items():
        assert main(["tokenizer", kind, *files, "--output", output, *size]) == 0
        assert capsys.readouterr().out == output + "\n"
    mixed, plain = (read_tokenizer(Path(folder)).vocab for folder in ("mixed", "vocab-size"))
    assert mixed == plain


def test_characters():
    bpe = train_char(["naïve 中中", "丁 🙂"])
    assert bpe.vocab[:256] == sorted(ALPHABET) and bpe.vocab[-1] == EOT_TOKEN
    beginnings = ["丁".encode()[:2], "🙂".encode()[:2], "🙂".encode()[:3]]
    assert [bytes_of(token) for token in bpe.vocab[256:-1]] == [
        "ï".encode(),
        beginnings[0],
        "丁".encode(),
        "中".encode(),
        *beginnings[1:],
        "🙂".encode(),
    ]
    text = "naïve 中丁🙂"
    assert [bpe.decode_bytes([i]).decode() for i in bpe.tokenize([text])[0]] == list(text)
    assert bpe.decode(bpe.tokenize(["élan 串 🙃"])[0]) == "élan 串 🙃"


def test_training_needs_no_tensorflow():
    code = "import sys, kerasformer.text.vocabulary; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False).returncode == 0


@pytest.mark.parametrize("train", [lambda: train_char([TEXT]), lambda: train_wordpiece(lambda: [TEXT], vocab_size=80)])
def test_files_that_cannot_be_written_are_an_error_of_the_operating_system(tmp_path, train):
    tokenizer = train()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # bytes of any file
    try:
        with pytest.raises(OSError, match="File too large"):
            tokenizer.save(tmp_path / "tokenizer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*(tmp_path / "tokenizer").iterdir()]
