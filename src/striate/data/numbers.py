"""A table of numbers: CSV or TSV with the numbers of an example and its class in each row."""

import csv
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from striate.data.records import Problem, Records
from striate.data.table import (
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    delimiter_of,
    find,
    rows_of,
    split_of,
)
from striate.errors import DataError

LARGEST = float(np.finfo(np.float32).max)
_WHAT = "numbers and a label"


def matches(source: str, kind: str | None) -> bool:
    """Whether a table holds numbers: beside the label, every cell of its first row is one.

    A table of pictures has a path there, so the two are never taken for each other.
    """
    path = Path(source)
    if path.suffix.lower() not in (".csv", ".tsv") or kind not in (None, "vector"):
        return False
    return kind == "vector" or _begins_with_numbers(path)


def read(source: str, kind: str | None) -> Records:
    """The rows of a table, float32 [N, numbers], with or without a header.

    The class is the column `label` (or `class`, `target`, ...) of a header, or else the last one;
    it is a word or a whole number, from 0 or 1 on. A header's column `split` gives the splits. A
    row with another number of cells, or with something else than a number, is left out, and said;
    so is a column without a name, as pandas writes the number of each row.
    """
    table = Path(source)
    _, first = next(rows_of(table, _WHAT))
    has_header = _has_header(rows_of(table, _WHAT))
    header = [cell.strip() for cell in first] if has_header else []
    width = len(first)
    lowered = [name.lower() for name in header]
    label_column, split_column = find(lowered, LABEL_COLUMNS), find(lowered, SPLIT_COLUMNS)
    label_column = width - 1 if label_column is None else label_column
    unnamed = [i for i, name in enumerate(lowered) if not name or name.startswith("unnamed:")]
    columns = [i for i in range(width) if i not in (label_column, split_column, *unnamed)]
    if not columns:
        raise DataError(f"{table}: expected numbers and a label in a row, got {first}")
    names, numbers, labels, splits = [], [], [], []
    problems = [
        Problem("ignored", f"{table}: column {i + 1} has no name; left out", (f"column {i + 1}",))
        for i in unnamed
    ]
    for number, row in islice(rows_of(table, _WHAT), int(has_header), None):
        cells = [cell.strip() for cell in row]
        name = f"row {number:06d}"
        wrong = _what_is_wrong(cells, width, columns, header)
        if wrong:
            problems.append(
                Problem("unreadable", f"{table}, row {number}: {wrong}; left out", (name,))
            )
            continue
        names.append(name)
        numbers.append(np.array([float(cells[i]) for i in columns], np.float32))
        labels.append(_class(table, number, cells[label_column]))
        if split_column is not None:
            splits.append(split_of(table, number, cells, split_column))
    if not names:
        raise DataError(f"{table}: none of its rows can be used; {problems[0] if problems else ''}")
    values = np.stack(numbers)
    return Records(
        names=names,
        images=values,
        labels=labels,
        digests=[hashlib.sha256(row.tobytes()).digest() for row in values],
        splits=splits or None,
        problems=problems,
        kind="vector",
    )


def _has_header(rows: Iterator[tuple[int, list[str]]]) -> bool:
    """Whether the first row holds names: not one number, or numbers and the name of a label column,
    as of an array's columns, which is the label of no other row."""
    others = ([cell.strip().lower() for cell in row] for _, row in rows)
    first = next(others)
    if not any(map(_is_number, first[:-1])):
        return True
    label = find(first, LABEL_COLUMNS)
    return label is not None and all(row[label : label + 1] != [first[label]] for row in others)


def _begins_with_numbers(path: Path) -> bool:
    """Whether the first row, or the one below a header, holds numbers and a label."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(islice((line for line in file if line.strip()), 2))
    except (OSError, UnicodeDecodeError):
        return False  # the reader of tables says why
    if not lines:
        return False
    try:
        *above, row = list(csv.reader(lines, delimiter=delimiter_of(lines[0])))
    except csv.Error:
        return False
    if len(row) < 2 or (above and len(above[0]) != len(row)):
        return False
    label = find([cell.strip().lower() for cell in above[0]], LABEL_COLUMNS) if above else None
    split = find([cell.strip().lower() for cell in above[0]], SPLIT_COLUMNS) if above else None
    label = len(row) - 1 if label is None else label
    return _are_numbers([cell for i, cell in enumerate(row) if i not in (label, split)])


def _are_numbers(cells: list[str]) -> bool:
    return bool(cells) and all(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) <= LARGEST and "_" not in cell  # Python's 1_2 is 12
    except ValueError:
        return False


def _what_is_wrong(
    cells: list[str], width: int, columns: list[int], header: list[str]
) -> str | None:
    if len(cells) != width:
        return f"expected {width} cells, got {len(cells)}"
    for i in columns:
        if not _is_number(cells[i]):
            column = f"column {i + 1}" + (f" ({header[i]})" if header else "")
            return f"expected a number in {column}, got {cells[i]!r}"
    return None


def _class(table: Path, number: int, cell: str) -> str:
    """A label as a word; 2.0 is class 2, and 2.5 is none."""
    if not cell:
        raise DataError(f"{table}, row {number}: the label is empty")
    if not _is_number(cell):
        return cell
    if not float(cell).is_integer():
        raise DataError(
            f"{table}, row {number}: expected a class as label, a word or a whole number, "
            f"got {cell}"
        )
    return str(int(float(cell)))
