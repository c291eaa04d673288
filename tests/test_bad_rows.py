"""Rows that cannot be used: left out and counted where that is asked for; labels that stand for none."""

import json
import logging
import os

import pytest

from kerasformer.data.documents import Texts
from kerasformer.data.sources import read_examples, read_held_out
from kerasformer.errors import InputError, listed

GOOD = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(9))


@pytest.fixture
def skipped(tmp_path, caplog):
    """Reads a file without its bad rows; the number of rows that are left, and what is logged of the others."""
    caplog.set_level(logging.INFO)

    def read(name: str, content: str, **options) -> tuple[int, str]:
        caplog.clear()
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="leave such rows out .--data.on_bad skip of train"):
            read_examples(path, **options)
        examples = read_examples(path, on_bad="skip", **options)
        [said] = caplog.messages
        assert examples.skipped == int(said.partition("left out ")[2].split()[0])
        assert len(examples.texts) == len(examples.labels) == len(examples.origins)
        return len(examples), said.replace(f"{tmp_path}{os.sep}", "")

    return read


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (",a\n", "a.csv: left out 1 of 10 rows: the text is blank: 1 (a.csv:11)"),
        ("text,\n", "a.csv: left out 1 of 10 rows: the label is blank: 1 (a.csv:11)"),
        ("te\0xt,a\n", "left out 1 of 10 rows: the text holds a NUL character: 1"),
        ("one\nhot, soup,a\n", "found 1: 1 (a.csv:11); expected 2 fields as in the header, found 3: 1 (a.csv:12)"),
        (
            ",a\n,b\n,a\n,b\n , \n",
            "left out 4 of 13 rows: the text is blank: 4 (a.csv:11, a.csv:12, a.csv:13, ... and 1 other)",
        ),
    ],
)
def test_rows_of_a_table_are_left_out_and_counted(skipped, rows, said):
    found, told = skipped("a.csv", f"text,label\n{GOOD}{rows}")
    assert found == 9 and said in told


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "x"', "expected one JSON object a line: Expecting ',' delimiter: 1 (a.jsonl:10)"),
        ("[1]", "expected an object of named values, found a list: 1"),
        ('{"text": null, "label": "a"}', "the text is missing: 1"),
        ('{"label": "a"}', "the text is missing: 1"),
        ('{"text": NaN, "label": NaN}', "the text is missing (NaN): 1"),
        (r'{"text": "\ud800", "label": "a"}', "the text holds half of a surrogate pair: 1"),
        ('{"text": "x", "label": 1.5}', "the label is not a string but of type float: 1"),
    ],
)
def test_lines_are_left_out_and_counted(skipped, line, said):
    records = [json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) for i in range(9)]
    found, told = skipped("a.jsonl", "\n".join([*records, line]))
    assert found == 9 and said in told


def test_lists_are_read_alike():
    examples = read_examples((["a", "b", None], ["x", "y", "x"]), on_bad="skip")
    assert (examples.texts, examples.labels, examples.origins, examples.skipped) == (
        ["a", "b"],
        ["x", "y"],
        ["examples[0]", "examples[1]"],
        1,
    )
    assert read_examples([{"text": "a", "label": "x"}, 3], on_bad="skip").texts == ["a"]


@pytest.mark.parametrize("rows", ["text,label\n,a\n", "text,label\nx,a\n,a\n,b\n", "text,label\nx,y,a\nz,y,a\nx,a\n"])
def test_a_file_that_is_misread_is_not_skipped(tmp_path, rows):
    (tmp_path / "a.csv").write_text(rows)
    with pytest.raises(
        InputError, match="a.csv: expected usable rows, for the most part, found none in .*--data.delimiter"
    ):
        read_examples(tmp_path / "a.csv", on_bad="skip")


def test_what_is_no_row_is_not_skipped(tmp_path):
    (tmp_path / "a.csv").write_text(f'text,label\n{GOOD}"open,a\n')
    with pytest.raises(InputError, match="close every quote"):
        read_examples(tmp_path / "a.csv", on_bad="skip")
    with pytest.raises(InputError, match="expected on_bad as few or skip or stop, got 'ignore'"):
        read_examples(["a"], label=None, on_bad="ignore")


def test_texts_of_a_language_model_are_left_out_alike(tmp_path, caplog):
    lines = [json.dumps({"text": f"text {i}"}) for i in range(9)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines, '{"text": null}', '{"body": "x"}', "{", '{"text": " "}']))
    with pytest.raises(InputError, match="a.jsonl:10: the text is missing; mend .*--on-bad skip of prepare"):
        list(Texts([path], validation=0).pieces())
    assert len(list(Texts([path], validation=0, on_bad="skip").pieces())) == 9
    [said] = caplog.messages
    assert "left out 3 of 12 rows: the text is missing: 1" in said and "found none among 'body': 1" in said
    with pytest.raises(InputError, match="expected on_bad as few or skip or stop"):
        Texts([path], on_bad="ignore")


