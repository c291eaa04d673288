import csv
import gzip
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasformer.data.sources import Examples, check_labels, read_examples
from kerasformer.errors import InputError

ROWS = [("Shares rose", "business"), ("He scored,\ntwice", "sport"), ('A "smart" phone', "tech")]


def write_table(path, header, rows, delimiter=","):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def write_csv(path, header, rows):
    write_table(path, header, rows)


def write_tsv(path, header, rows):
    write_table(path, header, rows, "\t")


def write_jsonl(path, header, rows):
    lines = [json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n" for row in rows]
    Path(path).write_text("".join(lines), encoding="utf-8", newline="")


def write_parquet(path, header, rows):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = zip(*rows, strict=True)
    parquet.write_table(pyarrow.table(dict(zip(header, map(list, columns), strict=True))), path)


WRITERS = {".csv": write_csv, ".tsv": write_tsv, ".jsonl": write_jsonl, ".parquet": write_parquet}


def failure(source, **options):
    """The message of the InputError that reading raises: one line."""
    with pytest.raises(InputError) as caught:
        read_examples(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def failure_of(tmp_path, name, content, **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return failure(path, **options).replace(f"{tmp_path}{os.sep}", "")


@pytest.mark.parametrize("suffix", WRITERS)
def test_each_kind_of_file_reads_alike(tmp_path, suffix):
    path = tmp_path / f"news{suffix}"
    WRITERS[suffix](path, ["label", "text"], [(label, text) for text, label in ROWS])
    examples = read_examples(str(path))
    assert examples.texts == [text for text, _ in ROWS]
    assert examples.labels == [label for _, label in ROWS]
    assert examples.text_pairs is None
    assert len(examples) == len(examples.origins) == 3


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda text: not text.isspace()
)


@pytest.mark.parametrize("suffix", WRITERS)
@given(rows=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5))
def test_any_text_survives_a_round_trip(suffix, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"any{suffix}")
        WRITERS[suffix](path, ["first", "second", "class"], rows)
        # That a .tsv file is quoted shows in most files, and not in all.
        examples = read_examples(path, text="first", text_pair="second", label="class", quoting="csv")
    assert list(zip(examples.texts, examples.text_pairs, examples.labels, strict=True)) == rows


def test_origins_name_the_line_where_a_row_starts(tmp_path):
    write_csv(tmp_path / "news.csv", ["text", "label"], ROWS)
    origins = read_examples(tmp_path / "news.csv").origins
    assert [Path(origin).name for origin in origins] == ["news.csv:2", "news.csv:3", "news.csv:5"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_gzip_reads_like_the_plain_file(tmp_path, suffix):
    path = tmp_path / f"news{suffix}"
    WRITERS[suffix](path, ["text", "label"], ROWS)
    packed = tmp_path / f"news{suffix}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_examples(packed).texts == read_examples(path).texts


@pytest.mark.parametrize("name, content", [("a.csv", "text,label\nx,y\n"), ("a.jsonl", '{"text": "x", "label": "y"}')])
def test_a_byte_order_mark_is_dropped(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
    assert read_examples(tmp_path / name).texts == ["x"]


def test_other_encodings(tmp_path):
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé £5,food\n".encode("latin-1"))
    assert read_examples(tmp_path / "latin.csv", encoding="latin-1").texts == ["café £5"]
    (tmp_path / "wide.csv").write_bytes("text,label\ncafé,food\n".encode("utf-16"))
    assert read_examples(tmp_path / "wide.csv", encoding="utf-16").texts == ["café"]


def test_blank_lines_between_rows_are_skipped(tmp_path):
    (tmp_path / "a.csv").write_text("\ntext,label\n\nx,y\n\n")
    (tmp_path / "a.jsonl").write_text('\n{"text": "x", "label": "y"}\n\n')
    assert Path(read_examples(tmp_path / "a.csv").origins[0]).name == "a.csv:4"
    assert Path(read_examples(tmp_path / "a.jsonl").origins[0]).name == "a.jsonl:2"


def test_long_texts_are_read_and_the_csv_limit_is_left_alone(tmp_path):
    limit = csv.field_size_limit()
    write_csv(tmp_path / "long.csv", ["text", "label"], [("word " * 40_000, "long")])
    assert len(read_examples(tmp_path / "long.csv").texts[0]) == 200_000
    assert csv.field_size_limit() == limit


def test_json_lines_split_at_newlines_alone(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ["text", "label"], [("one\u2028two\x85three", "x")])
    assert read_examples(tmp_path / "a.jsonl").texts == ["one\u2028two\x85three"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("labels, expected", [([0, 1], ["0", "1"]), ([True, False], ["True", "False"])])
def test_whole_number_and_boolean_labels_become_strings(tmp_path, suffix, labels, expected):
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, ["text", "label"], [("x", labels[0]), ("y", labels[1])])
    assert read_examples(path).labels == expected


@pytest.fixture
def class_folders(tmp_path):
    root = tmp_path / "bbc"
    for name, text in [("tech/b.txt", "phone"), ("tech/a.txt", "laptop"), ("sport/1.txt", "goal")]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "README.txt").write_text("about")
    (root / ".cache").mkdir()
    (root / "tech" / "notes.md").write_text("not a text")
    return root


def test_class_folders(class_folders):
    examples = read_examples(class_folders)
    assert examples.texts == ["goal", "laptop", "phone"]
    assert examples.labels == ["sport", "tech", "tech"]
    assert examples.origins[0] == str(class_folders / "sport" / "1.txt")


def test_unlabelled_folders_include_their_own_texts(class_folders):
    examples = read_examples(class_folders, label=None)
    assert examples.texts == ["about", "goal", "laptop", "phone"]
    assert examples.labels is None


def test_python_lists():
    examples = read_examples((["a", "b"], ["x", "y"]))
    assert examples == Examples(["a", "b"], None, ["x", "y"], ["examples[0]", "examples[1]"])
    assert read_examples((np.array(["a", "b"]), np.array([3, 4]))).labels == ["3", "4"]
    pairs = read_examples((["a"], ["b"], ["x"]))
    assert (pairs.texts, pairs.text_pairs, pairs.labels) == (["a"], ["b"], ["x"])
    assert read_examples([{"text": "a", "label": "x", "other": 1}]).labels == ["x"]


def test_unlabelled_python_lists():
    assert read_examples(["a", "b"], label=None).texts == ["a", "b"]
    assert read_examples([{"text": "a"}], label=None).labels is None
    assert read_examples((["a"], ["b"], None), label=None).text_pairs == ["b"]


def test_take_keeps_the_columns_in_step():
    examples = read_examples((["a", "b", "c"], ["p", "q", "r"], ["x", "y", "z"])).take(np.array([2, 0]))
    assert examples == Examples(["c", "a"], ["r", "p"], ["z", "x"], ["examples[2]", "examples[0]"])
    assert read_examples(["a", "b"], label=None).take([1]).labels is None


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.csv", "", "a.csv: the file is empty; expected a header and rows"),
        ("a.csv", "text,label\n", "a.csv: expected examples, found none"),
        ("a.jsonl", "\n\n", "a.jsonl: expected examples, found none"),
        ("a.txt", "hello", "a.txt: unknown kind of file; expected .csv, .tsv, .jsonl"),
        ("a.csv.zip", "hello", "a.csv.zip: unknown kind of file"),
        (
            "a.csv",
            "sentence,category\nx,y\n",
            "found none among 'sentence', 'category'; name the texts with --data.text",
        ),
        ("a.csv", "text,class\nx,y\n", "name the labels with --data.label_column (label= in Python)"),
        ("a.jsonl", '{"text": "x"}\n{"class": 1}\n', "expected one column 'label', found none among 'text', 'class'"),
        ("a.csv", "text,text,label\nx,y,z\n", "expected one column 'text', found 2"),
        ("a.csv", b"text,label\nx,y\nfive \xa35,z\n", "a.csv:3: byte 0xa3 is not utf-8; name the encoding of the file"),
        ("a.jsonl", b'{"text": "\xff"}', "a.jsonl:1: byte 0xff is not utf-8"),
        ("a.csv", "text,label\nx,y\n,y\n  ,z\n", "a.csv:3: the text is blank; 2 of 3 examples have no usable text"),
        ("a.csv", "text,label\nx,y\nz,\n", "a.csv:3: the label is blank; 1 of 2 examples have no usable label"),
        ("a.csv", "text,label\nx,y\n\nred, green,z\n", "a.csv:4: expected 2 fields as in the header, found 3; quote a"),
        ("a.tsv", "text\tlabel\nalone\n", "a.tsv:2: expected 2 fields as in the header, found 1"),
        ("a.csv", 'text,label\nx,y\n"open,z\n', "a.csv:3: unexpected end of data; close every quote"),
        ("a.csv", 'text,label\n"a"b,z\n', "a.csv:2: ',' expected after '\"'; close every quote, and double one"),
        ("a.csv", "text,label\nx\0,y\n", "a.csv:2: the text holds a NUL character"),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n{"text"\n',
            "a.jsonl:2: expected one JSON object a line: Expecting ':'",
        ),
        ("a.jsonl", "[" * 200_000, "a.jsonl:1: expected one JSON object a line"),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n["x", 1]\n',
            "a.jsonl:2: expected an object of named values, found a li",
        ),
        ("a.jsonl", '{"text": 12, "label": 1}', "a.jsonl:1: the text is not a string but of type int"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"label": 1}', "a.jsonl:2: the text is missing; 1 of 2"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}', "a.jsonl:2: the label is missing; 1 of 2"),
        ("a.jsonl", '{"text": "x", "label": 1.5}', "a.jsonl:1: the label is not a string but of type float"),
        ("a.jsonl", r'{"text": "\ud83d", "label": 1}', "a.jsonl:1: the text holds half of a surrogate pair"),
        ("a.csv.gz", b"not packed", "a.csv.gz: cannot be read: Not a gzipped file"),
        (
            "a.csv.gz",
            gzip.compress(b"text,label\n" * 99, mtime=0)[:-9],
            "a.csv.gz: cannot be read: Compressed file ended",
        ),
    ],
)
def test_a_faulty_file_is_refused(tmp_path, name, content, expected):
    assert expected in failure_of(tmp_path, name, content)


