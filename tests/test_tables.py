"""Tables as programs write them: separators, quotes, headers, rows that are none, encodings."""

import csv
import io
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasformer.data.sources import read_examples
from kerasformer.errors import InputError

ROWS = [("soup", "good"), ("ice", "bad")]


def read(folder: Path, name: str, content: str | bytes, **options) -> list[tuple[str, ...]] | str:
    """The rows that a file has, or what is said against it: one line, without the folder's name."""
    path = Path(folder, name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        examples = read_examples(path, **options)
    except InputError as error:
        assert "\n" not in str(error)
        return str(error).replace(f"{folder}{os.sep}", "")
    columns = (examples.texts, examples.text_pairs, examples.labels)
    return list(zip(*(column for column in columns if column is not None), strict=True))


def written(rows, delimiter="\t", quoting=csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)
    return text.getvalue()


# Quotes

quoted = st.text(st.sampled_from('ab ,"'), min_size=1, max_size=8).filter(lambda text: not text.isspace())
anything = st.text(st.sampled_from('ab ,"\t\n'), min_size=1, max_size=8).filter(lambda text: not text.isspace())


@given(rows=st.lists(st.tuples(quoted, quoted), min_size=1, max_size=6))
def test_rows_without_quoting_are_read_as_they_are_or_refused(rows):
    content = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        assert read(folder, "a.tsv", content, quoting="none") == rows
        found = read(folder, "a.tsv", content)
    if found != rows and "say which with --data.quoting none or csv" not in found:
        # Each field with a quote is one that a program has quoted.
        fields = [field for row in rows for field in row if '"' in field]
        assert all(re.fullmatch(r'"(?:[^"]|"")*""(?:[^"]|"")*"', field) for field in fields)


@given(
    rows=st.lists(st.tuples(anything, anything), min_size=1, max_size=6),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_rows_that_a_program_has_quoted_are_read_as_they_were_or_refused(rows, quoting):
    content = written([("text", "label"), *rows], quoting=quoting)
    with tempfile.TemporaryDirectory() as folder:
        assert read(folder, "a.tsv", content, quoting="csv") == rows
        found = read(folder, "a.tsv", content)
    if found != rows and "--data.quoting" not in found:
        # Each of its lines is a row: nothing tells that they belong together.
        lines = content.replace("\r\n", "\n").split("\n")
        assert quoting == csv.QUOTE_MINIMAL and {line.count("\t") for line in lines if line.strip()} == {1}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # GLUE's: a quote is a character, even where it seems to span rows
        ('text\tlabel\n"The soup\tgood\nfine\tgood\nand cold"\tbad\n', ['"The soup', "fine", 'and cold"']),
        ('text\tlabel\n"I did , " he said .\tgood\nfine\tbad\n', ['"I did , " he said .', "fine"]),
        ('text\tlabel\n"Great!"\tgood\nfine\tbad\n', ['"Great!"', "fine"]),
        ('text\tlabel\n"\tgood\n"\tbad\n', ['"', '"']),
        # those of programs
        ('text\tlabel\n"He said ""hi"""\tgood\nfine\tbad\n', ['He said "hi"', "fine"]),
        ('text\tlabel\n"a\tb"\tgood\nfine\tbad\n', ["a\tb", "fine"]),
        ('text\tlabel\n"two\nlines"\tgood\nfine\tbad\n', ["two\nlines", "fine"]),
        ('label\ttext\ngood\t"two\nlines"\nbad\tfine\n', ["two\nlines", "fine"]),
        ('"text"\t"label"\n"Great!"\t"good"\n"fine"\t"bad"\n', ["Great!", "fine"]),
    ],
)
def test_a_file_with_tabs_tells_whether_it_is_quoted(tmp_path, content, expected):
    assert [row[0] for row in read(tmp_path, "a.tsv", content)] == expected
    assert [row[0] for row in read(tmp_path, "a.csv", content, delimiter="tab")] == expected


