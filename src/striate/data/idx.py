"""MNIST's own format: `train-images-idx3-ubyte.gz` and its labels, with `t10k-...` as the test.

http://yann.lecun.com/exdb/mnist: a magic number (0, 0, 8 for bytes, rank), the sizes as big-endian
32-bit integers, then the bytes.
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from striate.data import npz
from striate.data.records import Records
from striate.errors import DataError

_IMAGES, _LABELS = re.compile(r"images([-.])idx\d"), re.compile(r"labels([-.])idx\d")
PREFIXES = {"train": "train", "t10k": "test", "test": "test", "val": "val"}


def matches(source: str, kind: str | None) -> bool:
    """Whether a source is a folder with IDX files in it, or one such file.

    Some archives call them `train-images.idx3-ubyte`.
    """
    path = Path(source)
    if kind not in (None, "picture"):
        return False
    if path.is_dir():
        return any("-ubyte" in p.name for p in path.iterdir())
    return "-ubyte" in path.name


def read(source: str, kind: str | None) -> Records:
    """A folder of IDX files (train and t10k become the splits), or one images file and its labels.

    Raises `DataError` for a missing partner and for files that are cut off or not IDX.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _IMAGES.search(p.name))
        if not found:
            raise DataError(f"{path}: expected an images file (*-images-idx3-ubyte), got none")
        parts = {_split(images): _pair(images) for images in found}
        if list(parts) == ["test"]:  # a test set by itself is simply a set
            parts = {"": parts["test"]}
        return npz.from_arrays(path, parts)
    images = path.with_name(_LABELS.sub(r"images\1idx3", path.name))
    return npz.from_arrays(path, {"": _pair(images)})


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file, plain or gzipped."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a gzipped IDX file, got a damaged one ({error})"
        ) from None
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path}: expected an IDX file of bytes, got something else ({data[:4]!r})")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    wanted = 4 + 4 * len(shape) + math.prod(shape)
    if len(data) != wanted:
        raise DataError(f"{path}: expected {wanted:,} bytes for {list(shape)}, got {len(data):,}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _pair(images: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pictures in a file and the labels beside it, gzipped or not."""
    name = _IMAGES.sub(r"labels\1idx1", images.name).removesuffix(".gz")
    labels = next(
        (p for p in (images.with_name(name), images.with_name(f"{name}.gz")) if p.exists()), None
    )
    if labels is None:
        raise DataError(f"{images}: expected its labels in {name} or {name}.gz, got neither")
    return read_idx(images), read_idx(labels)


def _split(images: Path) -> str:
    prefix = images.name.split("-")[0]
    if prefix not in PREFIXES:
        raise DataError(f"{images}: expected a name that begins with {', '.join(PREFIXES)}")
    return PREFIXES[prefix]