def test_a_missing_path_is_refused():
    assert failure("no/news.csv") == "expected a file or folder of texts, found none at 'no/news.csv'; check the path"
    assert "expected a file or folder of texts" in failure("a text, not a path\n" * 500)


def test_an_unknown_encoding_is_refused(tmp_path):
    message = failure_of(tmp_path, "a.csv", "text,label\nx,y\n", encoding="latin-99")
    assert message == "unknown encoding 'latin-99'; expected one such as utf-8, latin-1 or cp1252"


def test_an_unpaired_row_is_refused(tmp_path):
    rows = '{"text": "x", "other": "y", "label": 1}\n{"text": "x", "label": 1}'
    assert "a.jsonl:2: the text pair is missing" in failure_of(tmp_path, "a.jsonl", rows, text_pair="other")


def test_faulty_folders_are_refused(tmp_path, class_folders):
    (tmp_path / "flat").mkdir()
    assert "flat: no class folders in it; expected <label>/*.txt" in failure(tmp_path / "flat")
    assert "flat: expected examples, found none" in failure(tmp_path / "flat", label=None)
    assert "expected text pairs, found none" in failure(class_folders, text_pair="other")
    (class_folders / "tech" / "b.txt").write_bytes(b"one\ntwo \xa3")
    assert f"tech{os.sep}b.txt:2: byte 0xa3 is not utf-8" in failure(class_folders)
    (class_folders / "tech" / "b.txt").write_text(" \n")
    assert f"tech{os.sep}b.txt: the text is blank; 1 of 3" in failure(class_folders)
    (class_folders / "politics").mkdir()
    assert "politics: no .txt files in this class folder" in failure(class_folders)


