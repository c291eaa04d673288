r"""Whether quotes in a file with tabs stand around fields, or are characters of them as in GLUE's files.

Both kinds are common and nothing names them. What tells them apart is how a program writes quoted fields: it quotes
what holds a tab, a line break or a quote, and doubles the quotes inside, so that no other field holds one.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping

from kerasformer.data.readers.columns import has_columns

Rows = list[tuple[int, list[str]]]  # the line on which a row starts, and its fields

# The quoted fields of a file in which each quote at the beginning of a field is closed at its end.
_QUOTED = re.compile(r'(?:^|(?<=[\t\r\n]))"((?:[^"]|"")*+)"(?=[\t\r\n]|$)')
_NEEDS_QUOTES = re.compile(r'[\t\r\n"]')


def is_quoted(text: str, plain: Rows, quoted: Rows, wanted: Mapping[str, str]) -> bool | None:
    """Whether a file with tabs and quotes is one of quoted fields; None if that cannot be told.

    Args:
        plain, quoted: the rows of both readings, without blank lines.
        wanted: the name of each field's column.
    """
    if has_columns(quoted[0][1], wanted) and not has_columns(plain[0][1], wanted):
        return True
    width = len(plain[0][1])
    misfits = [line for line, row in plain if len(row) != width]
    fits = len({len(row) for _, row in quoted}) == 1
    merged = _merged(plain, quoted, width)
    if merged and fits and misfits:
        # Quotes explain the rows that do not fit: all of the file's, or only those within what may be several rows.
        return None if merged.issuperset(misfits) else True
    if merged:
        return False if width > 1 else None  # each line is a row by itself, of several fields
    if fits != (not misfits):
        return fits
    rest = _QUOTED.sub("", text)
    if '"' in rest:
        return False
    fields = _QUOTED.findall(text)
    if all(map(_NEEDS_QUOTES.search, fields)):
        return True
    # Excel quotes commas as well; others quote a column as a whole.
    like_excel = "," not in rest and all("," in field or _NEEDS_QUOTES.search(field) for field in fields)
    columns = zip(*(row for _, row in plain[1:]), strict=False)
    return None if like_excel or any(all(field.startswith('"') for field in column) for column in columns) else False


def _merged(plain: Rows, quoted: Rows, width: int) -> set[int]:
    """The lines of quoted rows in which there are several rows as wide as the header, if they are not quoted."""
    fitting = [line for line, row in plain if len(row) == width]
    starts = [line for line, _ in quoted]
    spans = zip(starts, [*starts[1:], plain[-1][0] + 1], strict=True)
    long = [(start, end) for start, end in spans if end - start > 1]
    several = [(start, end) for start, end in long if bisect_left(fitting, end) - bisect_left(fitting, start) > 1]
    return {line for start, end in several for line in range(start, end)}
