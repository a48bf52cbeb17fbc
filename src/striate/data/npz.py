"""Arrays in one NumPy file: `images` + `labels`, or `x_train` + `y_train` (+ val, test).

By their shapes they are pictures [N, h, w] or [N, h, w, 1 | 3 | 4], voxels [N, d, h, w] or
[N, d, h, w, c], or rows of numbers [N, n]; the arrays of clips look like those of voxels. Voxels
may also be one bit each: `voxels_packed` [N, side ** 3 / 8], `numpy.packbits` of cubes.
"""

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.records import Problem, Records
from striate.errors import DataError
from striate.preprocess import KINDS
from striate.preprocess.voxels import levels_of

PAIRS = (("images", "labels"), ("x", "y"), ("voxels", "labels"), ("voxels_packed", "labels"))
SPLIT_PAIRS = {split: (f"x_{split}", f"y_{split}") for split in ("train", "val", "test")}


def matches(source: str, kind: str | None) -> bool:
    """Whether a source is named like a NumPy archive."""
    return Path(source).suffix.lower() == ".npz"


def read(source: str, kind: str | None) -> Records:
    """The pictures of an archive, uint8 [N, h, w] or [N, h, w, 1 | 3 | 4], or what else is there.

    Labels [N] are whole numbers or words; an array `classes` of names may translate the numbers.
    Raises `DataError` for other keys, types and shapes.
    """
    path = Path(source)
    arrays = _arrays(path)
    parts = {split: (arrays[x], arrays[y]) for split, (x, y) in SPLIT_PAIRS.items() if x in arrays}
    for x, y in PAIRS:
        if not parts and x in arrays and y in arrays:
            images = _unpacked(path, arrays[x]) if x == "voxels_packed" else arrays[x]
            parts = {"": (images, arrays[y])}
            kind = kind or ("voxels" if x.startswith("voxels") else None)
    return from_arrays(path, parts, names=arrays.get("classes"), kind=kind)


def from_arrays(
    path: Path,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    names: np.ndarray | None = None,
    kind: str | None = None,
) -> Records:
    """Records of arrays by split ("" where there are no splits); `path` is for messages.

    kind: what they are; None for what their shapes say.
    """
    kind = kind or _kind(next(x for x, _ in parts.values()))
    images, labels, splits = [], [], []
    for split, (x, y) in parts.items():
        where = f"{path} ({split})" if split else str(path)
        images.append(_CHECKS[kind](where, x))
        words = _words(where, y, names)
        if len(x) != len(words):
            raise DataError(
                f"{where}: expected a label a {KINDS[kind].noun}, got {len(x)} and {len(words)}"
            )
        labels += words
        splits += [split] * len(words)
    if not labels:
        raise DataError(f"{path}: expected {KINDS[kind].noun}s, got none")
    if len({x.shape[1:] for x in images}) > 1:
        shapes = " and ".join(str(x.shape[1:]) for x in images)
        raise DataError(f"{path}: expected pictures of one shape in every split, got {shapes}")
    stacked = images[0] if len(images) == 1 else np.concatenate(images)
    counts = np.concatenate([np.arange(len(x)) for x in images])
    classes = None if names is None else [_word(name) for name in names]
    present = set(labels)
    empty = [name for name in classes or () if name not in present]
    return Records(
        names=[f"{s}/{i:07d}" if s else f"{i:07d}" for s, i in zip(splits, counts, strict=True)],
        images=stacked,
        labels=labels,
        digests=[hashlib.sha256(x.data).digest() for x in np.ascontiguousarray(stacked)],
        splits=splits if splits[0] else None,
        classes=classes,
        problems=[
            Problem("empty_class", f"{path}: class {name!r} has no {KINDS[kind].noun}", (name,))
            for name in empty
        ],
        kind=kind,
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: expected a .npz, which holds several arrays, got another file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if _wanted(name)}
            found = ", ".join(archive.files) or "nothing"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        what = "Python objects; save words as .astype(str)" if "pickle" in str(error) else error
        raise DataError(f"{path}: expected a .npz of plain arrays, got {what}") from None
    paired = any(x in arrays and y in arrays for x, y in (*PAIRS, *SPLIT_PAIRS.values()))
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