def test_faulty_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    assert "a.parquet: not a Parquet file" in failure_of(tmp_path, "a.parquet", "text,label\nx,y\n")
    write_parquet(tmp_path / "b.parquet", ["sentence", "label"], [("x", 1)])
    assert "expected one column 'text', found none among 'sentence', 'label'" in failure(tmp_path / "b.parquet")
    write_parquet(tmp_path / "c.parquet", ["text", "label"], [("x", 1), (None, 2)])
    assert "c.parquet: row 2: the text is missing; 1 of 2" in failure(tmp_path / "c.parquet")
    write_parquet(tmp_path / "d.parquet", ["text", "label"], [(b"x", 1)])
    assert "d.parquet: row 1: the text is not a string but of type bytes" in failure(tmp_path / "d.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'kerasformer[parquet]'" in failure_of(tmp_path, "a.parquet", "")


@pytest.mark.parametrize(
    "source, expected",
    [
        (None, "expected a path, (texts, labels), (texts, text_pairs, labels) or a list of dicts, not a NoneType"),
        ((["a"],), "not a tuple of 1"),
        ([], "examples: expected examples, found none"),
        (([], []), "examples: expected examples, found none"),
        ((["a", "b"], ["x"]), "expected lists of one length, found 2 texts, 1 labels"),
        (("a", "x"), "expected a list of texts, not a str"),
        ((["a"], None), "expected a list of labels, not a NoneType"),
        ((["a", None], ["x", "y"]), "examples[1]: the text is missing"),
        ((["a", "b"], ["x", float("nan")]), "examples[1]: the label is missing (NaN); 1 of 2"),
        (["a", "b"], "examples: expected labels, found none; pass a table, dicts or (texts, text_pairs, labels)"),
        ([{"text": "a", "label": "x"}, "b"], "examples[1]: expected an object of named values, found a str"),
        ([{"sentence": "a", "label": "x"}], "examples: expected one column 'text', found none among 'sentence', 'lab"),
    ],
)
def test_faulty_lists_are_refused(source, expected):
    assert expected in failure(source)


def test_labels_must_be_of_two_classes_or_more():
    check_labels(read_examples((["a", "b"], ["x", "y"])))
    with pytest.raises(InputError, match=r"examples\[0\]: expected two classes or more, but every label is 'x'"):
        check_labels(read_examples((["a", "b"], ["x", "x"])))
    with pytest.raises(InputError, match="expected labelled examples"):
        check_labels(read_examples(["a"], label=None))
