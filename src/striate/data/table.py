"""A table of pictures: CSV or TSV with a path and a label a row, relative to the table's folder."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from striate.data.files import PICTURES, digests_of, unreadable
from striate.data.folder import SPLIT_FOLDERS
from striate.data.records import Problem, Records
from striate.errors import DataError
from striate.preprocess import KINDS

PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img_path",
    "picture",
)
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y")
SPLIT_COLUMNS = ("split", "subset", "partition")
BEGINNING = 1 << 20  # characters, in which the first line ends


def matches(source: str, kind: str | None) -> bool:
    """Whether a source is named like a table; one of numbers has a reader that is asked first."""
    return Path(source).suffix.lower() in (".csv", ".tsv") and kind in (None, "picture", "clip")


def read(source: str, kind: str | None) -> Records:
    """The pictures or clips that a table lists; it may have a header, a split column and others.

    Without a header the first two columns are path and label. Raises `DataError`, naming the row,
    for a row without a path or label, and for a file with two labels or in two splits; a file that
    is not there is left out, and one that is listed again counts once, and both are said.
    """
    table = Path(source)
    rows = list(rows_of(table, "a path and a label"))
    path_column, label_column, split_column, has_header = _columns(table, rows)
    names, paths, labels, splits, numbers = [], [], [], [], []
    for number, row in rows[1:] if has_header else rows:
        cells = [cell.strip() for cell in row]
        if len(cells) <= max(path_column, label_column):
            raise DataError(f"{table}, row {number}: expected a path and a label, got {row}")
        if not cells[path_column] or not cells[label_column]:
            raise DataError(f"{table}, row {number}: the path or the label is empty, got {row}")
        names.append(_here(table, cells[path_column]))
        paths.append(table.parent / names[-1])
        labels.append(cells[label_column])
        numbers.append(number)
        if split_column is not None:
            splits.append(split_of(table, number, cells, split_column))
    if not names:
        raise DataError(f"{table}: expected rows of a path and a label, got none")
    return _records(table, names, paths, labels, splits, numbers, kind or "picture")


def _here(table: Path, cell: str) -> str:
    """A path as this system writes it: tables from Windows have backslashes."""
    return cell if (table.parent / cell).exists() else cell.replace("\\", "/")


def _records(table: Path, names, paths, labels, splits, numbers, kind: str) -> Records:
    problems: list[Problem] = []
    kept: dict[str, int] = {}
    again: list[int] = []
    digests = digests_of(paths)
    for i, (name, digest) in enumerate(zip(names, digests, strict=True)):
        if isinstance(digest, OSError):
            problems.append(unreadable(f"{table}, row {numbers[i]}: {name}", digest))
        elif name in kept:
            for said in (labels, splits):
                _expect_the_same(table, name, said, numbers, (kept[name], i))
            again.append(i)
        else:
            kept[name] = i
    if not kept:
        raise DataError(
            f"{table}: none of its {len(names)} {KINDS[kind].noun}s is there; paths are relative "
            f"to the table ({problems[0]})"
        )
    if again:
        first = f"{names[again[0]]} in row {numbers[again[0]]}"
        listed = "1 row lists" if len(again) == 1 else f"{len(again)} rows list"
        message = f"{listed} a file again, which counts once all the same: {first}"
        problems.append(Problem("duplicate", message, tuple(names[i] for i in again)))
    rows = list(kept.values())
    return Records(
        names=[names[i] for i in rows],
        images=[paths[i] for i in rows],
        labels=[labels[i] for i in rows],
        digests=[digests[i] for i in rows],
        splits=[splits[i] for i in rows] if splits else None,
        problems=problems,
        kind=kind,
    )


def _expect_the_same(
    table: Path, name: str, said: list[str], numbers: list[int], rows: tuple[int, int]
) -> None:
    """`DataError` where two rows of one file say two things of it: labels or splits."""
    before, here = rows
    if said and said[before] != said[here]:
        raise DataError(
            f"{table}, row {numbers[here]}: {name} is {said[here]!r} here and {said[before]!r} in "
            f"row {numbers[before]}; keep one of them"
        )


_NO_TEXT = "expected text in UTF-8, got something else; save it as CSV in UTF-8"


def rows_of(table: Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """(row number from 1, cells) of every row that is not blank, at least one; they are read as
    they are asked for, since as text a table is many times as large as its numbers.

    what: that a row should hold.
    """
    found = False
    try:
        with table.open(encoding="utf-8-sig") as file:
            delimiter = delimiter_of(file.read(BEGINNING))
            file.seek(0)
            for number, row in enumerate(csv.reader(_lines(file), delimiter=delimiter), start=1):
                if any(cell.strip() for cell in row):
                    found = True
                    yield number, row
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror})") from None
    except UnicodeError:
        raise DataError(f"{table}: {_NO_TEXT}") from None
    except csv.Error as error:
        raise DataError(f"{table}: expected rows of {what}, got something else ({error})") from None
    if not found:
        raise DataError(f"{table}: expected rows of {what}, got an empty file")


def _lines(file: TextIO) -> Iterator[str]:
    """Those of a file; `UnicodeError` for a zero byte, which no text has."""
    for line in file:
        if "\0" in line:
            raise UnicodeError
        yield line


def delimiter_of(text: str) -> str:
    """What stands between the cells: tabs where there are any, which no cell has inside; else what
    there is more of in the first line, commas or semicolons."""
    first = text.lstrip("\n").split("\n", 1)[0]
    return "\t" if "\t" in first else max(",;", key=first.count)


def _columns(table: Path, rows) -> tuple[int, int, int | None, bool]:
    """(path, label, split column or None, whether the first row is a header)."""
    first = [cell.strip().lower() for cell in rows[0][1]]
    path, label = find(first, PATH_COLUMNS), find(first, LABEL_COLUMNS)
    if path is not None and label is not None:
        return path, label, find(first, SPLIT_COLUMNS), True
    if len(first) < 2:
        raise DataError(
            f"{table}, row {rows[0][0]}: expected a path and a label, got {rows[0][1]}; "
            "separate them by a comma or a tab"
        )
    is_picture = Path(first[0]).suffix in PICTURES
    is_header = not is_picture and not (table.parent / rows[0][1][0].strip()).exists()
    if is_header and (path is None) != (label is None) and _is_elsewhere(first, path, label):
        raise DataError(
            f"{table}: expected a column path (or file, image, ...) and a column label (or class, "
            f"category, ...), got {', '.join(rows[0][1])}"
        )
    return 0, 1, None, is_header


def _is_elsewhere(first: list[str], path: int | None, label: int | None) -> bool:
    """Whether a header that names one of the two does not leave the other to the first columns."""
    return len(first) > 2 or path == 1 or label == 0


def find(header: list[str], names: tuple[str, ...]) -> int | None:
    """The column of a header with the first of these names that it has."""
    return next((header.index(name) for name in names if name in header), None)


def split_of(table: Path, number: int, cells: list[str], column: int) -> str:
    """The split that a row names; `DataError`, naming the row, for another word."""
    value = cells[column].lower() if column < len(cells) else ""
    if value not in SPLIT_FOLDERS:
        raise DataError(f"{table}, row {number}: expected split train, val or test, got {value!r}")
    return SPLIT_FOLDERS[value]
