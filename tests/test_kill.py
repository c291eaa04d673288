"""A training that is killed at any time, through the real command line, ends with the weights of one that was not."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from processes import Forked
from resumed import learned

from kerasformer.cli import main

RECIPE = """import os, time
from pathlib import Path
from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain
recipe = LanguageRecipe(
    "run",
    LanguageData((Path(__file__).parent / "text.txt",), tokenizer="char", max_length=32, batch_size=4),
    LanguageModel(num_layers=1, num_heads=2, dim=32, dropout=0.1),
    LanguageTrain(learning_rate=1e-2, precision="float32", compile="none"),
)
if pause := float(os.environ.get("PAUSE", 0)):
    from kerasformer.training.callbacks import MetricsLog
    log = MetricsLog.on_train_batch_end
    MetricsLog.on_train_batch_end = lambda self, batch, logs=None: (log(self, batch, logs), time.sleep(pause))
"""
PAUSE = 0.1  # seconds after a step is logged: whoever waits for one sees it before many more are made


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    """How to train a small model; further flags may follow."""
    folder = tmp_path_factory.mktemp("recipe")
    numbers = random.Random(0)
    (folder / "text.txt").write_text(" ".join(numbers.choices("the cat sat on a mat and dogs ran .".split(), k=4000)))
    (folder / "recipe.py").write_text(RECIPE)
    return ["train", str(folder / "recipe.py"), "--runs", str(folder / "runs")]


class Run:
    """A run that processes work on, one after another."""

    def __init__(self, command: list[str], name: str, *flags: str):
        self.command = [*command, "--name", name, *flags]
        self.folder = Path(command[-1]) / name

    def start(self, pause: float = 0.0) -> Forked:
        """A process of its own session, so that all of a command's processes can be killed at once."""
        return Forked(self.command, environment={"PAUSE": str(pause)}, new_session=True)

    def finish(self) -> dict:
        """Runs to the end; returns the figures."""
        process = self.start()
        out, err = process.communicate()
        assert process.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def interrupt(
        self, number: signal.Signals, step: int, delay: float = 0.0, worker: int | None = None, pause: float = 0.0
    ) -> tuple[int, str]:
        """Sends a signal when a step has been logged, seconds after it; returns the exit code and what was said.

        Args:
            worker: which one of a launch gets it; by default the process that was started.
            pause: seconds after each step.
        """
        before, process = self.log, self.start(pause)
        try:
            # A process that goes on replaces the log, so what it says is news.
            while process.poll() is None and (self.log in (None, before) or self.step < step):
                time.sleep(0.01)
            time.sleep(delay)
        finally:
            if process.poll() is None and worker is None:
                os.killpg(process.pid, number)
            elif process.poll() is None:
                os.kill(children(process.pid)[worker], number)
        _, err = process.communicate()
        return process.returncode, err

    def lines(self) -> list[dict]:
        """What was logged."""
        return learned(self.folder / "metrics.jsonl")

    @property
    def log(self) -> int | None:
        """Which file the log is."""
        path = self.folder / "metrics.jsonl"
        return path.stat().st_ino if path.exists() else None

    @property
    def step(self) -> int:
        return max((line["step"] for line in self.lines()), default=0)

    @property
    def saved(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in (self.folder / "checkpoints").glob("step-*"))

    def weights(self) -> tuple[bytes, bytes]:
        """The training's last state and the best model, as files."""
        [*_, last] = sorted((self.folder / "checkpoints").glob("step-*"))
        return (last / "state.safetensors").read_bytes(), (self.folder / "model/model.safetensors").read_bytes()


