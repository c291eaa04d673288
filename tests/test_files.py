"""Files and folders are whole or not there, whatever happens on the way."""

import contextlib
import json
import os
import resource
import stat

import pytest

from kerasformer.cli import main
from kerasformer.errors import InputError
from kerasformer.files import append_line, new_folder, read_json, remove_unfinished, whole_file, write_json


class Stop(BaseException):
    """Stands for whatever may end a block: an error, Ctrl-C."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def files_of_at_most(size):
    """Writes beyond it fail, as they do on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Folders


@pytest.mark.parametrize("prepare", [lambda path: None, lambda path: path.mkdir()], ids=["new", "empty"])
def test_a_folder_takes_its_name_when_it_is_whole(tmp_path, prepare):
    path = tmp_path / "runs/a"
    path.parent.mkdir()
    prepare(path)
    with new_folder(path) as temporary:
        (temporary / "file").write_text("x")
        assert temporary.parent == path.parent and temporary.name.startswith(".a-")
        assert not path.exists() or names(path) == []
    assert names(path) == ["file"]
    assert names(path.parent) == ["a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_the_folders_above_are_made(tmp_path):
    with new_folder(tmp_path / "a/b/c"):
        pass
    assert (tmp_path / "a/b/c").is_dir()


@pytest.mark.parametrize("error", [Stop, ValueError, KeyboardInterrupt])
def test_a_folder_that_is_not_finished_vanishes(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "a") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep/file").write_text("x")
        raise error
    assert names(tmp_path) == []


def test_a_folder_in_use_is_refused_and_kept(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("mine")
    (tmp_path / "b").write_text("mine")
    for path in (tmp_path / "a", tmp_path / "b"):
        with (
            pytest.raises(InputError, match=rf"expected a new or empty folder, got {path}, which is in use"),
            new_folder(path),
        ):
            pytest.fail("the block ran")
    assert (tmp_path / "a/file").read_text() == (tmp_path / "b").read_text() == "mine"
    assert names(tmp_path) == ["a", "b"]


def test_a_folder_that_another_process_made_meanwhile_is_kept(tmp_path):
    with pytest.raises(OSError), new_folder(tmp_path / "a") as temporary:
        (temporary / "file").write_text("ours")
        (tmp_path / "a").mkdir()
        (tmp_path / "a/file").write_text("theirs")
    assert (tmp_path / "a/file").read_text() == "theirs"
    assert names(tmp_path) == ["a"]


def test_a_durable_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, path = [], tmp_path / "a"
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with new_folder(path, durable=True) as temporary:
        (temporary / "file").write_text("x")
    assert synced == [str(temporary / "file"), str(temporary), str(tmp_path)]
    assert path.is_dir()


def test_what_a_killed_process_had_begun_is_removed(tmp_path):
    for name in (".step-1-abc", "step-1", ".hidden"):
        (tmp_path / name / "deep").mkdir(parents=True)
    remove_unfinished(tmp_path)
    assert names(tmp_path) == [".hidden", "step-1"]
    remove_unfinished(tmp_path / "none")


# Files


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "log"
    append_line(path, "one")
    append_line(path, "zw\u00f6lf")
    assert path.read_text(encoding="utf-8") == "one\nzw\u00f6lf\n"
    with files_of_at_most(20), pytest.raises(OSError, match="too large"):  # half of the line fits
        append_line(path, "much longer than what is left")
    assert path.read_text(encoding="utf-8") == "one\nzw\u00f6lf\n"


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert (temporary.parent, path.read_text()) == (tmp_path, "old")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_that_is_not_finished_leaves_what_was_there(tmp_path, before):
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with pytest.raises(Stop), whole_file(path) as temporary:
        temporary.write_text("half of th")
        raise Stop
    assert names(tmp_path) == (["a.txt"] if before else [])
    assert not before or path.read_text() == before


# JSON


def test_json_is_written_for_people_and_read_back(tmp_path):
    value = {"label": "Zürich 猫", "size": 1, "nested": {"empty": None}}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Zürich 猫" in text and text.startswith('{\n  "label"') and text.endswith("}\n")
    assert read_json(tmp_path / "a.json", "a thing") == value


def test_what_json_cannot_hold_leaves_the_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "got no such file; check the path"),
        (b"", "as JSON at .*, got Expecting value"),
        (b'{"a": 1', "as JSON at .*, got Expecting"),
        (b"\xff\xfe", "as JSON at .*, got .*can't decode byte 0xff"),
        (b"[1]", "as a JSON object at .*, got a list"),
        (b"null", "as a JSON object at .*, got a NoneType"),
    ],
)
def test_a_file_without_a_json_object_is_refused(tmp_path, content, said):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_json(path, "a run's recipe")
    assert str(caught.value).startswith("expected a run's recipe") and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_json_file(tmp_path):
    with pytest.raises(InputError, match="expected a thing as JSON at .*, got .*Is a directory"):
        read_json(tmp_path, "a thing")


def test_json_nested_too_deep_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"a":' + "[" * 200_000)
    with pytest.raises(InputError, match="expected a thing as JSON"):
        read_json(tmp_path / "a.json", "a thing")


def test_what_a_full_disk_had_no_room_for_is_named(tmp_path):
    with files_of_at_most(4):
        with pytest.raises(OSError) as caught:
            write_json(tmp_path / "a.json", {"a": "long text"})
        assert caught.value.filename == str(tmp_path / "a.json")
        with (
            pytest.raises(OSError) as caught,
            new_folder(tmp_path / "b") as temporary,
            whole_file(temporary / "file") as inner,
        ):
            inner.write_text("long text")
        assert caught.value.filename == str(tmp_path / "b/file")
    assert names(tmp_path) == []


def test_an_error_within_a_folder_names_the_folder_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, new_folder(tmp_path / "a") as temporary:
        (temporary / "none").read_text()
    assert caught.value.filename == str(tmp_path / "a/none")
    with pytest.raises(FileNotFoundError) as caught, new_folder(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


def test_the_command_line_names_the_folder_too(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("the cat sat on the mat")
    with files_of_at_most(4):
        assert main(["tokenizer", "char", str(tmp_path / "notes.txt"), "--output", str(tmp_path / "out")]) == 2
    said = f"got [Errno 27] File too large: '{tmp_path / 'out'}/vocab.json'; check path, rights and space"
    assert said in capsys.readouterr().err
    assert names(tmp_path) == ["notes.txt"]
