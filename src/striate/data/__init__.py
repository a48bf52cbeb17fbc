"""Labelled pictures from wherever they lie, and batches of pixels out of them; clips, voxels and
rows of numbers too.

>>> dataset = striate.data.load("my_pictures/")  # or from_arrays(images, labels)
>>> print(*dataset.report(), sep="\\n")
>>> examples = dataset.examples(preprocess, "val")

A reader is a module with `matches(source, kind) -> bool` and `read(source, kind) -> Records`;
`READERS` are asked in turn, the more special first. The kind is what the net takes, or None: one
folder can be read as pictures and as clips, so what it holds is for the net to say.
"""

import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from striate.data import clips, folder, hub, idx, npz, numbers, table
from striate.data.dataset import Dataset, assemble
from striate.data.pipeline import Examples
from striate.data.records import Problem, Records
from striate.errors import DataError, UsageError, check_whole, did_you_mean
from striate.preprocess import KINDS
from striate.preprocess.spec import shown

__all__ = ["READERS", "Dataset", "Examples", "Problem", "Records", "from_arrays", "load"]

_SOURCES = {
    "clip": "a folder with a folder of clips for each class, or an .npz",
    "voxels": "an .npz",
    "vector": "a .csv or .tsv of numbers and a label, or an .npz",
}
READERS = (hub, idx, npz, numbers, table, clips, folder)


def load(
    source: str | os.PathLike,
    *,
    kind: str | None = None,
    split: float = 0.2,
    seed: int = 0,
    strict: bool = False,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Labelled pictures from a folder, a table or arrays.

    source: a folder with a folder for each class (also below train, val and test); a `.csv` or
        `.tsv` of path and label, or of numbers and label; an `.npz` of images, voxels or numbers,
        and labels; IDX files or a folder of them; `hf:NAME` or `tfds:NAME` (see `hub`).
    kind: what the net takes, `picture`, `clip`, `voxels` or `vector`; None for what the source
        looks like, which is never a clip.
    split: the share of each class that is held out as `val`, 0 <= split < 1, where the source does
        not give a validation split itself; 0 holds out none.
    seed: of that split. strict: an unreadable picture is a `DataError` instead of being left out
        and said. classes: the classes that must be meant, in their order; by default those found.

    Raises `DataError` where there is nothing to use: no pictures, a single class, a broken file.
    Pictures are decoded when `Dataset.examples` asks for them.
    """
    is_path = isinstance(source, str | os.PathLike)
    where = os.fspath(source) if is_path else ""
    if not where:
        came = "an empty one" if is_path else type(source).__name__
        raise UsageError(f"expected the path of a folder, table or array file, got {came}")
    _check_options(kind, split, seed)
    try:
        records = _records(where, kind)
    except OSError as error:  # a folder that nobody may look into, or its disk
        refused = shown(error.filename or where)
        raise DataError(f"{refused}: cannot be read ({error.strerror or error})") from None
    return assemble(shown(where), records, split=split, seed=seed, strict=strict, classes=classes)


def from_arrays(
    images: Any,
    labels: Any,
    *,
    classes: Sequence[str] | None = None,
    kind: str | None = None,
    split: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Labelled pictures that are in memory already.

    images: uint8 [N, h, w] or [N, h, w, 1, 3 or 4] of pictures, or what else an `.npz` may hold
        (see `npz`); labels: N whole numbers or words, as an array, a list or a column of a table.
    classes: the names of the labels 0, 1, ...; by default the numbers, or the words, are the names.
    kind, split, seed: as of `load`.

    Raises `DataError` for arrays of other types and shapes, as floats from 0 to 1 or one-hot labels
    are.

    >>> dataset = from_arrays(x_train, y_train, classes=["cat", "dog"])
    """
    _check_options(kind, split, seed)
    if isinstance(classes, str):
        raise UsageError(f"expected classes as a list of names, got {classes!r}")
    try:
        x = np.asarray(images)
    except ValueError:
        raise DataError("arrays: expected pictures of one shape, got several in one list") from None
    y = np.asarray(labels)
    if y.dtype == object and all(isinstance(label, str) for label in y.flat):
        y = y.astype(str)
    names = None if classes is None else np.asarray(classes, str)
    records = npz.from_arrays(Path("arrays"), {"": (x, y)}, names, kind)
    return assemble("arrays", records, split=split, seed=seed, strict=False, classes=None)


def _records(where: str, kind: str | None) -> Records:
    """What the first reader finds whose source this is; `DataError` where it is none's."""
    for reader in READERS:
        if reader.matches(where, kind):
            return reader.read(where, kind)
    got = _what_is_there(Path(where))
    if kind not in (None, "picture"):
        raise DataError(f"{where}: expected {KINDS[kind].noun}s ({_SOURCES[kind]}), got {got}")
    raise DataError(
        f"{where}: expected a folder with a folder of pictures for each class, or a .csv, .tsv, "
        f".npz or IDX file, got {got}"
    )


def _check_options(kind: Any, split: Any, seed: Any) -> None:
    if not isinstance(split, Real) or not 0 <= split < 1:
        raise UsageError(f"expected a validation split from 0 to less than 1, got {split!r}")
    check_whole("seed", seed)
    if kind not in (None, *KINDS):
        raise UsageError(
            f"expected a kind out of {', '.join(KINDS)}, got {kind!r}.{did_you_mean(kind, KINDS)}"
        )


def _what_is_there(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a file of another kind" if path.exists() else "nothing there"
