import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerasformer.errors import InputError
from kerasformer.text.vocabulary import train_wordpiece

TEXT = (
    """The low lower lowest slow glow, the new newer newest renew.
The wide wider widest width; the deep deeper deepest depth! Café, naïve, 中文 – 123 12 1.
"""
    * 3
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TRAIN = """
import sys
from kerasformer.text.vocabulary import train_wordpiece
print(repr(train_wordpiece(sys.argv[1:], vocab_size=200).vocab))
"""


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_special_tokens_then_characters_then_joined_pieces(corpus):
    vocab = train_wordpiece([corpus], vocab_size=80).vocab
    assert vocab[:5] == SPECIAL and len(vocab) == len(set(vocab)) == 80
    starts = [token for token in vocab[5:] if len(token) == 1]
    continues = [token for token in vocab if token.startswith("##") and len(token) == 3]
    assert vocab[5 : 5 + len(starts) + len(continues)] == sorted(starts) + sorted(continues)
    assert {"low", "the"} <= set(vocab)


def test_it_can_spell_its_corpus(corpus):
    for lowercase in (True, False):
        wordpiece = train_wordpiece([corpus], vocab_size=100, lowercase=lowercase)
        assert wordpiece.normalization["lowercase"] == lowercase
        assert wordpiece.unk_id not in wordpiece.encode(TEXT.splitlines(), max_length=500).token_ids
        assert ("T" in wordpiece.vocab) != lowercase


def test_other_processes_and_thread_counts_train_the_same_vocabulary(corpus):
    # The trainer's hash tables are seeded anew in each process, so that one process alone would prove nothing.
    def run(threads):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", TRAIN, str(corpus)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    runs = {run(threads) for threads in ("1", "2", "3", "4")}
    assert runs == {repr(train_wordpiece([corpus], vocab_size=200).vocab) + "\n"}


def test_several_files_count_together(tmp_path, corpus):
    halves = [tmp_path / "a.txt", tmp_path / "b.txt"]
    lines = TEXT.splitlines(keepends=True)
    for path, part in zip(halves, (lines[::2], lines[1::2]), strict=True):
        path.write_text("".join(part), encoding="utf-8")
    assert train_wordpiece(halves, vocab_size=120).vocab == train_wordpiece([corpus], vocab_size=120).vocab


def test_min_frequency(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("ab ab cd\n")
    assert set(train_wordpiece([path], vocab_size=50).vocab) == {*SPECIAL, *"abcd", "##b", "##d", "ab"}
    assert "cd" in train_wordpiece([path], vocab_size=50, min_frequency=1).vocab


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "text.txt: expected a text file, found none"),
        (b"", "text.txt: .* empty file"),
        (b" \n\t\n", "found no word in 1 files"),
        (b"one\ntwo\n\xff\n", "text.txt, line 3: expected UTF-8, got byte 0xff"),
        (b"abc", "vocab_size: expected at least 10 .*, got 9"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        train_wordpiece([path], vocab_size=9)


def test_no_files(tmp_path):
    with pytest.raises(InputError, match="no word in 0 files"):
        train_wordpiece([], vocab_size=100)
    with pytest.raises(InputError, match="found a folder"):
        train_wordpiece([tmp_path], vocab_size=100)


def test_the_smallest_vocabulary_holds_the_characters(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abc")
    assert train_wordpiece([path], vocab_size=10).vocab == [*SPECIAL, "a", "b", "c", "##b", "##c"]


def test_training_needs_no_tensorflow():
    code = "import sys, kerasformer.text.vocabulary; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False).returncode == 0
