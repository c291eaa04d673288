"""Texts as they grow: whole characters alone, and nothing of a stop string or after it."""

import codecs
from collections.abc import Iterable, Sequence

from kerasformer.text.bpe import BPE


class GrowingText:
    """Turns the ids of one row, as they come, into the text that is certain.

    Args:
        tokenizer: gives the bytes of ids.
        stop: the text ends before the first of these strings that is complete; the longest, if several end there.
    """

    def __init__(self, tokenizer: BPE, stop: Sequence[str] = ()):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.is_stopped = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""  # may be the start of a stop string

    def add(self, ids: Iterable[int], *, is_last: bool = False) -> str:
        """The text that these ids make certain; with `is_last` all that is left."""
        if self.is_stopped:
            return ""
        known = [i for i in ids if i < self.tokenizer.vocab_size]  # a model may have more outputs, which mean nothing
        text = self._pending + self._decoder.decode(self.tokenizer.decode_bytes(known), bool(is_last))
        found = [(at + len(stop), at) for stop in self.stop if (at := text.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            return text[: min(found)[1]]
        certain = len(text) if is_last else len(text) - self._held_back(text)
        self._pending = text[certain:]
        return text[:certain]

    def _held_back(self, text: str) -> int:
        """How long the end of the text is that a stop string may begin with."""
        longest = max(map(len, self.stop), default=1) - 1
        ends = range(min(longest, len(text)), 0, -1)
        return next((n for n in ends if any(stop.startswith(text[-n:]) for stop in self.stop)), 0)
