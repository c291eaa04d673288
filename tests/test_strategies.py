"""On what a training runs, by what the environment tells."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kerasformer import errors
from kerasformer.commands.training import launch
from kerasformer.errors import InputError
from kerasformer.training import strategies
from kerasformer.training.launch import environments

WORKERS = {"worker": ["a:1", "b:2"]}


def config(workers: dict = WORKERS, **task) -> str:
    return json.dumps({"cluster": workers, "task": {"type": "worker", "index": 0} | task})


def test_one_device_where_nothing_tells_of_more():
    assert strategies.strategy().num_replicas_in_sync == 1
    assert strategies.is_chief()


@pytest.mark.parametrize(("index", "chief"), [(0, True), (1, False)])
def test_the_first_worker_is_the_chief(monkeypatch, index, chief):
    monkeypatch.setenv("TF_CONFIG", config(index=index))
    assert strategies.is_chief() is chief


def test_slurm_tells_of_workers(monkeypatch):
    told = {"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "n[1-2]"}
    for name, value in (told | {"SLURM_STEP_TASKS_PER_NODE": "2,1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TF_CONFIG", "")  # so that what is written is taken back
    with pytest.raises(InputError, match="expected multiworker for the 3 workers that TF_CONFIG tells of, got one"):
        strategies.strategy("one")
    assert json.loads(os.environ["TF_CONFIG"]) == {
        "cluster": {"worker": ["n1:8888", "n1:8889", "n2:8888"]},
        "task": {"type": "worker", "index": 2},
    }
    assert not strategies.is_chief()


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("", {"name": "two"}, "expected a strategy among auto, one, mirrored, multiworker, tpu, got 'two'"),
        ("", {"name": "multiworker"}, "expected TF_CONFIG or Slurm to tell of the workers, got neither"),
        ("", {"name": "one", "devices": 2}, "expected devices to be told for mirrored alone, got 2 for one"),
        (
            config(),
            {"name": "mirrored"},
            "expected multiworker for the 2 workers that TF_CONFIG tells of, got mirrored",
        ),
    ],
)
def test_what_cannot_be(monkeypatch, text, settings, said):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError) as caught:
        strategies.strategy(**settings)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1) in {"),
        ("[1]", "a list in [1]"),
        ('{"cluster": {"worker": ["a:1"]}}', "no 'task' in {"),
        ('{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}', "a list as cluster in {"),
        (config(index=7), "index 7, which is none of the 2 of 'worker', in {"),
        (config(index=-1), "index -1, which is none of the 2 of 'worker', in {"),
        (config(index="1"), "index '1', which is none of the 2 of 'worker', in {"),
        (config(type="evaluator"), "'evaluator', where each task is a worker, or the chief, in {"),
        (config(type="chief"), "no 'chief' in {"),
        (config(workers={**WORKERS, "ps": ["c:3"]}), "'ps', where each task is a worker, or the chief, in {"),
        (config(workers={"worker": ["a:1", "b"]}), "the address 'b', which is not host:port, in {"),
        (config(workers={"worker": ["a:1", "b:99999"]}), "the address 'b:99999', which is not host:port, in {"),
        (config(workers={"worker": ["a:1", 2]}), "the address 2, which is not host:port, in {"),
    ],
)
def test_a_configuration_that_tells_of_no_workers_is_refused(monkeypatch, text, got):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError) as caught:
        strategies.strategy()
    said = 'expected TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    assert str(caught.value).startswith(f"{said}, got {got}")
    assert str(caught.value).endswith("; mend it")


def test_a_task_of_no_cluster_is_alone(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}, "task": {"type": "worker", "index": 1}}')
    assert strategies.is_chief()
    assert strategies.strategy().num_replicas_in_sync == 1


def test_a_port_that_is_in_use_is_told(monkeypatch):
    with socket.create_server(("localhost", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        monkeypatch.setenv("TF_CONFIG", config(workers={"worker": [address, "localhost:1"]}))
        message = f"expected a free port for this worker at {address}, got address already in use; end what has it"
        with pytest.raises(InputError, match=message):
            strategies.strategy("multiworker", timeout=1.0)


def test_a_worker_that_never_comes_is_named_in_time(monkeypatch):
    first, _ = environments(2)
    monkeypatch.setenv("TF_CONFIG", first["TF_CONFIG"])
    missing = json.loads(first["TF_CONFIG"])["cluster"]["worker"][1]
    with pytest.raises(InputError, match=f"expected all workers within 1 s, got no answer from {missing}"):
        strategies.strategy("multiworker", timeout=1.0)


@pytest.mark.parametrize(
    ("told", "workers", "shares"),
    [
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("GPU-8d, 3 ,1", 3, ["GPU-8d", "3", "1"]),
        ("2,1,0", 2, ["2", "1"]),  # all get as many
        ("0,-1,2", 1, ["0"]),
        ("-1", 2, [None, None]),
        ("", 2, [None, None]),
        (None, 2, ["0", "1"]),  # of the two that are listed
    ],
)
def test_each_worker_gets_its_share_of_the_gpus(monkeypatch, tmp_path, told, workers, shares):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1a)'\necho '  MIG 1g'\necho 'GPU 1: A (UUID: GPU-2b)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert [own.get("CUDA_VISIBLE_DEVICES") for own in environments(workers)] == shares


def test_more_workers_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(InputError, match="expected a GPU for each of 3 workers, got 2; lower --workers, or set CUDA"):
        environments(3)


@pytest.mark.parametrize("path", ["none", "failing"])
def test_a_host_without_gpus_is_divided_all_the_same(monkeypatch, tmp_path, path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing/nvidia-smi").write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    (tmp_path / "failing/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / path}{os.pathsep}/bin")
    assert all("CUDA_VISIBLE_DEVICES" not in own for own in environments(2))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "expected train as the command that the workers run, got none; launch train RECIPE ..."),
        ("--workers 2 evaluate runs/train", "expected train as the command that the workers run, got evaluate; launch"),
        ("--workers=0 train recipe.py", "expected --workers of at least 1, got 0; raise it"),
        ("--workers", "expected a value for --workers, got none"),
    ],
)
def test_what_cannot_be_launched_is_refused(arguments, said):
    with pytest.raises(InputError) as caught:
        launch(arguments.split())
    assert str(caught.value).startswith(said)


STUB = """import os, signal, sys, time
from pathlib import Path
index = 1 if '"index": 1' in os.environ["TF_CONFIG"] else 0
folder = Path(sys.argv[1])
def stop(number, frame):
    signal.signal(number, signal.SIG_DFL)  # as ours: a second signal ends it at once
    time.sleep(1.0 - index)  # the first worker saves
    (folder / f"saved{index}").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(folder / f"ready{index}").touch()
time.sleep(300)
"""


def test_a_signal_to_a_launch_leaves_workers_the_time_to_save(tmp_path):
    stub = tmp_path / "kerasformer"
    stub.mkdir()
    (stub / "__init__.py").touch()
    shutil.copy(errors.__file__, stub)
    (stub / "__main__.py").write_text(STUB)
    launch = Path(strategies.__file__).with_name("launch.py")
    code = f"import runpy, sys; sys.exit(runpy.run_path({str(launch)!r})['launch']([{str(tmp_path)!r}], 2))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    while not all((tmp_path / f"ready{index}").exists() for index in (0, 1)):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert (tmp_path / "saved0").exists() and (tmp_path / "saved1").exists()
