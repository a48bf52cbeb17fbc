"""Arrays in one NumPy file: `images` + `labels`, or `x_train` + `y_train` (+ val, test)."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from striate.data.records import Records
from striate.errors import DataError

PAIRS = (("images", "labels"), ("x", "y"))
SPLIT_PAIRS = {split: (f"x_{split}", f"y_{split}") for split in ("train", "val", "test")}


def matches(source: str) -> bool:
    """Whether a source is named like a NumPy archive."""
    return Path(source).suffix.lower() == ".npz"


def read(source: str) -> Records:
    """The pictures of an archive: uint8 [N, h, w] or [N, h, w, 1 | 3 | 4], labels [N].

    Labels are whole numbers or words; an array `classes` of names may translate the numbers.
    Raises `DataError` for other keys, types and shapes.
    """
    path = Path(source)
    arrays = _arrays(path)
    parts = {split: (arrays[x], arrays[y]) for split, (x, y) in SPLIT_PAIRS.items() if x in arrays}
    for x, y in PAIRS:
        if not parts and x in arrays and y in arrays:
            parts = {"": (arrays[x], arrays[y])}
    return from_arrays(path, parts, names=arrays.get("classes"))


def from_arrays(
    path: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]], names: np.ndarray | None = None
) -> Records:
    """Records of arrays by split ("" where there are no splits); `path` is for messages."""
    images, labels, splits = [], [], []
    for split, (x, y) in parts.items():
        where = f"{path} ({split})" if split else str(path)
        images.append(_pictures(where, x))
        if len(x) != len(y):
            raise DataError(f"{where}: expected a label a picture, got {len(x)} and {len(y)}")
        labels += _words(where, y, names)
        splits += [split] * len(y)
    if not labels:
        raise DataError(f"{path}: expected pictures, got none")
    if len({x.shape[1:] for x in images}) > 1:
        shapes = " and ".join(str(x.shape[1:]) for x in images)
        raise DataError(f"{path}: expected pictures of one shape in every split, got {shapes}")
    stacked = images[0] if len(images) == 1 else np.concatenate(images)
    counts = np.concatenate([np.arange(len(x)) for x in images])
    return Records(
        names=[f"{s}/{i:07d}" if s else f"{i:07d}" for s, i in zip(splits, counts, strict=True)],
        images=stacked,
        labels=labels,
        digests=[hashlib.sha256(x.data).digest() for x in np.ascontiguousarray(stacked)],
        splits=splits if splits[0] else None,
        classes=None if names is None else [str(name) for name in names],
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if _wanted(name)}
            found = ", ".join(archive.files) or "nothing"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a .npz of plain arrays, got {error}") from None
    paired = any(x in arrays and y in arrays for x, y in (*PAIRS, SPLIT_PAIRS["train"]))
    if not paired:
        raise DataError(
            f"{path}: expected arrays images and labels, or x_train and y_train, got {found}"
        )
    for x, y in SPLIT_PAIRS.values():
        if (x in arrays) != (y in arrays):
            raise DataError(f"{path}: expected {x} and {y} together, got {found}")
    return arrays


def _wanted(name: str) -> bool:
    return name == "classes" or any(name in pair for pair in (*PAIRS, *SPLIT_PAIRS.values()))


def _pictures(where: str, x: np.ndarray) -> np.ndarray:
    """uint8 [N, h, w, c]; grey pictures get their channel axis."""
    if x.dtype != np.uint8:
        raise DataError(f"{where}: expected uint8 pictures from 0 to 255, got {x.dtype}")
    if x.ndim == 3:
        return x[..., None]
    if x.ndim == 4 and x.shape[-1] in (1, 3, 4):
        return x
    raise DataError(
        f"{where}: expected pictures of shape [N, h, w] or [N, h, w, 1, 3 or 4], "
        f"channels last, got {list(x.shape)}"
    )


def _words(where: str, y: np.ndarray, names: np.ndarray | None) -> list[str]:
    """Labels as words."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iuUS":
        raise DataError(
            f"{where}: expected one whole number or word a picture as labels, "
            f"got {y.dtype} {list(y.shape)}"
        )
    if y.dtype.kind == "S":
        return [label.decode("utf-8", "replace") for label in y]
    if y.dtype.kind == "U" or names is None:
        return [str(label) for label in y]
    if len(y) and not 0 <= y.min() <= y.max() < len(names):
        raise DataError(
            f"{where}: expected labels from 0 to {len(names) - 1}, the {len(names)} classes, "
            f"got {y.min()} to {y.max()}"
        )
    return [str(names[label]) for label in y]
