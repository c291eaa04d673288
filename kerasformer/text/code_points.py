"""What a normalizer and pre-tokenizer make of every code point: a compact table, read off the reference itself."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Regex, normalizers

PAGE = 256
NOTHING = -(1 << 22)  # so low that a code point plus this is none: encoding the output as UTF-8 leaves it out
BREAK = -(1 << 23)

_CODE_POINTS = (range(0xD800), range(0xE000, 0x110000))  # no surrogates: no decoder lets them through
_MAYBE_MARKS = (range(0xD800), range(0xE000, 0x20000), range(0xE0000, 0x110000))  # else: ideographs, if any
_HIGH, _LOW = "\U0001d16d", "\U0001d165"  # two marks that accent stripping keeps and canonical ordering swaps
_BETWEEN = "qz"  # no code point turns into these two letters, so the output can be split at them


@dataclass(frozen=True)
class CodePointMap:
    """Code point c turns into row `rows[pages[c // PAGE], c % PAGE]` of `outputs`: up to W code points.

    Attributes:
        pages: [0x110000 // PAGE] int32.
        rows: [P, PAGE] int32, the distinct pages.
        outputs: [R, W] int32, differences to add to c; or BREAK, where a word ends; or NOTHING.
        ranks: [R, W] int32, the canonical order of each output that is a combining mark or nothing, and 0 for
            those that no mark moves across.
    """

    pages: np.ndarray
    rows: np.ndarray
    outputs: np.ndarray
    ranks: np.ndarray

    @property
    def has_mark(self) -> np.ndarray:
        """[R] bool: the row holds a mark that canonical ordering may swap with its neighbour."""
        return ((self.ranks > 0) & (self.outputs != NOTHING)).any(axis=1)


@dataclass(frozen=True)
class CodePointClasses:
    """Code point c is of class `rows[pages[c // PAGE], c % PAGE]`.

    Attributes:
        pages: [0x110000 // PAGE] int32.
        rows: [P, PAGE] uint8, the distinct pages.
    """

    pages: np.ndarray
    rows: np.ndarray


@functools.cache
def class_code_points(*patterns: str) -> CodePointClasses:
    """Tells which code points match the first pattern (class 1), the second (2) and so on, or none (0).

    Args:
        patterns: regular expressions for one character, as the reference's own engine and Unicode version read them.
    """
    classes = np.zeros(0x110000, np.uint8)
    for number, pattern in enumerate(patterns, 1):
        replace = normalizers.Replace(Regex(pattern), "\0").normalize_str
        for span in _CODE_POINTS:
            text = "".join(map(chr, span))
            replaced = np.frombuffer(replace(text).encode("utf-32-le"), np.uint32)
            classes[span.start : span.stop][replaced != np.arange(span.start, span.stop)] = number
    rows, pages = _distinct(classes.reshape(-1, PAGE))
    return CodePointClasses(pages, rows)


def map_code_points(normalize: Callable[[str], str], split: Callable[[str], Sequence]) -> CodePointMap:
    """Builds the map by running the reference on every code point, between letters and then between marks.

    Args:
        normalize: `normalize_str` of a tokenizers normalizer. What becomes of a code point may depend on its
            neighbours only by the canonical ordering of marks (https://www.unicode.org/reports/tr15/).
        split: `pre_tokenize_str` of a tokenizers pre-tokenizer that drops white space.
    """
    texts = dict(_run(lambda text: " ".join(word for word, _ in split(normalize(text))), _CODE_POINTS))
    framed = _run(normalize, _MAYBE_MARKS, _HIGH, _LOW)
    moved = [c for c, text in framed if not (text.startswith(_HIGH) and text.endswith(_LOW))]
    ranks = np.zeros(0x110000, np.int32)
    for char, rank in _ranks(normalize, {char for c in moved for char in texts[c]}):
        ranks[ord(char)] = rank

    codes = np.array([texts.get(c, "") for c in range(0x110000)]).view(np.int32).reshape(0x110000, -1)  # 0 fills up
    shifts = codes - np.arange(0x110000, dtype=np.int32)[:, None]
    outputs = np.where(codes == 0, NOTHING, np.where(codes == ord(" "), BREAK, shifts))  # [0x110000, W]
    order = np.where(codes == 0, 1, ranks[codes])
    order[:, 0] = np.where(codes[:, 0] == 0, np.isin(np.arange(0x110000), moved), order[:, 0])
    return _compact(outputs, order)


def _run(
    reference: Callable[[str], str], spans: Iterable[range], before: str = "", after: str = ""
) -> Iterator[tuple[int, str]]:
    """Yields each code point c and what the reference makes of before + c + after, running many at a time."""
    for batch in (span[start : start + 4096] for span in spans for start in range(0, len(span), 4096)):
        inputs = _BETWEEN.join(before + chr(c) + after for c in batch)
        outputs = reference(_BETWEEN + inputs + _BETWEEN).split(_BETWEEN)
        yield from zip(batch, outputs[1:-1], strict=True)


def _ranks(normalize: Callable[[str], str], marks: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yields each mark and its rank: one more than how many of the others the reference moves in front of it."""
    marks = list(marks)
    for mark in marks:
        pairs = normalize(_BETWEEN.join(mark + other for other in marks)).split(_BETWEEN)
        yield mark, 1 + sum(pair != mark + other for pair, other in zip(pairs, marks, strict=True))


def _compact(outputs: np.ndarray, ranks: np.ndarray) -> CodePointMap:
    """Finds the distinct pages, and in these the distinct rows, of two [0x110000, W] tables."""
    width = outputs.shape[1]
    table = np.concatenate([outputs, ranks], axis=1).astype(np.int32)
    distinct, pages = _distinct(table.reshape(-1, PAGE * 2 * width))
    table, rows = _distinct(distinct.reshape(-1, 2 * width))
    return CodePointMap(pages, rows.reshape(-1, PAGE), table[:, :width], table[:, width:])


def _distinct(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct rows in order of first use, and for each row of the table which one it is."""
    numbers: dict[bytes, int] = {}
    index = [numbers.setdefault(row.tobytes(), len(numbers)) for row in table]
    return np.frombuffer(b"".join(numbers), table.dtype).reshape(len(numbers), -1), np.array(index, np.int32)
