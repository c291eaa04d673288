"""Files that belong together: shards, patterns, splits; records of JSON; what Parquet files tell of their labels."""

import gzip
import json
import os
from pathlib import Path

import pytest

from kerasformer.data.documents import Texts
from kerasformer.data.sources import read_examples
from kerasformer.errors import InputError


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def table(*labels: str, start: int = 0) -> str:
    return "text,label\n" + "".join(f"text {start + i},{label}\n" for i, label in enumerate(labels))


def refusal(source, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_examples(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{source}{os.sep}", "").replace(str(source), "root")


# Folders and patterns


@pytest.mark.parametrize("folder", ["", "data", "snapshots/1/data"])
def test_shards_are_read_in_order_of_name(tmp_path, folder):
    for name, start in (("b.csv", 2), ("a.csv.gz", 0)):
        path = write(tmp_path / folder / name, table("x", "y", start=start))
        path.write_bytes(gzip.compress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    for name in (
        "_SUCCESS",
        ".b.csv.crc",
        "b.csv.crc",
        "README.md",
        "dataset_info.json",
        ".cache/c.csv",
        "_delta/0.json",
    ):
        write(tmp_path / folder / name, "{}")
    examples = read_examples(tmp_path)
    assert examples.texts == ["text 0", "text 1", "text 2", "text 3"]
    assert examples.origins[2] == f"{tmp_path / folder / 'b.csv'}:2"
    assert read_examples(tmp_path, label=None).texts == examples.texts


def test_a_pattern_stands_for_the_files_that_it_matches(tmp_path):
    for name in ("train-0.csv", "train-1.csv", "test-0.csv", "[odd].csv"):
        write(tmp_path / name, table("x", "y"))
    assert len(read_examples(tmp_path / "train-*.csv")) == len(read_examples(f"{tmp_path}/t*n-?.csv")) == 4
    assert len(read_examples(tmp_path / "[odd].csv")) == 2  # a file of that name goes before
    assert "found none at" in refusal(tmp_path / "valid*.csv")
    assert "expected files of one split, found test, train" in refusal(tmp_path / "t*.csv")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("train-0.csv test-0.csv", "root: expected files of one split, found test, train; name those to read, such as"),
        ("train.csv validation.csv", "such as 'train*.csv'"),
        ("news.csv news_test.csv", "expected files of one split, found others, test"),
        ("a.csv b.tsv", "root: expected files of one kind, found .csv, .tsv; name those to read, such as 'a.csv'"),
        ("a.csv a.csv.gz", "root: expected each file once, found a.csv and a.csv.gz; remove one of them"),
        ("train-00001-of-00003.csv", "expected 3 shards train-*, found 1 without number 0; copy the folder again"),
        ("a.csv good/b.txt", "expected the shards of one table, found tables and the folders good/; name the folder"),
        ("a.csv old/b.csv", "expected the shards of one table, found tables and the folders old/"),
        ("train/a.csv test/a.csv", "expected the shards of one table, found the folders test/, train/"),
        ("label=a/0.csv label=b/0.csv", "found the folders label=a/, label=b/"),
        ("train/b.txt test/b.txt", "root: expected folders of labels, found those of splits, test/, train/; name one"),
        ("0.arrow", "root: no class folders in it; expected <label>/*.txt"),
    ],
)
def test_files_that_are_no_shards_of_one_table_are_refused(tmp_path, names, said):
    for name in names.split():
        write(tmp_path / name, table("x", "y"))
    assert said in refusal(tmp_path)


def test_shards_have_the_same_columns(tmp_path):
    write(tmp_path / "a.csv", "text,label\nx,y\n")
    write(tmp_path / "b.csv", "label,text\ny,z\n")
    assert read_examples(tmp_path).texts == ["x", "z"]
    write(tmp_path / "c.csv", "label,text,id\ny,z,1\n")
    assert "c.csv: expected the columns of a.csv, found 'id' in one of them alone" in refusal(tmp_path)


def test_texts_to_train_a_language_model_on_are_found_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def texts(*files, **options) -> list[str]:
        return [piece.text for piece in Texts(files, validation=0, **options).pieces()]

    write(Path("data/train-0.ndjson"), '{"text": "a"}\n')
    write(Path("data/train-1.json"), '[{"text": "b"}, {"text": "c"}]')
    write(Path("data/dataset_info.json"), "{}")
    Path("data/x.txt").write_bytes("é".encode("utf-16"))
    assert texts("data") == texts("data/*") == ["a", "b", "c", "é"]
    write(Path("data/test-0.ndjson"), '{"text": "d"}\n')
    with pytest.raises(InputError, match="data: expected files of one split, found test, train; name those to read"):
        texts("data")
    assert texts("data", validation_files=["data/test-*"]) == ["a", "b", "c", "é", "d"]
    assert texts("data/train-0.ndjson", "data/test-0.ndjson") == ["a", "d"]  # both are meant
    for name in ("train", "test", "the-test-of-time"):
        write(Path(f"wiki/{name}.txt"), name)
    with pytest.raises(InputError, match="wiki: expected files of one split, found test, train"):
        texts("wiki")
    Path("wiki/test.txt").unlink()
    assert texts("wiki") == ["the-test-of-time", "train"]


# JSON

RECORDS = [{"text": "soup", "label": 1}, {"text": "ice", "label": 0}]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        json.dumps({"version": 1, "data": RECORDS}),
        "".join(json.dumps(record) + "\n" for record in RECORDS),
        json.dumps({"text": {"0": "soup", "1": "ice"}, "label": {"0": 1, "1": 0}}),  # to_json() of pandas
        json.dumps({"columns": ["label", "text"], "index": [0, 1], "data": [[1, "soup"], [0, "ice"]]}),
        json.dumps({"text": ["soup", "ice"], "label": [1.0, 0.0]}),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_records_of_a_json_file(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content.encode()) if suffix == ".json.gz" else content.encode("utf-8-sig"))
    examples = read_examples(path)
    assert (examples.texts, examples.labels) == (["soup", "ice"], ["1", "0"])
    assert examples.origins[1] in (f"{path}: record 2", f"{path}:2")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a.json: the file is empty; expected an array of objects"),
        ("[]", "a.json: expected examples, found none"),
        ('"text"', "a.json: expected an array of objects, found a str; write the records as one"),
        (
            '{"text": {"0": "a"}, "label": {"1": "b"}}',
            "found an object of 'text', 'label'; write the records as one (orient=",
        ),
        ('{"text": ["a", "b"], "label": [1]}', "found an object of 'text', 'label'"),
        ('[{"text": "a", "label": 1}, 3]', "a.json: record 2: expected an object of named values, found a int"),
        ('[{"text": "a", "label": null}]', "a.json: record 1: the label is missing; 1 of 1"),
        ('[\n{"text": "a"\n"label": 1}]', "a.json:3: expected JSON: Expecting ',' delimiter; mend the file"),
        ('{"text": "a", "label": 1}\n{"text"', "a.json:2: expected one JSON object a line"),
        ("[" * 200_000, "a.json: expected JSON: "),
    ],
)
def test_json_files_that_are_refused(tmp_path, content, said):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(InputError) as caught:
        read_examples(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_lines_that_were_put_together_of_files(tmp_path):
    path = write(tmp_path / "a.ndjson", '\ufeff{"text": "a", "label": 1}\r\n\ufeff{"text": "b", "label": 2}\n\ufeff\n')
    assert read_examples(path).texts == ["a", "b"]


# Parquet


@pytest.fixture
def parquet(tmp_path):
    """Writes a Parquet file of some columns, as the datasets library does."""
    pyarrow, module = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def make(name: str = "a.parquet", names: list[str] | None = None, **columns) -> Path:
        made = pyarrow.table(columns)
        feature = {"label": {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": feature}})} if names else {"huggingface": "{"}
        module.write_table(made.replace_schema_metadata(metadata), tmp_path / name)
        return tmp_path / name

    return make


def test_parquet_files_name_their_classes(parquet, tmp_path):
    path = parquet(names=["cold", "warm"], text=["soup", "tea", "ice", "bread"], label=[1, 1, 0, -1])
    assert "row 4: the label is -1, which stands for none (--data.missing_label none, " in refusal(path)
    assert read_examples(path, on_bad="skip").labels == ["warm", "warm", "cold"]
    assert read_examples(path, missing_label="none").labels == ["warm", "warm", "cold", "-1"]
    assert "row 1: the label 2 is none of the 2 classes" in refusal(parquet(names=["a", "b"], text=["x"], label=[2]))
    parquet(names=["cold", "hot"], text=["soup"], label=[1])
    parquet("b.parquet", names=["cold", "warm"], text=["ice"], label=[0])
    assert "b.parquet: expected the classes of" in (said := refusal(tmp_path)) and "found 'hot', 'warm'" in said


def test_the_types_that_pandas_writes(parquet):
    import pyarrow

    texts = pyarrow.array(["a", "b"]).dictionary_encode(), pyarrow.array(["a", "b"], pyarrow.large_string())
    for text in texts:
        for label, expected in [(["x", "y"], "xy"), ([1.0, 0.0], "10"), (pyarrow.array([3, 4], "uint8"), "34")]:
            examples = read_examples(parquet(text=text, label=label))
            assert (examples.texts, examples.labels) == (["a", "b"], list(expected))
    assert "row 2: the label is missing; 1 of 2" in refusal(parquet(text=["a", "b"], label=[1.0, None]))
    assert "row 2: the label is missing (NaN)" in refusal(parquet(text=["a", "b"], label=[1.0, float("nan")]))
    assert read_examples(parquet(**{" text ": ["a"], "label": ["x"]})).texts == ["a"]
