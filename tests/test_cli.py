"""The command line as a user meets it: what it says, where, with which exit code, and what it leaves behind.

Input that is refused costs one line on stderr, exit code 2 and nothing else. For whole processes: test_end_to_end.py.
"""

import dataclasses
import io
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path
from typing import Literal, get_origin

import pytest

from kerasformer.cli import COMMANDS, main
from kerasformer.config import LanguageRecipe, Recipe

ROOT = Path(__file__).parent.parent
RECIPE = "from kerasformer.config import Data, Recipe, Train\nrecipe = Recipe('a', Data(max_length=16))\n"
TRAIN = "train recipe.py --data.train animals.csv --model.from_pretrained model"
FILES = {
    "recipe.py": RECIPE,
    "animals.csv": "text,label\n"
    + "the cat sat .,cat\na dog ran .,dog\nthe mat .,neither\n" * 10,  # the model's labels
    "empty.csv": "",
    "header.csv": "text,label\n",
    "columns.csv": "body,topic\na,cat\nb,dog\n",
    "latin.csv": b"text,label\ngood,cat\ncaf\xe9,dog\n",
    "one_class.csv": "text,label\na,cat\nb,cat\n",
    "blank.csv": "text,label\na,cat\n  ,dog\n,dog\n",
    "cow.csv": "text,label\na cat,cat\na cow,cow\n",
    "lines.csv": 'text,label\na,"cat\ntom"\nb,dog\n',
    "null.jsonl": '{"text": "a", "label": "cat"}\n{"text": null, "label": "dog"}\n',
    "notes.md": "",
    "notes.txt": "the cat sat on the mat\n",
    "runs/used/model/config.json": "{}",
    "foreign/recipe.json": '{"name": "news"}',
    "half/recipe.json": '{"name": "ne',
}


