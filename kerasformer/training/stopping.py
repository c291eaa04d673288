"""Ending a training between two steps when a signal asks for it."""

import logging
import signal
import threading
from types import FrameType
from typing import Self

from kerasformer.errors import Stopped

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Within it, the first SIGTERM or SIGINT is noted in `received`; a second one does what it always does."""

    received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._before, self._telling = {}, None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        self._leave()
        if self._telling:
            self._telling.join()

    def stop(self, step: int) -> None:
        """Ends the training, which was saved at that step."""
        raise Stopped(self.received or signal.SIGTERM, step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._leave()
        # In a thread, as this one may be in the middle of a line, where a stream takes no other.
        text = "%s: stopping after this step; a second one stops at once"
        self._telling = threading.Thread(target=logger.warning, args=(text, self.received.name))
        self._telling.start()

    def _leave(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
