"""Workers on this host: processes that train together, as they would on several hosts."""

import collections
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

GRACE = 30.0  # seconds that workers have to save and end when they are told to
# Exit codes of workers that a signal has stopped: all of them stop at one step, and the first may still be saving.
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT)
SHOWN_LINES = 20  # of what a worker said last, where it failed


def launch(arguments: Sequence[str], workers: int) -> int:
    """Runs a command of kerasformer in so many workers that TF_CONFIG tells of each other.

    The first worker has this process's output. Where a worker fails, the others are told to save and end; signals go to
    all. Returns the first exit code that is not zero, else 0.
    """
    processes, said = [], []
    for index, environment in enumerate(environments(workers)):
        chief = index == 0
        process = subprocess.Popen(
            [sys.executable, "-m", "kerasformer", *arguments],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=None if chief else subprocess.DEVNULL,
            stderr=None if chief else subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal comes through here alone
            preexec_fn=_die_with_parent,
        )
        processes.append(process)
        said.append(collections.deque(maxlen=SHOWN_LINES))
        if not chief:
            threading.Thread(target=_read, args=(process, said[-1]), daemon=True).start()

    def pass_on(number: int, frame: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _wait(processes, said)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def environments(workers: int) -> list[dict[str, str]]:
    """TF_CONFIG of each worker, on ports that are free, and its share of the cores."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    return [
        {
            "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}),
            "TF_NUM_INTRAOP_THREADS": os.environ.get("TF_NUM_INTRAOP_THREADS", threads),
        }
        for index in range(workers)
    ]


def _wait(processes: list[subprocess.Popen], said: list[collections.deque]) -> int:
    code, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes):
        failed = [i for i, process in enumerate(processes) if process.poll() and _exit_code(process) not in STOPPED]
        if failed and not code:
            code = _exit_code(processes[failed[0]])
            _tell(failed[0], code, said[failed[0]])
            deadline = time.monotonic() + GRACE
            for process in processes:
                process.terminate()
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    return code or next((_exit_code(process) for process in processes if process.returncode), 0)


def _exit_code(process: subprocess.Popen) -> int:
    """As a shell gives it."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _tell(index: int, code: int, said: collections.deque) -> None:
    for line in said:
        print(f"[worker {index}] {line}", end="", file=sys.stderr)
    print(
        f"kerasformer: worker {index} ended with exit code {code}; the others are told to save and end", file=sys.stderr
    )


def _read(process: subprocess.Popen, said: collections.deque) -> None:
    said.extend(line.decode(errors="replace") for line in process.stderr)


def _die_with_parent() -> None:
    """So that no worker lives on when this process is killed."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
