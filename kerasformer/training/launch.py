"""Workers on this host: processes that train together, as they would on several hosts."""

import collections
import ctypes
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from kerasformer.errors import InputError

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
    """TF_CONFIG of each worker, on ports that are free, and its share of the cores and GPUs.

    Raises:
        InputError: there are GPUs, but fewer than workers.
    """
    sockets = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    gpus = shares_of(visible_gpus(), workers)
    return [
        {
            "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}),
            "TF_NUM_INTRAOP_THREADS": os.environ.get("TF_NUM_INTRAOP_THREADS", threads),
        }
        | ({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {})
        for index in range(workers)
    ]


def visible_gpus() -> list[str]:
    """The GPUs of this host as CUDA_VISIBLE_DEVICES names them: those that it does, or all that nvidia-smi lists.

    TensorFlow is not asked, as it would take memory on each of them. Tried without GPUs alone, on what both may say;
    instances that a GPU is divided into (MIG) and GPUs of other makers are not looked for.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:  # CUDA too reads it up to the first that is none
        return list(itertools.takewhile(re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch, map(str.strip, told.split(","))))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def shares_of(gpus: Sequence[str], workers: int) -> list[str]:
    """Each worker's GPUs, with commas; all get as many, so that some may be left over. [] where there are none.

    Raises:
        InputError: there are some, but fewer than workers.
    """
    if 0 < len(gpus) < workers:
        raise InputError(
            f"expected a GPU for each of {workers} workers, got {len(gpus)}; lower --workers, or set "
            "CUDA_VISIBLE_DEVICES=-1 to train on the CPU"
        )
    count = len(gpus) // workers
    return [",".join(gpus[i * count : (i + 1) * count]) for i in range(workers)] if gpus else []


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
