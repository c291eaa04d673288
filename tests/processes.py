"""Processes of their own for tests, forked from one that has imported TensorFlow: importing it takes seconds.

The process that they are forked from has imported modules and done nothing else, so that a fork is as good as new.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from kerasformer.cli import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tensorflow", "keras", "kerasformer.training.train"])


class Forked:
    """A command in a process, or another function of a list of words; what `subprocess.Popen` has of it.

    Args:
        environment: variables beside those of this process; what is read as TensorFlow is imported comes too late.
        new_session: whether its process group is its own.
    """

    def __init__(
        self,
        words: Sequence[str],
        run: Callable[[list[str]], int | None] = main,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        new_session: bool = False,
    ):
        (stdin, self._stdin), *outputs = (_CONTEXT.Pipe(duplex=False) for _ in range(3))
        ends = [stdin, *(end for _, end in outputs)]
        changes = {"cwd": str(cwd or Path.cwd()), "environment": dict(environment or {}), "new_session": new_session}
        self._process = _CONTEXT.Process(target=_begin, args=(run, list(words), ends), kwargs=changes)
        self._process.start()
        self.pid = self._process.pid
        for end in ends:
            end.close()
        self._readers = ThreadPoolExecutor(2)
        self._outputs = [self._readers.submit(_text, reading) for reading, _ in outputs]

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, stdin: str = "", timeout: float = 300) -> tuple[str, str]:
        """Waits for its end; returns what it wrote to stdout and stderr."""
        with open(self._stdin.fileno(), "w", encoding="utf-8", closefd=False) as file:
            file.write(stdin)
        self._stdin.close()
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"a process did not end within {timeout} s")
        out, err = (output.result(timeout) for output in self._outputs)
        self._readers.shutdown()
        return out, err


def stop() -> None:
    """Ends the process that forks them and waits for it, or what times the tests would not count its seconds."""
    multiprocessing.forkserver._forkserver._stop()


def run_python(words: list[str]) -> None:
    """Runs a file, or a module after `-m`, as Python's own command line does."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _begin(run, words: list[str], ends: list[Connection], *, cwd: str, environment: dict, new_session: bool) -> None:
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if new_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.update(environment)
    sys.exit(run(words))


def _text(reading: Connection) -> str:
    with open(reading.fileno(), encoding="utf-8", closefd=False) as file, reading:
        return file.read()