@pytest.mark.parametrize(
    "content",
    [
        'text\tlabel\n"Well, then"\tgood\nfine\tbad\n',  # as Excel writes commas
        'text\tlabel\n"Great!"\tgood\n"Awful!"\tbad\n',  # all of a column
        'text\tlabel\n"a\tgood\nb\tgood\nx\ty\tz"\tbad\n',  # rows, of which one does not fit, or one text
    ],
)
def test_quotes_that_can_be_either_are_not_guessed_at(tmp_path, content):
    said = "a.tsv: quotes in this file can be characters of the texts, or stand around them; say which with"
    assert str(read(tmp_path, "a.tsv", content)).startswith(said)
    assert len(read(tmp_path, "a.tsv", content, quoting="csv")) < content.count("\n")


def test_a_single_column_is_not_cut_at_its_line_breaks(tmp_path):
    assert "--data.quoting" in read(tmp_path, "a.tsv", 'text\n"two\nlines"\nfine\n', label=None)
    assert read(tmp_path, "a.tsv", 'text\n"two\nlines"\nfine\n', label=None, quoting="csv") == [
        ("two\nlines",),
        ("fine",),
    ]


def test_quotes_of_a_csv_file_can_be_characters(tmp_path):
    content = 'text,label\n"soup" of the day,good\n'
    assert "close every quote" in (said := read(tmp_path, "a.csv", content)) and "--data.quoting none" in said
    assert read(tmp_path, "a.csv", content, quoting="none") == [('"soup" of the day', "good")]


# Separators


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_the_header_tells_the_separator(tmp_path, suffix, separator):
    rows = [("soup; hot, |", "good"), ("a\ttab", "bad")]
    content = written([("id", "text", "label"), *(("1", *row) for row in rows)], separator)
    assert read(tmp_path, f"a{suffix}", content) == rows
    assert read(tmp_path, f"a{suffix}", content, delimiter=separator) == rows


@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n'])
def test_excels_first_line_is_no_row(tmp_path, first):
    assert read(tmp_path, "a.csv", f"{first}text;label\nsoup, hot;good\nice;bad\n") == [("soup, hot", "good"), ROWS[1]]
    assert "a.csv:3: expected 2 fields" in read(tmp_path, "a.csv", f"{first}text;label\nsoup\n")


def test_a_separator_that_is_not_found_is_told_with_the_flag(tmp_path):
    said = read(tmp_path, "a.csv", "text:label\nsoup:good\n")
    assert "expected one column 'text', found none among 'text:label'; name the texts with --data.text_column" in said
    assert said.endswith("or the separator with --data.delimiter (delimiter=); the header reads 'text:label'")
    assert read(tmp_path, "a.csv", "text:label\nsoup:good\n", delimiter=":") == [("soup", "good")]
    for delimiter in ("::", "", '"', "\n", None):
        assert "expected delimiter as auto, tab or one character" in read(tmp_path, "a.csv", "", delimiter=delimiter)
    assert "expected quoting as one of auto, csv, none, got 'all'" in read(tmp_path, "a.csv", "", quoting="all")


# Headers and rows


@pytest.mark.parametrize(
    "content",
    [
        " text ,\tlabel\nsoup,good\nice,bad\n",  # blanks around names
        "\ufeff\ufefftext,label\nsoup,good\nice,bad\n",  # two byte order marks
        "text,label\r\nsoup,good\r\nice,bad\r\n",
        "text,label\rsoup,good\rice,bad",  # of old Macs
        "text,label\nsoup,good\n,\nice,bad\n  , \n,,,\n",  # rows of separators
        "text,label,,\nsoup,good,,\nice,bad,,\n",
        "text,label\nsoup,good,\nice,bad,\n",  # a separator too many in all rows
        '"text","label"\n"1","soup","good"\n"7","ice","bad"\n',  # R's row names
        "text,label\nsoup,good\ntext,label\nice,bad\n",  # two files
        '\ufefftext,label\nsoup,good\n\ufeff"text","label"\nice,bad\n',
    ],
)
def test_what_programs_put_around_rows_is_left_out(tmp_path, content):
    assert read(tmp_path, "a.csv", content) == ROWS


