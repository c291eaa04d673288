"""Which of several implementations is the fastest on this machine: measured once, then read from a file.

`KERASFORMER_KERNELS=default` measures nothing and takes the default of each choice. The file lies in the folder that
`KERASFORMER_CACHE` names, by default `kerasformer` in the user's cache folder; a choice in it may be edited or removed.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from kerasformer.files import write_json

logger = logging.getLogger(__name__)

ROUNDS = 3  # of each candidate, in turn: the least time is that of the round that no other process disturbed
GAIN = 0.9  # a candidate replaces the default where it takes at most this fraction of the time
# What changes the kernels that the libraries choose, beside the CPU.
VARIABLES = ("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "OMP_NUM_THREADS")


def fastest(choice: str, candidates: Mapping[str, Callable[[], object]]) -> str:
    """The name of the candidate that takes the least time on this machine.

    Args:
        choice: what is chosen, with all that the times depend on beside the machine: "decode of 1 row of bfloat16".
        candidates: functions that return when their work is done. Each is called once before it is timed. The first
            is the default.
    """
    default = next(iter(candidates))
    if len(candidates) == 1 or os.environ.get("KERASFORMER_KERNELS") == "default":
        return default
    path = cache_folder() / f"kernels-{_machine()}.json"
    known = _read(path)
    if known.get(choice) in candidates:
        return known[choice]
    seconds = _times(candidates)
    best = min(seconds, key=seconds.get)
    chosen = best if seconds[best] <= GAIN * seconds[default] else default
    times = ", ".join(f"{name} {1e3 * taken:.3g} ms" for name, taken in seconds.items())
    logger.info("measured on this machine, %s: %s; takes %s", choice, times, chosen)
    _write(path, choice, chosen)
    return chosen


def cache_folder() -> Path:
    """Where measured choices are kept."""
    if folder := os.environ.get("KERASFORMER_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kerasformer"


def _times(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The least seconds of a call of each."""
    for run in candidates.values():
        run()
    seconds = dict.fromkeys(candidates, float("inf"))
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            begun = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - begun)
    return seconds


def _machine() -> str:
    """A hash of what the times depend on: the CPU, how many cores this process may use, and the libraries' kernels."""
    cpuinfo = Path("/proc/cpuinfo")  # absent outside Linux
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else [platform.processor()]
    cpu = sorted({line for line in lines if line.startswith(("model name", "flags"))}) or lines[:1]
    settings = [f"{name}={os.environ.get(name, '')}" for name in VARIABLES]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = [*cpu, str(cores), version("tensorflow"), version("keras"), *settings]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, str]:
    """The choices that were measured before; none where the file is missing or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {choice: name for choice, name in known.items() if isinstance(name, str)} if isinstance(known, dict) else {}


def _write(path: Path, choice: str, chosen: str) -> None:
    """Keeps a choice. Where the folder cannot be written, the next process measures again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _read(path) | {choice: chosen})
    except OSError as error:
        logger.info("measured choices are not kept, as %s cannot be written: %s", path, error.strerror)