# Labels that stand for none


def labels(*values, **options) -> list[str]:
    return read_examples(([f"text {i}" for i in range(len(values))], list(values)), **options).labels


def test_minus_one_beside_the_numbers_of_classes_stands_for_none():
    with pytest.raises(
        InputError, match=r"examples\[1\]: the label is -1, which stands for none .--data.missing_label none"
    ):
        labels(0, -1, 1, 2)
    assert labels("0", "-1", "1", "2", on_bad="skip") == ["0", "1", "2"]
    assert labels(0, -1, 1, 2, missing_label="none") == ["0", "-1", "1", "2"]
    assert labels(0.0, -1.0, 1.0, 2.0, on_bad="skip") == ["0", "1", "2"]


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_minus_one_beside_zero_and_one_is_not_guessed_at(on_bad):
    with pytest.raises(
        InputError, match=r"examples\[1\]: the label -1 beside 0 and 1 may be a class, or stand for none"
    ):
        labels(0, -1, 1, on_bad=on_bad)
    assert labels(0, -1, 1, missing_label="none") == ["0", "-1", "1"]
    assert labels(0, -1, 1, missing_label=-1, on_bad="skip") == ["0", "1"]


@pytest.mark.parametrize("scale", [(-1, 1), (-1, 0), (-2, -1, 0, 1, 2), (-1, 1, 2), (-1, "good", "bad")])
def test_other_scales_are_labels(scale):
    assert labels(*scale) == list(map(str, scale))


def test_any_label_can_stand_for_none():
    assert labels("entailment", "-", "neutral", missing_label="-", on_bad="skip") == ["entailment", "neutral"]


def test_a_classifiers_own_labels_tell_what_minus_one_is(tmp_path):
    rows = ["a", "b", "c"], ["0", "-1", "1"]
    assert read_held_out(rows, ["0", "1"], on_bad="skip").labels == ["0", "1"]
    assert read_held_out(rows, ["-1", "0", "1"]).labels == ["0", "-1", "1"]
    assert read_held_out(rows, ["0", "1"], missing_label="none").labels == ["0", "-1", "1"]


def test_long_lists_are_cut_in_messages():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abc"), 2) == "a, b, ... and 1 other"
    assert listed(list(map(str, range(10_000)))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... and 9,990 others"


def test_a_few_of_many_rows_are_left_out_unless_one_says_otherwise(tmp_path, caplog):
    rows = [f"text {i},{'ab'[i % 2]}" for i in range(1000)]
    rows[500] = ",a"
    (tmp_path / "many.csv").write_text("\n".join(["text,label", *rows, ",", ""]))
    examples = read_examples(tmp_path / "many.csv")
    assert (len(examples), examples.skipped) == (999, 1)
    [said] = caplog.messages
    assert said.endswith(f"left out 1 of 1,000 rows: the text is blank: 1 ({tmp_path}/many.csv:502)")
    with pytest.raises(InputError, match="many.csv:502: the text is blank; 1 of 1000 examples have no usable text"):
        read_examples(tmp_path / "many.csv", on_bad="stop")
    rows[:20] = [",a"] * 20  # two in a hundred
    (tmp_path / "many.csv").write_text("\n".join(["text,label", *rows]))
    with pytest.raises(InputError, match="many.csv:2: the text is blank; 21 of 1000 examples have no usable text"):
        read_examples(tmp_path / "many.csv")
    assert read_examples(tmp_path / "many.csv", on_bad="skip").skipped == 21


def test_a_few_records_of_a_corpus_are_left_out(tmp_path, caplog):
    lines = [json.dumps({"text": f"text {i}"}) for i in range(300)]
    (tmp_path / "corpus.jsonl").write_text("\n".join([*lines, "{", json.dumps({"text": None})]))
    assert len(list(Texts([tmp_path / "corpus.jsonl"], validation=0).pieces())) == 300
    assert "left out 2 of 302 rows" in caplog.text
    (tmp_path / "corpus.jsonl").write_text("\n".join([*lines, *["{"] * 4]))
    with pytest.raises(InputError, match="corpus.jsonl:301: expected one JSON object a line"):
        list(Texts([tmp_path / "corpus.jsonl"], validation=0).pieces())