def _kind(x: np.ndarray) -> str:
    """What an array of examples holds, by its shape; bytes in rows are pictures laid flat, and four
    axes with the colours second are pictures of another layout, both to be refused."""
    if x.ndim == 2 and x.dtype.kind == "f":
        return "vector"
    colours = (1, 3, 4)
    is_grid = x.ndim == 4 and x.shape[-1] not in colours and x.shape[1] not in colours
    return "voxels" if is_grid or x.ndim == 5 else "picture"


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


def _clips(where: str, x: np.ndarray) -> np.ndarray:
    """uint8 [N, t, h, w, c]; grey clips get their channel axis."""
    _expect_no_pictures(where, x, "clips", "t")
    if x.dtype == np.uint8 and x.ndim == 4:
        return x[..., np.newaxis]
    if x.dtype == np.uint8 and x.ndim == 5 and x.shape[-1] in (1, 3, 4):
        return x
    raise DataError(
        f"{where}: expected uint8 clips of shape [N, t, h, w] or [N, t, h, w, 1, 3 or 4], "
        f"got {x.dtype} {list(x.shape)}"
    )


def _voxels(where: str, x: np.ndarray) -> np.ndarray:
    """uint8 [N, d, h, w, c]; of a grid whose cells are only full or not, 1 becomes 255."""
    if x.ndim not in (4, 5) or x.dtype not in (np.uint8, np.bool_):
        raise DataError(
            f"{where}: expected voxels of shape [N, d, h, w] or [N, d, h, w, channels], "
            f"uint8 or bool, got {x.dtype} {list(x.shape)}"
        )
    _expect_no_pictures(where, x, "voxels", "d")
    return levels_of(x[..., np.newaxis] if x.ndim == 4 else x)


def _expect_no_pictures(where: str, x: np.ndarray, what: str, axis: str) -> None:
    """Colour pictures [N, h, w, 3] have as many axes as grey clips and voxels."""
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] in (1, 3, 4):
        raise DataError(
            f"{where}: expected {what} [N, {axis}, h, w], got {list(x.shape)}, which look like "
            f"pictures; where they are {what}, add an axis for the channels"
        )


def _unpacked(path: Path, x: np.ndarray) -> np.ndarray:
    """bool [N, side, side, side] of uint8 [N, side ** 3 / 8]."""
    side = round((8 * x.shape[-1]) ** (1 / 3)) if x.ndim == 2 else 0
    if x.dtype != np.uint8 or side**3 != 8 * x.shape[-1]:
        raise DataError(
            f"{path}: expected voxels_packed as numpy.packbits of cubes, uint8 [N, side ** 3 / 8], "
            f"got {x.dtype} {list(x.shape)}"
        )
    return np.unpackbits(x, axis=1).astype(bool).reshape(len(x), side, side, side)


def _vectors(where: str, x: np.ndarray) -> np.ndarray:
    """float32 [N, n], all finite."""
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise DataError(f"{where}: expected rows of numbers [N, n], got {x.dtype} {list(x.shape)}")
    with np.errstate(over="ignore"):  # which becomes infinite
        numbers = x.astype(np.float32)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers).all(axis=1))[0])
        raise DataError(f"{where}: expected finite numbers, got others in row {row}")
    return numbers


_CHECKS = {"picture": _pictures, "clip": _clips, "voxels": _voxels, "vector": _vectors}


def _words(where: str, y: np.ndarray, names: np.ndarray | None) -> list[str]:
    """Labels as words."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iuUS":
        raise DataError(
            f"{where}: expected one whole number or word a picture as labels, "
            f"got {y.dtype} {list(y.shape)}"
        )
    if names is None:
        return [_word(label) for label in y]
    if y.dtype.kind in "US":
        known, words = {_word(name) for name in names}, [_word(label) for label in y]
        for word in words:
            if word not in known:
                raise DataError(f"{where}: expected labels out of its classes, got {word!r}")
        return words
    if len(y) and not 0 <= y.min() <= y.max() < len(names):
        raise DataError(
            f"{where}: expected labels from 0 to {len(names) - 1}, the {len(names)} classes, "
            f"got {y.min()} to {y.max()}"
        )
    return [_word(names[label]) for label in y]


def _word(label: Any) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
