"""Labelled pictures from wherever they lie, and batches of pixels out of them; clips, voxels and
rows of numbers too.

>>> dataset = striate.data.load("my_pictures/")
>>> print(*dataset.report(), sep="\\n")
>>> examples = dataset.examples(preprocess, "val")

A reader is a module with `matches(source, kind) -> bool` and `read(source, kind) -> Records`;
`READERS` are asked in turn, the more special first. The kind is what the net takes, or None: one
folder can be read as pictures and as clips, so what it holds is for the net to say.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from striate.data import clips, folder, hub, idx, npz, numbers, table
from striate.data.dataset import Dataset, assemble
from striate.data.pipeline import Examples
from striate.data.records import Problem, Records
from striate.errors import DataError, UsageError, did_you_mean
from striate.preprocess import KINDS
from striate.preprocess.spec import shown

__all__ = ["READERS", "Dataset", "Examples", "Problem", "Records", "load"]

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
    if not 0 <= split < 1:
        raise UsageError(f"expected a validation split from 0 to less than 1, got {split}")
    if kind not in (None, *KINDS):
        raise UsageError(
            f"expected a kind out of {', '.join(KINDS)}, got {kind!r}.{did_you_mean(kind, KINDS)}"
        )
    where = os.fspath(source)
    for reader in READERS:
        if reader.matches(where, kind):
            records, name = reader.read(where, kind), shown(where)
            return assemble(name, records, split=split, seed=seed, strict=strict, classes=classes)
    got = _what_is_there(Path(where))
    if kind not in (None, "picture"):
        raise DataError(f"{where}: expected {KINDS[kind].noun}s ({_SOURCES[kind]}), got {got}")
    raise DataError(
        f"{where}: expected a folder with a folder of pictures for each class, or a .csv, .tsv, "
        f".npz or IDX file, got {got}"
    )


def _what_is_there(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a file of another kind" if path.exists() else "nothing there"
