"""Labelled texts from wherever they are: tables, JSON, Parquet, shards of them, class folders, Python lists."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasformer.config.classify import Quoting
from kerasformer.config.run import OnBad
from kerasformer.data.labels import KEEP, UNLABELLED, find_missing_label, label_texts
from kerasformer.data.readers.bad_rows import SKIP_FLAGS, BadRows, text_fault
from kerasformer.data.readers.class_folders import read_class_folders
from kerasformer.data.readers.columns import Raw, Reading, spoken
from kerasformer.data.readers.folders import find_tables
from kerasformer.data.readers.json_records import JSON, objects, read_json_table, table_of
from kerasformer.data.readers.parquet import read_parquet
from kerasformer.data.readers.tables import SEPARATORS, check_format, read_table
from kerasformer.data.readers.text import kind_of, unreadable
from kerasformer.errors import InputError, listed

READERS = dict.fromkeys(SEPARATORS, read_table) | dict.fromkeys(JSON, read_json_table)
READERS |= {".parquet": read_parquet}
KINDS = ".csv, .tsv, .jsonl, .ndjson, .json (each also as .gz), .parquet, or a folder of <label>/*.txt"

Source = str | os.PathLike[str] | tuple | list


@dataclass(frozen=True, repr=False)
class Examples:
    """Texts, their labels and where each came from ("news.csv:17"), in step.

    Args:
        skipped: how many rows of the source were left out because they are unusable.
    """

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[str] | None
    origins: list[str]
    skipped: int = 0

    def __repr__(self) -> str:
        what = "texts" if self.text_pairs is None else "pairs of texts"
        return f"Examples({len(self):,} {what}{'' if self.labels is None else ', labelled'})"

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Examples":
        """The examples at `indices`, in that order."""
        columns = (self.texts, self.text_pairs, self.labels, self.origins)
        return Examples(*(None if values is None else [values[i] for i in indices] for values in columns))


def read_examples(
    source: Source,
    *,
    text: str = "text",
    text_pair: str | None = None,
    label: str | None = "label",
    encoding: str = "utf-8",
    quoting: Quoting = "auto",
    delimiter: str = "auto",
    missing_label: str | int = "auto",
    on_bad: OnBad = "few",
) -> Examples:
    """Read every example of `source`, exactly as written: "NA", "nan" and "null" are texts like others.

    Args:
        source: a table with a header (.csv, .tsv), records (.jsonl, .ndjson, .json), all of these also as .gz, or
            .parquet; a folder of such files, the shards of one table, or a pattern such as "data/train-*.parquet"; a
            folder of `<label>/*.txt`; a tuple `(texts, labels)` or `(texts, text_pairs, labels)`; a list of dicts.
            Without labels, also a folder of `*.txt` or a list of strings.
        text, text_pair, label: columns, or keys of the dicts. `label=None` reads unlabelled texts.
        encoding: of text files without a byte order mark, which tells its own and is dropped.
        quoting: csv: quotes stand around fields of a table, and are doubled inside; none: they are characters like
            others; auto: csv, but in tables with tabs only where the file shows it.
        delimiter: between the fields of a table, "tab" for a tab; auto: a comma in .csv and a tab in .tsv, or what
            separates the wanted columns in the header.
        missing_label: the label of rows that have none; "none" if there is no such label; auto: -1 where Parquet
            files name their classes, or where the other labels are 0, 1, 2 and so on.
        on_bad: what is done about rows without a usable text, text pair or label, or that cannot be read: "few" leaves
            out up to one in a hundred with a warning, "skip" up to half of all, and "stop" none.

    Raises:
        InputError: the source cannot be read, lacks a column, or an example lacks a usable text, text pair or label.
    """
    check_format(quoting, delimiter)
    fields = {"text": text, "text_pair": text_pair, "label": label}
    wanted = {field: column for field, column in fields.items() if column is not None}
    bad = BadRows(on_bad)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        raw = _read_path(Path(source), Reading(wanted, encoding, quoting, delimiter, bad))
    else:
        name = "examples"
        raw = _read_lists(source, wanted, bad)
    if not raw.origins and not bad:
        raise InputError(f"{name}: expected examples, found none; add some, or name another source")
    if absent := [spoken(field) for field in wanted if field not in raw.fields]:
        raise InputError(
            f"{name}: expected {absent[0]}s, found none; pass a table, dicts or (texts, text_pairs, labels)"
        )
    return _usable(name, raw, str(missing_label), bad)


def read_held_out(source: Source, labels: Collection[str], **columns) -> Examples:
    """Reads examples to measure a classifier with; -1 is a label only if it is one of the classifier's.

    Args:
        labels: of the classifier.
        **columns: as of `read_examples`.

    Raises:
        InputError: as `read_examples`.
    """
    if columns.get("missing_label", "auto") == "auto":
        columns["missing_label"] = "none" if UNLABELLED in labels else UNLABELLED
    return read_examples(source, **columns)


def check_labels(examples: Examples) -> None:
    """Refuse examples that no classifier can learn from: unlabelled, or all of one class."""
    if not examples.labels:
        raise InputError("expected labelled examples, found no labels; name their column with --data.label_column")
    if len(set(examples.labels)) == 1:
        first = examples.origins[0]
        label = examples.labels[0]
        raise InputError(f"{first}: expected two classes or more, but every label is {label!r}; add texts of others")


def _read_path(path: Path, reading: Reading) -> Raw:
    try:
        if files := find_tables(path, tuple(READERS)):
            return _joined(files, [_read_file(file, reading) for file in files])
        return read_class_folders(path, reading)
    except OSError as error:
        raise unreadable(path, error) from error


def _read_file(path: Path, reading: Reading) -> Raw:
    if reader := READERS.get(kind_of(path)):
        return reader(path, reading)
    raise InputError(f"{path}: unknown kind of file; expected {KINDS}: rename or convert it")


def _joined(files: list[Path], shards: list[Raw]) -> Raw:
    """The rows of all shards in order, which have the same columns and classes."""
    first = shards[0]
    for file, shard in zip(files, shards, strict=True):
        for what in ("header", "classes"):
            if (found := getattr(shard, what)) != (expected := getattr(first, what)):
                different = sorted(set(found or ()) ^ set(expected or ()))
                raise InputError(
                    f"{file}: expected the {'columns' if what == 'header' else 'classes'} of {files[0]}, found "
                    f"{listed([repr(name) for name in different]) or 'another order'} in one of them alone; "
                    "name the files that go together"
                )
    if len(shards) == 1:
        return first
    fields = {field: [value for shard in shards for value in shard.fields[field]] for field in first.fields}
    return Raw([origin for shard in shards for origin in shard.origins], fields, first.header, first.classes)


def _read_lists(source: Any, wanted: Mapping[str, str], bad: BadRows) -> Raw:
    match source:
        case tuple((texts, labels)):
            columns = {"text": texts, "label": labels}
        case tuple((texts, text_pairs, labels)):
            columns = {"text": texts, "text_pair": text_pairs, "label": labels}
        case list([str(), *_]):
            columns = {"text": source}
        case list():
            records = ((f"examples[{i}]", record) for i, record in enumerate(source))
            return table_of("examples", objects(records, bad), wanted)
        case _:
            kind = f"tuple of {len(source)}" if isinstance(source, tuple) else type(source).__name__
            raise InputError(
                f"expected a path, (texts, labels), (texts, text_pairs, labels) or a list of dicts, not a {kind}"
            )
    if "label" not in wanted:
        columns.pop("label", None)
    for field, values in columns.items():
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InputError(f"expected a list of {spoken(field)}s, not a {type(values).__name__}")
    fields = {field: list(values) for field, values in columns.items()}
    if len({len(values) for values in fields.values()}) > 1:
        lengths = ", ".join(f"{len(values)} {spoken(field)}s" for field, values in fields.items())
        raise InputError(f"expected lists of one length, found {lengths}; pair them up")
    return Raw([f"examples[{i}]" for i in range(len(fields["text"]))], fields)


def _usable(name: str, raw: Raw, missing: str, bad: BadRows) -> Examples:
    """The examples without a fault; the others are bad rows."""
    fields, faults, mark = dict(raw.fields), {}, None
    if "label" in fields:
        fields["label"] = label_texts(fields["label"])
        mark = find_missing_label(fields["label"], raw.origins, missing, raw.classes is not None)
    for field, values in fields.items():
        found = {row: fault for row in _not_plain(values) if (fault := _fault(values[row]))}
        if field == "label" and mark is not None:
            found |= {row: f"is {mark}, which stands for none ({KEEP})" for row, v in enumerate(values) if v == mark}
        if found and not bad.skips and not bad.tolerates(len(found), len(values)):
            row = min(found)
            raise InputError(
                f"{raw.origins[row]}: the {spoken(field)} {found[row]}; {len(found)} of {len(values)} examples have "
                f"no usable {spoken(field)}: mend or remove them, or leave such rows out ({SKIP_FLAGS})"
            )
        faults = {row: f"the {spoken(field)} {fault}" for row, fault in found.items()} | faults
    for row in sorted(faults):
        bad.add(raw.origins[row], faults[row])
    examples = Examples(fields["text"], fields.get("text_pair"), fields.get("label"), raw.origins)
    if faults:
        examples = examples.take([row for row in range(len(examples)) if row not in faults])
    bad.report(name, len(examples))
    return replace(examples, skipped=len(bad))


def _not_plain(values: list[Any]) -> list[int]:
    """Indices of all values but ASCII texts to learn from, the most common case, which is told soon."""
    return [
        row
        for row, value in enumerate(values)
        if type(value) is not str or not value.isascii() or "\0" in value or not value.strip()
    ]


def _fault(value: Any) -> str | None:
    """What keeps a value from being a text to learn from, or None."""
    if fault := text_fault(value):
        return fault
    if not value or value.isspace():
        return "is blank"
    if "\0" in value:
        return "holds a NUL character"
    return None
