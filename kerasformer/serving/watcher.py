"""Keeps the newest version of each model of a folder in service, as TF Serving's file system poll does.

Sources: tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc, and aspired_versions_manager.cc and
availability_preserving_policy.cc in tensorflow_serving/core.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from kerasformer.serving.servables import Servable, Servables
from kerasformer.serving.session import DEFAULT_SIGNATURE, reason
from kerasformer.serving.versions import Files, files_of, newest

MAX_RETRIES = 5  # TF Serving's --max_num_load_retries
RETRY_SECONDS = 60.0  # its --load_retry_interval_micros

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Loads of a version that failed: of which files, how many, and when to try again."""

    files: Files
    count: int
    retry_time: float

    @property
    def is_due(self) -> bool:
        """Whether the same files are to be tried again."""
        return self.count <= MAX_RETRIES and time.monotonic() >= self.retry_time


class Watcher:
    """Loads and unloads the models of a folder.

    A new version is loaded in full before the one that it replaces is unloaded. One that does not load leaves the old
    one in service; it is tried again five times, a minute apart, and whenever its files change.

    Args:
        folder: holds `<model>/<integer version>/`.
        servables: what is in service.
        tell: prints a line on what has happened.
    """

    def __init__(self, folder: Path, servables: Servables, tell: Callable[[str], None]):
        self.folder, self.servables, self.tell = folder, servables, tell
        self._files: dict[str, Files] = {}  # of the newest version of each model, at the last poll
        self._failures: dict[str, Failure] = {}  # of each model's newest version
        self._faults: dict[str, str] = {}  # what could not be read, and why
        self._stopped = Event()
        self._thread: Thread | None = None

    def start(self, seconds: float) -> None:
        """Poll from now on, with so many seconds between two polls; 0 polls no more."""
        if seconds:
            self._thread = Thread(target=self._run, args=(seconds,), name="kerasformer-poll", daemon=True)
            self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """End the polls; returns when the one under way is over, or after so many seconds."""
        self._stopped.set()
        if self._thread:
            self._thread.join(timeout)

    def _run(self, seconds: float) -> None:
        while not self._stopped.wait(seconds):
            try:
                self.poll(only_settled=True)
            except Exception:  # the next poll may do better, and what is in service stays
                _log.exception("A poll of %s failed", self.folder)

    def poll(self, only_settled: bool = False) -> None:
        """Bring what is in service in line with what is in the folder.

        Args:
            only_settled: leave a version alone whose files have changed since the last poll: it is being written.
        """
        try:
            found = {path.name for path in self.folder.iterdir() if path.is_dir()}
        except OSError as error:  # a disk may be away for a while, for which nothing is unloaded
            self._tell_fault("", f"{self.folder} cannot be read: {error.strerror}; what is in service stays")
            return
        self._faults.pop("", None)
        for name in sorted(found | set(self.servables.names())):
            if self._stopped.is_set():
                return
            try:
                version = newest(self.folder / name)
                files = files_of(version) if version else None
            except OSError as error:
                self._tell_fault(name, f"{name} cannot be read: {error.strerror}; what is in service stays")
                continue
            self._faults.pop(name, None)
            if version:
                self._update(name, version, files, only_settled)
            else:
                self._unload(name)

    def _update(self, name: str, version: Path, files: Files, only_settled: bool) -> None:
        """Put the newest version of a model into service, unless it is already, or has failed, or is being written."""
        before, self._files[name] = self._files.get(name), files
        number, failure = int(version.name), self._failures.get(name)
        servable = self.servables.in_service(name).get(number)
        if servable is None or servable.files != files:
            is_new = failure is None or failure.files != files
            if not (is_new or failure.is_due) or (only_settled and before != files):
                return
            if not self._load(name, version, files, 1 if is_new else failure.count + 1):
                return
        self._unload(name, keep=number)

    def _load(self, name: str, version: Path, files: Files, count: int) -> bool:
        """Load a version and say how that went; returns whether it is in service."""
        started = time.perf_counter()
        loaded = self.servables.load(name, version)
        if loaded.error is None:
            self._failures.pop(name, None)
            signatures = ", ".join(callable_signatures(loaded.servable))
            self.tell(f"{name} version {loaded.number}: {signatures} ({time.perf_counter() - started:.2f} s)")
            return True
        self._failures[name] = Failure(files, count, time.monotonic() + RETRY_SECONDS)
        if count == 1:
            self.tell(f"{name} version {loaded.number}: failed to load: {reason(loaded.error.message)}")
        return False

    def _unload(self, name: str, keep: int | None = None) -> None:
        for number in self.servables.in_service(name):
            if number != keep:
                self.servables.unload(name, number)
                self.tell(f"{name} version {number}: unloaded")
        if keep is None:
            self._files.pop(name, None)
            self._failures.pop(name, None)

    def _tell_fault(self, name: str, text: str) -> None:
        """Says what is wrong when it begins, or changes."""
        if self._faults.get(name) != text:
            self._faults[name] = text
            self.tell(text)


def callable_signatures(servable: Servable) -> list[str]:
    """The signatures that take inputs, the default one first."""
    names = (name for name, signature in servable.signatures.items() if signature.inputs)
    return sorted(names, key=lambda name: (name != DEFAULT_SIGNATURE, name))