def children(pid: int) -> list[int]:
    """The processes that a process has started, in their order."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def launched(command: list[str]) -> list[str]:
    """The same training by two workers."""
    return ["launch", "--workers", "2", *command]


def assert_the_same(run: Run, whole: Run, replicas: int = 1) -> None:
    assert run.weights() == whole.weights()
    # Each step once, with the same running means; those of several replicas are added up in another order.
    tolerance = 0.0 if replicas == 1 else 1e-6
    for line, expected in zip(run.lines(), whole.lines(), strict=True):
        assert line == pytest.approx(expected, rel=tolerance, abs=0.0)


def test_three_kills_leave_no_trace(command, capsys):
    flags = ("--train.steps", "40", "--train.evaluate_every", "20", "--train.checkpoint_every", "4")
    whole, run = Run(command, "whole", *flags), Run(command, "killed", *flags)
    assert main(whole.command) == 0  # in this process, which has imported all already
    figures = json.loads(capsys.readouterr().out)
    for step in (2, 11):  # before the first checkpoint, and within an epoch
        code, err = run.interrupt(signal.SIGKILL, step, pause=PAUSE)
        assert code == -signal.SIGKILL, err
        assert run.step < 20
    code, err = run.interrupt(signal.SIGTERM, run.step + 5, pause=PAUSE)
    assert code == 128 + signal.SIGTERM, err
    last = run.saved[-1]
    assert last == run.step < 40
    said = f"kerasformer: stopped by SIGTERM at step {last}, which is saved; the same command goes on from there"
    assert err.splitlines()[-1] == said

    found = run.finish()
    assert found | {"train_seconds": 0, "model": ""} == figures | {"train_seconds": 0, "model": ""}
    assert_the_same(run, whole)
    assert len(run.saved) == 2 and run.saved[-1] == 40
    assert not list(run.folder.rglob(".*")), "half-written files of the killed are gone"


@pytest.mark.slow
def test_thirty_kills_at_random_leave_no_trace(command):
    flags = ("--train.steps", "300", "--train.evaluate_every", "100", "--train.checkpoint_every", "7")
    flags += ("--train.optimizer", "muon", "--train.precision", "bfloat16", "--train.on_nan", "rewind")
    whole, run = Run(command, "long", *flags), Run(command, "long_killed", *flags)
    whole.finish()
    numbers, kills = random.Random(0), 0
    while kills < 30:
        # Some kills come at the first step, some fall into the writing of a checkpoint, and on average a run gets on.
        target = min((run.saved or [0])[-1] + numbers.randint(0, 18), 299)
        code, err = run.interrupt(signal.SIGKILL, target, delay=numbers.uniform(0, 0.02))
        assert code == -signal.SIGKILL, err
        kills += 1
    run.finish()
    assert_the_same(run, whole)


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_and_leaves_no_trace(command):
    flags = ("--train.steps", "16", "--train.checkpoint_every", "4")
    whole, run = (Run(launched(command), name, *flags) for name in ("two_whole", "two_killed"))
    begun = time.monotonic()
    code, err = run.interrupt(signal.SIGKILL, 9, worker=1, pause=PAUSE)
    assert code == 128 + signal.SIGKILL
    assert "kerasformer: worker 1 ended with exit code 137; the others are told to save and end" in err
    assert time.monotonic() - begun < 300
    assert 4 <= run.saved[-1] < 16
    assert run.finish().keys() == whole.finish().keys()
    assert_the_same(run, whole, replicas=2)


@pytest.mark.slow
def test_a_worker_that_hangs_ends_the_run_in_time(command):
    run = Run(launched(command), "two_stopped", "--train.steps", "100000", "--train.worker_timeout", "20")
    begun = time.monotonic()
    code, err = run.interrupt(signal.SIGSTOP, 9, worker=1)
    assert code == 2
    assert "kerasformer: expected every worker to answer, got " in err
    assert "kerasformer: worker 0 ended with exit code 2; the others are told to save and end" in err
    assert time.monotonic() - begun < 300


@pytest.mark.slow
def test_thirty_kills_of_two_workers_leave_no_trace(command):
    flags = ("--train.steps", "300", "--train.evaluate_every", "100", "--train.checkpoint_every", "7")
    whole, run = (Run(launched(command), name, *flags) for name in ("long_two", "long_two_killed"))
    whole.finish()
    numbers = random.Random(1)
    for _ in range(30):
        target = min((run.saved or [0])[-1] + numbers.randint(0, 18), 299)
        worker = numbers.choice([None, 0, 1])  # none: the launcher, with whom its workers die
        code, err = run.interrupt(signal.SIGKILL, target, numbers.uniform(0, 0.02), worker)
        assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), err
    run.finish()
    assert_the_same(run, whole, replicas=2)