def test_a_header_that_is_repeated_is_told(tmp_path, caplog):
    read(tmp_path, "a.csv", "text,label\nsoup,good\ntext,label\nice,bad\n")
    [said] = caplog.messages
    assert said.endswith("a.csv: the header is repeated, which is left out (line 3)")
    said = read(tmp_path, "a.csv", "text,label\nsoup,good\nlabel,text\nbad,ice\n")
    assert said == "a.csv:3: a second header has the columns in another order; split the file here"
    assert read(tmp_path, "a.csv", "text\ntext\nsoup\n", label=None) == [("text",), ("soup",)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\nsoup,good\n12,hot,soup\n", "a.csv:3: expected 2 fields as in the header, found 3; quote a text"),
        ("text,label\nx,soup,good\nx,ice,bad\n", "a.csv:2: expected 2 fields as in the header, found 3"),
        ("text, text ,label\nsoup,tea,good\n", None),  # the exact name goes before
        ("text , text,label\nsoup,tea,good\n", "expected one column 'text', found 2 among"),
        (f"{','.join(f'c{i}' for i in range(500))}\n", "'c9', ... and 490 others; name the texts"),
        ("\n \n,,\n", "a.csv: the file is empty; expected a header and rows"),
        ("\ufeff", "a.csv: the file is empty; expected a header and rows"),
    ],
)
def test_headers_and_rows_that_do_not_fit(tmp_path, content, said):
    found = read(tmp_path, "a.csv", content)
    assert found == [("soup", "good")] if said is None else said in found


def test_words_for_nothing_are_texts_like_others(tmp_path):
    rows = [("NA", "null"), ("nan", "None")]
    assert read(tmp_path, "a.csv", written([("text", "label"), *rows], ",")) == rows


# Encodings

TABLE = "text,label\ncafé “hot”,good\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("told", ["utf-8", "latin-1"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, encoding, told):
    assert read(tmp_path, "a.csv", TABLE.encode(encoding), encoding=told) == [("café “hot”", "good")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            TABLE.encode("utf-16-le"),
            "a.csv: every other byte is zero, as in UTF-16 without a byte order mark; ",
        ),
        ("a.csv", TABLE.encode("utf-16-le"), "such as utf-16-le (--data.encoding of train"),
        ("a.csv", TABLE.encode("utf-16-be"), "such as utf-16-be (--data.encoding of train"),
        (
            "a.csv",
            TABLE.encode("cp1252"),
            "a.csv:2: byte 0xe9 is not utf-8; name the encoding of the file, such as cp1252",
        ),
        ("a.csv", TABLE.replace("“hot”", "").encode("latin-1"), "such as latin-1"),
        ("a.csv", b"\x1f\x8b\x08", "a.csv: expected text, found a file that is packed with gzip: give it a name"),
        ("a.csv", b"PK\x03\x04", "a.csv: expected text, found a file that is a ZIP or Excel file"),
        ("a.csv.gz", TABLE.encode(), "cannot be read: Not a gzipped file (b'te'); leave .gz out of its name"),
    ],
)
def test_advice_on_bytes_that_are_no_text(tmp_path, name, content, said):
    assert said in read(tmp_path, name, content)


def test_advice_on_text_of_another_encoding(tmp_path):
    assert "is not utf-16; name the encoding of the file, such as utf-8" in read(
        tmp_path, "a.csv", b"a,b\n\xd8\xd8\xd8\xd8", encoding="utf-16"
    )
    assert read(tmp_path, "a.csv", TABLE.encode("utf-16-le"), encoding="utf-16-le") == [("café “hot”", "good")]