@pytest.fixture
def project(tmp_path, monkeypatch, bert_tiny) -> Path:
    """The working directory: small files, good and bad, and a model."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "model").symlink_to(bert_tiny)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def assert_refused(project, capsys, caplog):
    """Checks that a command is refused with one line that says something, "…" standing for what is left out of it."""
    caplog.set_level(logging.INFO)

    def check(command: str, said: str) -> None:
        before = contents(project)
        code = main(shlex.split(command))
        out, err = capsys.readouterr()
        assert (code, out, caplog.messages) == (2, "", [])
        assert re.fullmatch(f"kerasformer: .*{'.*'.join(map(re.escape, said.split('…')))}.*\n", err), err
        assert contents(project) == before

    return check


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def each(*rows: tuple[str, str]):
    """Parametrizes a test over commands and what each is told."""
    return pytest.mark.parametrize(("command", "said"), [pytest.param(*row, id=row[0]) for row in rows])


# The words of a command


@each(
    (
        "trian",
        "expected a command among tokenizer, prepare, train, …got 'trian' (did you mean train?)…kerasformer --help",
    ),
    ("xyzzy", "expected a command among tokenizer, prepare, train, …got 'xyzzy'; kerasformer --help"),
    ("train", "expected a recipe first, got none…kerasformer train pipelines/bert_classify.py --help"),
    ("train --data.train a.csv", "expected a recipe first, got --data.train"),
    ("train recipe.py more", "expected nothing more of kerasformer train recipe.py, got 'more'"),
    ("train recipe.py --train.epochs three", "expected --train.epochs as a number (int), got 'three'"),
    ("train recipe.py --train.warmup=much", "expected --train.warmup as a number (float), got 'much'"),
    ("train recipe.py --train.epochs", "expected a value for --train.epochs, got none"),
    ("train recipe.py --train.precision half", "expected --train.precision as one of 'auto', 'float32'…got 'half'"),
    ("train recipe.py --train.monitor loss", "expected --train.monitor as one of 'val_accuracy'…got 'loss'"),
    ("evaluate", "expected PATH run, --data [PATH […, got none…kerasformer evaluate --help"),
    ("evaluate runs/a", "expected --data [PATH […, got none…kerasformer evaluate --help"),
    ("evaluate runs/a --data", "expected a value for --data, got none"),
    ("predict", "expected PATH model, got none…kerasformer predict --help"),
    ("export", "expected PATH run, PATH folder, got none…kerasformer export --help"),
    ("export runs/a", "expected PATH folder, got none…kerasformer export --help"),
    ("check", "expected PATH version, got none…kerasformer check --help"),
    ("check a b", "expected nothing more of kerasformer check, got 'b'"),
    ("serve", "expected PATH folder, got none…kerasformer serve --help"),
    ("serve a --rest-port http", "expected --rest-port as a number (int), got 'http'"),
    ("prepare notes.txt", "expected --tokenizer PATH, --output PATH, got none…kerasformer prepare --help"),
    ("prepare --documents words", "expected --documents as one of 'files', 'lines', got 'words'"),
    ("prepare --tokenizer bpe --output out --validation some", "expected --validation as a number (float), got 'some'"),
    ("tokenizer", "expected {wordpiece,bpe,char} kind, --output PATH, got none"),
    ("tokenizer unigram notes.txt --output out", "expected kind as one of 'wordpiece', 'bpe', 'char', got 'unigram'"),
)
def test_a_command_that_cannot_be_read_is_refused(assert_refused, command, said):
    assert_refused(command, said)


TYPOS = {
    "tokenizer": ("tokenizer wordpiece notes.txt --output out --vocab-sise 9", "--vocab-size"),
    "prepare": ("prepare notes.txt --tokenizr bpe --output out", "--tokenizer"),
    "train": ("train recipe.py --train.epocs 3", "--train.epochs"),
    "launch": ("launch --wokers 2 train recipe.py", "--workers"),
    "plan": ("plan recipe.py --train.remt blocks", "--train.remat"),
    "evaluate": ("evaluate --dta animals.csv", "--data"),
    "predict": ("predict model text --txt_pair=other", "--text-pair"),
    "generate": ("generate model --max-new-tokns 3", "--max-new-tokens"),
    "export": ("export --hlep", "--help"),
    "check": ("check saved/1 --jsn", "--json"),
    "serve": ("serve saved --rest-prot 1", "--rest-port"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_flag_is_told_with_the_nearest(assert_refused, name):
    command, meant = TYPOS[name]
    assert_refused(command, f"expected a flag of kerasformer {name}…(did you mean {meant}?); see kerasformer {name}")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_line_is_the_same_on_a_terminal_without_unicode(project, encoding, monkeypatch):
    err = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    monkeypatch.setattr("sys.stderr", err)
    assert main(["serve", "saved", "--rest-port", "http"]) == 2
    err.seek(0)
    said = "expected --rest-port as a number (int), got 'http'; see kerasformer serve --help"
    assert err.read() == f"kerasformer: {said}\n"


# Recipes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe = (", "got SyntaxError: '(' was never closed in bad.py, line 1"),
        ("\nraise RuntimeError('no\\nway')", "got RuntimeError: no way in bad.py, line 2"),
        ("import nonesuch", "got ModuleNotFoundError: No module named 'nonesuch' in bad.py, line 1"),
        ("raise SystemExit(3)", "got SystemExit: 3 in bad.py, line 1"),
        ("\0", "got …Error: source code string cannot contain null bytes in bad.py, line 1"),
        ("from kerasformer.config import *\nRecipe(nam='a')", "unexpected keyword argument 'nam' in bad.py, line 2"),
        ("from kerasformer.config import *\nAugment(swap=2)", "expected augment.swap as a share of words in [0, 1)"),
        ("", "expected `recipe = Recipe(...)` in bad.py, got none"),
        ("recipe = 3", "expected `recipe = Recipe(...)` in bad.py, got none"),
    ],
)
def test_a_recipe_that_does_not_run_is_refused(assert_refused, text, said):
    Path("bad.py").write_text(text)
    assert_refused("train bad.py", said)


@each(
    ("train none.py", "expected a recipe's Python file, got none.py, which is none; see pipelines/"),
    ("train runs", "expected a recipe's Python file, got runs, which is none"),
    ("train notes.txt", "expected a recipe's Python file, got notes.txt, which is none"),
)
def test_what_is_no_recipe_is_refused(assert_refused, command, said):
    assert_refused(command, said)


@pytest.mark.parametrize("field", ["batch_size='16'", "batch_size=None", "batch_size=2.5", "split='0.1'", "seed=1.0"])
def test_a_field_of_another_type_is_refused(assert_refused, field):
    Path("recipe.py").write_text(RECIPE.replace("max_length=16", field))
    assert_refused(TRAIN, f"expected --data.{field.partition('=')[0]} as a")


def test_a_choice_that_a_recipe_misspells_is_refused(assert_refused):
    Path("recipe.py").write_text(RECIPE.replace("Data(", "train=Train(class_weights='balancd'), data=Data("))
    assert_refused(TRAIN, "expected --train.class_weights as one of none, balanced, got 'balancd'")


# What training is given


@each(
    ("train recipe.py", "expected a training set, got none; pass --data.train PATH"),
    ("train recipe.py --data.train animals.csv", "got none; pass --model.from_pretrained DIR"),
    (f"{TRAIN} --data.train none.csv", "expected a file or folder of texts, found none at…none.csv"),
    (f"{TRAIN} --data.train empty.csv", "empty.csv: the file is empty; expected a header and rows"),
    (f"{TRAIN} --data.train header.csv", "header.csv: expected examples, found none"),
    (f"{TRAIN} --data.train columns.csv", "expected one column 'text'…among 'body', 'topic'…--data.text_column"),
    (f"{TRAIN} --data.label_column topic", "expected one column 'topic'…'text', 'label'…--data.label_column"),
    (f"{TRAIN} --data.text_pair_column b", "expected one column 'b'…'text', 'label'…--data.text_pair_column"),
    (f"{TRAIN} --data.train latin.csv", "latin.csv:3: byte 0xe9 is not utf-8…--data.encoding"),
    (f"{TRAIN} --data.encoding klingon", "unknown encoding 'klingon'; expected one such as utf-8"),
    (f"{TRAIN} --data.train one_class.csv", "one_class.csv:2: expected two classes or more…'cat'"),
    (f"{TRAIN} --data.train blank.csv", "blank.csv:3: the text is blank; 2 of 3 examples…mend or remove them"),
    (f"{TRAIN} --data.train null.jsonl", "null.jsonl:2: the text is missing; 1 of 2 examples"),
    (f"{TRAIN} --data.train blank.csv --data.on_bad skip", "for the most part, found none in 2 of 3 rows"),
    (f"{TRAIN} --data.train notes.md", "notes.md: unknown kind of file; expected .csv, .tsv, .jsonl"),
    (f"{TRAIN} --data.train lines.csv", "expected labels of one line…'cat\\ntom'"),
    (f"{TRAIN} --data.validation cow.csv", "cow.csv:3: the label 'cow' is none of those trained on: 'cat', 'dog'"),
    (f"{TRAIN} --data.validation none.csv", "expected a file or folder of texts, found none at…none.csv"),
    (f"{TRAIN} --data.split 0.01", "leaves none to hold out; raise the fraction or add examples"),
    (f"{TRAIN} --data.max_length 99", "expected a max_length of at most 24, the model's, got 99; lower it"),
    (f"{TRAIN} --data.text_pair_column text --data.max_length 3", "max_length…got 3"),
    (f"{TRAIN} --name used", "expected a new run, got runs/used, which is in use…--name"),
    (f"{TRAIN} --runs notes.txt", "expected a folder to put the run in, got the file notes.txt…--runs"),
)
def test_training_refuses(assert_refused, command, said):
    assert_refused(command, said)


OUT_OF_RANGE = {
    "name": "''",
    "data.split": "1 -0.1 nan",
    "data.max_length": "2 -5",
    "data.batch_size": "0 -1",
    "data.seed": "-1",
    "model.dropout": "1 -0.1 nan",
    "train.epochs": "0 -1",
    "train.learning_rate": "-0.1 nan inf",
    "train.warmup": "1.5 -0.1 nan",
    "train.min_learning_rate": "-0.1 nan inf",
    "train.power": "0 nan inf",
    "train.decay_share": "0 1.1 nan",
    "train.beta_1": "1 -0.1 nan",
    "train.beta_2": "1 -0.1 nan",
    "train.momentum": "1 -0.1 nan",
    "train.layer_decay": "0 1.1 nan",
    "train.ema": "1 -0.1 nan",
    "train.weight_decay": "-0.1 nan inf",
    "train.clip_norm": "-1 nan inf",
    "train.label_smoothing": "1 -0.1 nan",
    "train.early_stopping": "-1",
    "train.seed": "-1 4294967296",
    "train.checkpoint_every": "-1",
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in OUT_OF_RANGE.items() for v in values.split()])
def test_a_number_out_of_range_is_refused(assert_refused, field, value):
    assert_refused(f"{TRAIN} --{field}={value}", f"expected --{field} as a…, got {value}…; change it")


@pytest.mark.parametrize("name", ["replace", "delete", "insert", "swap"])
def test_a_share_of_words_out_of_range_is_refused(assert_refused, name):
    said = f"expected augment.{name} as a share of words in [0, 1), got 1.0"
    assert_refused(f"{TRAIN} --data.augment.{name} 1", said)


@pytest.mark.parametrize("recipe", [Recipe, LanguageRecipe])
def test_every_number_and_choice_of_a_recipe_has_a_rule(recipe):
    parts = {f.name: f.default_factory for f in dataclasses.fields(recipe) if f.name in ("data", "model", "train")}
    fields = {f"{name}.{f.name}": f.type for name, part in parts.items() for f in dataclasses.fields(part)}
    kinds = (int, float, float | None, int | None)
    named = {f for f, kind in fields.items() if kind in kinds or get_origin(kind) is Literal}
    named.add("train.freeze")  # a number or a word
    assert recipe.rules.keys() == {"name", "resume", "train.profile"} | named


BREAKAGES = {
    "missing": (lambda folder: shutil.rmtree(folder), "broken, which is no folder"),
    "config": (lambda folder: (folder / "config.json").unlink(), "config.json, got no such file"),
    "weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors, got a folder without it"),
    "pickle": (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "a pickle can run any code"),
    "cut": (lambda folder: os.truncate(folder / "model.safetensors", 70_000), "broken/model.safetensors with 70000"),
    "tokenizer": (lambda folder: (folder / "vocab.txt").unlink(), "expected tokenizer.json"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize(
    "command", [f"{TRAIN} --model.from_pretrained broken", "predict broken text", "export broken saved"]
)
def test_a_broken_model_is_refused(assert_refused, bert_tiny, command, breakage):
    breaks, said = BREAKAGES[breakage]
    shutil.copytree(bert_tiny, "broken")
    breaks(Path("broken"))
    assert_refused(command, said)


# The other commands


@each(
    ("evaluate none --data animals.csv", "expected a run's recipe at none/recipe.json, got no such file"),
    ("evaluate model --data animals.csv", "expected a run's recipe at model/recipe.json, got no such file"),
    ("evaluate foreign --data animals.csv", "expected a run's recipe at foreign/recipe.json, got another file"),
    ("evaluate half --data animals.csv", "expected a run's recipe as JSON at half/recipe.json"),
    ("predict runs/used text", "expected a model_type in runs/used/model/config.json"),
    ("predict runs/used/model text", "expected a model_type in runs/used/model/config.json"),
    ("predict model one two --text-pair one", "expected as many --text-pair as texts, 2, got 1"),
    ("export notes.txt saved", "expected a Hugging Face checkpoint folder, got notes.txt, which is no folder"),
    ("export model notes.txt", "expected a folder for the versions of a model, got the file…notes.txt; name another"),
    ("export model notes.txt/saved", "got the file…notes.txt; name another"),
    ("check none", "expected the folder of a SavedModel, got none, which is none: export the model first"),
    ("check notes.txt", "expected the folder of a SavedModel, got notes.txt, which is none"),
    ("check runs", "expected runs/saved_model.pb or runs/1/saved_model.pb, got neither"),
    ("serve none", "expected a folder of models, found none at none: export a model there first"),
    ("serve runs", "expected runs/<model>/<integer version>/saved_model.pb, found no such model"),
    ("prepare notes.txt --tokenizer none --output out", "none: expected tokenizer.json"),
    ("prepare notes.txt --tokenizer runs --output out", "runs: expected tokenizer.json, vocab.json…got none of them"),
    ("prepare notes.txt --tokenizer model --output out --validation 1", "below 1 for validation, got 1.0"),
    ("tokenizer wordpiece --output out", "expected text files to train on, got none; name some"),
    ("tokenizer wordpiece none.txt --output out", "expected a file or folder of texts, found none at 'none.txt'"),
    ("tokenizer wordpiece latin.csv --output out", "latin.csv: unknown kind of file; expected .txt, .jsonl"),
    ("tokenizer wordpiece notes.txt --output runs", "expected a new or empty folder, got runs, which is in use"),
    ("tokenizer wordpiece notes.txt --output notes.txt/out", "got [Errno …: 'notes.txt…; check path, rights and space"),
    ("tokenizer wordpiece notes.txt --output out --vocab-size 9", "vocab_size: expected at least…got 9"),
    ("tokenizer bpe notes.txt --output out --vocab-size 256", "vocab_size: expected at least 257…got 256"),
    (
        "tokenizer bpe notes.txt --output out --no-lowercase",
        "expected no --lowercase for bpe…it is for wordpiece: leave",
    ),
    ("tokenizer char notes.txt --output out --vocab-size=300", "no --vocab-size for char…for wordpiece and bpe: leave"),
    ("tokenizer char --output out", "expected text files to train on, got none; name some"),
    ("tokenizer bpe latin.csv --output out", "latin.csv: unknown kind of file; expected .txt, .jsonl"),
)
def test_a_command_refuses(assert_refused, command, said):
    assert_refused(command, said)


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "expected texts, got none"), (b"\n\n", "got none"), (b"caf\xe9\n", "got byte 0xe9")]
)
def test_predict_refuses_standard_input(assert_refused, monkeypatch, data, said):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    assert_refused("predict model", said)


def test_check_refuses_a_cut_model(assert_refused):
    Path("saved/1").mkdir(parents=True)
    Path("saved/1/saved_model.pb").write_bytes(b"\x0a\xff\xff")
    assert_refused("check saved/1", "expected a SavedModel in saved/1/saved_model.pb, got corrupt or cut data")


def test_check_tells_of_a_model_that_servers_refuse(project, capsys):
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), "saved/1")
    assert main(["check", "saved/1"]) == 1
    assert "refused by TensorFlow Serving" in capsys.readouterr().out
    assert main(["check", "saved", "--json"]) == 1
    out, err = capsys.readouterr()
    assert (json.loads(out)["ok"], err) == (False, "")


def test_serve_refuses_a_port_that_it_cannot_have(assert_refused):
    Path("saved/news/1").mkdir(parents=True)
    assert_refused("serve saved --rest-port 70000", "expected a port from 0 to 65535, got 70000")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(f"serve saved --rest-port {port}", f"expected a free port to listen on, got port {port}")


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("serve runs", "uvicorn", "serve"),
        ("serve runs", "starlette", "serve"),
        (f"{TRAIN} --data.train notes.parquet", "pyarrow", "parquet"),
        (f"train {ROOT}/pipelines/bert_newsgroups.py --model.from_pretrained model", "sklearn", "eval"),
    ],
)
def test_a_package_that_is_missing_is_told_with_its_extra(assert_refused, monkeypatch, command, package, extra):
    Path("notes.parquet").touch()
    for name in [name for name in sys.modules if name.startswith((package, "kerasformer.serving.server"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert_refused(command, f"{package}…pip install 'kerasformer[{extra}]'")


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_teaches(capsys, name):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    usage, description = out.splitlines()[:3:2]
    assert usage.startswith(f"usage: kerasformer {name} ")
    assert description == COMMANDS[name].__doc__ and f"`kerasformer {name} " in description
