"""What the server does while the folder of its models changes, and where it runs beside other code."""

import asyncio
import gc
import json
import logging
import os
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
import weakref
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.serving import server, warmup, watcher
from kerasformer.serving.rest import RestApi
from kerasformer.serving.servables import ModelSpec, Servables
from kerasformer.serving.watcher import Watcher


class Numbered(tf.Module):
    """Answers with the number of its version, which is a variable so that there are files of weights."""

    def __init__(self, number: int):
        super().__init__()
        self.number = tf.Variable([number])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
    def version(self, x):
        return {"version": x * 0 + self.number}


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    """Versions 1 to 3 of a model, to be copied."""
    folder = tmp_path_factory.mktemp("exports")
    for number in (1, 2, 3):
        module = Numbered(number)
        tf.saved_model.save(module, folder / str(number), {"serving_default": module.version})
        warmup.write(folder / str(number), [("serving_default", {"x": np.array([0], np.int32)})], "m")
    return folder


@pytest.fixture
def add(exports, tmp_path):
    """Puts a version of model "m" into the folder of models, whole."""

    def put(number: int, name: str = "m") -> Path:
        target = tmp_path / "models" / name / str(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(exports / str(number), target.with_name(f".{number}"))
        return target.with_name(f".{number}").rename(target)

    return put


class Watched:
    """A folder that is polled when the test says so, and what a client sees of it."""

    def __init__(self, folder: Path):
        self.lines: list[str] = []
        self.servables = Servables(xla=True)
        self.watcher = Watcher(folder, self.servables, self.lines.append)
        self.api = RestApi(self.servables)

    def poll(self, times: int = 2) -> list[str]:
        """Polls as the server does while it runs: files have settled at the second time. What was told meanwhile."""
        told = len(self.lines)
        for _ in range(times):
            self.watcher.poll(only_settled=True)
        return [line.split(" (")[0] for line in self.lines[told:]]

    def states(self, name: str = "m") -> dict[str, str]:
        _, body = self.api.respond("GET", f"/v1/models/{name}", b"")
        return {v["version"]: v["state"] for v in json.loads(body)["model_version_status"]}

    def ask(self, name: str = "m") -> int:
        """The number of the version that answers, or the HTTP status of an error."""
        status, body = self.api.respond("POST", f"/v1/models/{name}:predict", b'{"instances": [0]}')
        return json.loads(body)["predictions"][0] if status == 200 else status


@pytest.fixture
def watched(tmp_path, add):
    add(1)
    watched = Watched(tmp_path / "models")
    watched.watcher.poll()
    yield watched
    watched.servables.close()


def test_a_new_version_takes_the_place_of_the_old_one(watched, add):
    assert (watched.ask(), watched.states()) == (1, {"1": "AVAILABLE"})
    assert watched.poll() == []
    add(2)
    assert watched.poll(1) == []
    assert watched.poll(1) == ["m version 2: serving_default", "m version 1: unloaded"]
    assert (watched.ask(), watched.states()) == (2, {"2": "AVAILABLE", "1": "END"})


def test_the_old_version_is_in_service_until_the_new_one_has_warmed_up(watched, add, monkeypatch):
    seen = []

    def read(path):
        seen.append((watched.ask(), watched.states()))
        return read_requests(path)

    read_requests = warmup.read
    monkeypatch.setattr(warmup, "read", read)
    add(2)
    watched.poll()
    assert seen == [(1, {"2": "LOADING", "1": "AVAILABLE"})]


def test_a_version_is_freed_when_its_requests_are_done(watched, add):
    with watched.servables.use(ModelSpec("m")) as servable:
        add(2)
        watched.poll()
        assert watched.states() == {"2": "AVAILABLE", "1": "UNLOADING"}
        assert servable.run("serving_default", {"x": np.array([0], np.int32)})["version"].tolist() == [1]
        kept = weakref.ref(servable), weakref.ref(servable._session)
        del servable
    assert watched.states() == {"2": "AVAILABLE", "1": "END"}
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_a_version_that_is_removed_is_unloaded_and_an_older_one_takes_its_place(watched, add, tmp_path):
    add(2)
    watched.poll()
    shutil.rmtree(tmp_path / "models/m/2")
    assert watched.poll() == ["m version 1: serving_default", "m version 2: unloaded"]
    assert (watched.ask(), watched.states()) == (1, {"2": "END", "1": "AVAILABLE"})
    shutil.rmtree(tmp_path / "models/m/1")
    assert watched.poll(1) == ["m version 1: unloaded"]
    assert (watched.ask(), watched.states()) == (404, {"2": "END", "1": "END"})
    add(1)
    assert watched.poll() == ["m version 1: serving_default"]
    shutil.rmtree(tmp_path / "models/m")
    assert watched.poll(1) == ["m version 1: unloaded"]
    assert watched.ask() == 404


def test_a_new_model_is_served(watched, add):
    add(3, "other")
    assert watched.poll() == ["other version 3: serving_default"]
    assert (watched.ask("other"), watched.ask()) == (3, 1)


def test_a_version_that_fails_leaves_the_old_one_in_service(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.0)
    loads, load = [], watched.servables.load
    monkeypatch.setattr(watched.servables, "load", lambda *given: loads.append(given) or load(*given))
    (tmp_path / "models/m/2").mkdir()
    [line] = watched.poll(20)
    assert line.startswith("m version 2: failed to load: SavedModel file does not exist")
    assert len(loads) == 1 + watcher.MAX_RETRIES
    assert (watched.ask(), watched.states()) == (1, {"2": "END", "1": "AVAILABLE"})
    _, body = watched.api.respond("GET", "/v1/models/m/versions/2", b"")
    [version] = json.loads(body)["model_version_status"]
    assert "does not exist" in version["status"]["error_message"] and version["status"]["error_code"] != "OK"


def test_a_failed_version_is_not_tried_again_before_a_minute(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    (tmp_path / "models/m/2").mkdir()
    assert len(watched.poll(5)) == 1
    assert watched.watcher._failures["m"].count == 1
    monkeypatch.setattr(time, "monotonic", lambda: 60.0)
    watched.poll(5)
    assert watched.watcher._failures["m"].count == 2


def test_a_version_that_is_copied_in_place_is_served_when_it_is_whole(watched, exports, tmp_path):
    target = tmp_path / "models/m/2"
    files = sorted(path.relative_to(exports / "2") for path in (exports / "2").rglob("*") if path.is_file())
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        content = (exports / "2" / file).read_bytes()
        for part in (content[: len(content) // 2], content):
            (target / file).write_bytes(part)
            told = watched.poll(1)
            assert (watched.ask(), told) == (1, [])
    assert watched.poll() == ["m version 2: serving_default", "m version 1: unloaded"]
    assert watched.ask() == 2


def test_a_copy_that_pauses_fails_and_is_loaded_when_it_is_whole(watched, exports, tmp_path):
    target = tmp_path / "models/m/2"
    shutil.copytree(exports / "2", target, ignore=shutil.ignore_patterns("variables"))
    assert watched.poll()[0].startswith("m version 2: failed to load")
    shutil.copytree(exports / "2/variables", target / "variables")
    assert watched.poll() == ["m version 2: serving_default", "m version 1: unloaded"]
    assert watched.ask() == 2


def test_files_that_change_while_they_load_are_not_served(watched, add, monkeypatch):
    def read(path):
        (path / "assets.extra/late").touch()
        return []

    target = add(2)
    with monkeypatch.context() as patch:
        patch.setattr(warmup, "read", read)
        [line] = watched.poll()
    assert "failed to load" in line and f"the files of {target} changed while they were loaded" in line
    assert watched.ask() == 1
    watched.poll()
    assert watched.ask() == 2


def test_other_files_of_the_same_number_are_loaded_in_the_place_of_those_before(watched, exports, tmp_path):
    target = tmp_path / "models/m/1"
    target.rename(tmp_path / "before")
    shutil.copytree(exports / "3", target)
    assert watched.poll() == ["m version 1: serving_default"]
    assert (watched.ask(), watched.states()) == (3, {"1": "AVAILABLE"})
    os.truncate(target / "saved_model.pb", 10)
    assert watched.poll()[0].startswith("m version 1: failed to load")
    assert (watched.ask(), watched.states()) == (3, {"1": "AVAILABLE"})


@pytest.mark.parametrize("what", ["models", "models/m"])
def test_a_folder_that_cannot_be_read_unloads_nothing_and_is_told_once(watched, tmp_path, monkeypatch, what):
    iterdir = Path.iterdir

    def denied(path):
        if path == tmp_path / what:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", denied)
        [line] = watched.poll(3)
    assert line.endswith("cannot be read: Permission denied; what is in service stays")
    assert watched.poll() == []
    assert watched.ask() == 1


def test_a_poll_that_fails_is_logged_and_the_next_one_comes(watched, add, caplog, monkeypatch):
    polls, poll = [], watched.watcher.poll

    def flaky(**options):
        polls.append(options)
        if len(polls) == 1:
            raise RuntimeError("no such luck")
        poll(**options)

    monkeypatch.setattr(watched.watcher, "poll", flaky)
    add(2)
    watched.watcher.start(0.01)
    until(lambda: watched.ask() == 2)
    watched.watcher.stop()
    count = len(polls)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"A poll of {watched.watcher.folder} failed" and record.exc_info
    time.sleep(0.05)
    assert len(polls) == count


# The server beside other code


def until(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def call(url: str) -> int:
    """The number of the version that answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/v1/models/m:predict", b'{"instances": [0]}', timeout=60) as response:
        return json.loads(response.read())["predictions"][0]


def test_no_request_fails_while_versions_come(add, tmp_path):
    add(1)
    found, stop = [], threading.Event()

    def hammer():
        while not stop.is_set():
            try:
                found.append(call(running.url))
            except (OSError, urllib.error.URLError) as error:
                found.append(error)

    running = server.serve(tmp_path / "models", rest_port=0, file_system_poll_wait_seconds=0.02, block=False)
    clients = [threading.Thread(target=hammer) for _ in range(3)]
    try:
        for client in clients:
            client.start()
        for number in (2, 3):
            until(lambda number=number: found and found[-1] == number - 1)
            add(number)
        until(lambda: found[-1] == 3)
    finally:
        stop.set()
        for client in clients:
            client.join()
        running.stop()
    assert set(found) == {1, 2, 3}


def test_a_notebook_serves_in_the_background(add, tmp_path):
    add(1)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def cell():
        return server.serve(tmp_path / "models", rest_port=0)

    running = asyncio.run(cell())
    try:
        assert call(running.url) == 1
        assert repr(running) == f"<kerasformer server at {running.url}>"
        # What else the process does may need XLA.
        assert tf.function(lambda x: x * 2, jit_compile=True)(tf.ones(1)).numpy() == 2
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        port = int(running.url.rpartition(":")[2])
        with pytest.raises(InputError, match="Address already in use"):
            server.serve(tmp_path / "models", rest_port=port)
    finally:
        running.stop()
    assert repr(running).endswith(", stopped>")
    with pytest.raises(urllib.error.URLError):
        call(running.url)
    running.stop()


def test_a_thread_serves_until_it_is_stopped_elsewhere(add, tmp_path, monkeypatch):
    add(1)
    made, begin = [], server.Server.start
    monkeypatch.setattr(server.Server, "start", lambda self: (made.append(self), begin(self)))
    thread = threading.Thread(target=server.serve, args=[tmp_path / "models"], kwargs={"rest_port": 0})
    thread.start()
    until(lambda: made and made[0]._ended.is_set() is False)
    assert call(made[0].url) == 1 and thread.is_alive()
    made[0].stop()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", None])
def test_seconds_that_cannot_be_waited_are_refused(add, tmp_path, seconds):
    add(1)
    with pytest.raises(InputError, match="expected file_system_poll_wait_seconds of at least 0"):
        server.serve(tmp_path / "models", file_system_poll_wait_seconds=seconds, block=False)
