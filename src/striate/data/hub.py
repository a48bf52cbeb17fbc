"""Published collections by their names, read by the libraries that fetch them, where installed.

`hf:NAME` or `hf:NAME:CONFIGURATION` with Hugging Face's datasets: of its hub, or a folder that it
reads or has written. `tfds:NAME` with TensorFlow Datasets: `tfds:beans`, `tfds:cifar10:3.0.2`. Both
keep what they fetch where they always do.

Pictures stay encoded as they were published, all of them in memory, so that they are decoded as any
others are.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from striate.data.folder import SPLIT_FOLDERS
from striate.data.records import Problem, Records
from striate.errors import DataError, UsageError
from striate.libraries import is_installed

SPLITS = {**SPLIT_FOLDERS, "dev": "val"}
LABELS = ("label", "labels", "fine_label")  # which of several is meant, the first that there is

Row = tuple[bytes | None, int | None]  # an encoded picture, and the number of its class
Parts = dict[str, Iterable[Row]]  # by the names that a collection gives its splits


def matches(source: str, kind: str | None) -> bool:
    """Whether a source is the name of a collection."""
    return source.partition(":")[0] in _READERS and kind in (None, "picture")


def check_installed(source: str) -> None:
    """`UsageError` where the library that fetches a collection is missing; loads nothing."""
    extra = source.partition(":")[0]
    module = _MODULES[extra]
    if not is_installed(module):
        package = module.replace("_", "-")
        raise UsageError(
            f'{extra}:NAME needs {package}: pip install "striate[{extra}]" or pip install {package}'
        )


def read(source: str, kind: str | None) -> Records:
    """The pictures of a collection, with its own classes and splits.

    Splits of other names than train, validation and test are left out, and so are rows without a
    picture or a label (none or -1), and all of it is said. Raises `UsageError` where the library is
    not installed, and `DataError` where it cannot give the collection, or one without pictures and
    classes.
    """
    check_installed(source)
    library, _, name = source.partition(":")
    try:
        parts, classes, problems = _READERS[library](name)
        found, more = _read(source, parts)
    except (DataError, UsageError):
        raise
    except Exception as error:  # of the libraries, about the name, the network or a broken file
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source}: cannot be loaded ({lines[0]})") from None
    if not found:
        raise DataError(f"{source}: expected pictures with labels, got none")
    names, images, labels, splits = map(list, zip(*found, strict=True))
    return Records(
        names=names,
        images=images,
        labels=[classes[label] for label in labels],
        digests=[hashlib.sha256(image).digest() for image in images],
        splits=splits,
        classes=classes,
        problems=[*problems, *more],
    )


def _read(source: str, parts: Parts) -> tuple[list[tuple[str, bytes, int, str]], list[Problem]]:
    """(name, picture, class, split) of all that is labelled, and what is left out."""
    found: list[tuple[str, bytes, int, str]] = []
    problems = []
    for part, rows in parts.items():
        split = SPLITS.get(part)
        if split is None:
            problems.append(Problem("ignored", f"{source}: split {part!r} left out", (part,)))
            continue
        lacking: Counter[str] = Counter()
        for i, (image, label) in enumerate(rows):
            if image is not None and label is not None and label >= 0:
                found.append((f"{part}/{i:07d}", image, label, split))
            else:
                lacking["a picture" if image is None else "a label"] += 1
        for what, n in lacking.items():
            rows_of = "1 row" if n == 1 else f"{n} rows"
            text = f"{source}: {rows_of} of split {part!r} left out, without {what}"
            problems.append(Problem("ignored", text, (part,)))
    return found, problems


# === Hugging Face ===


def _hugging_face(name: str) -> tuple[Parts, list[str], list[Problem]]:
    datasets = import_module(_MODULES["hf"])
    name, _, configuration = name.partition(":")
    written = any((Path(name) / file).exists() for file in ("dataset_dict.json", "state.json"))
    if written:
        found = datasets.load_from_disk(name)
    else:
        found = datasets.load_dataset(name, configuration or None)
    if isinstance(found, datasets.Dataset):
        found = {"train": found}
    features = next(iter(found.values())).features
    image = _one(name, features, datasets.Image, "pictures")
    label = _one(name, features, datasets.ClassLabel, "classes")
    plain = datasets.Image(decode=False)
    parts: Parts = {
        split: _rows(part.select_columns([image, label]).cast_column(image, plain), image, label)
        for split, part in found.items()
    }
    return parts, list(features[label].names), _chosen(name, features, datasets.ClassLabel, label)


def _rows(part: Any, image: str, label: str) -> Iterator[Row]:
    for row in part:
        yield _encoded(row[image]), row[label]


def _encoded(picture: dict[str, Any] | None) -> bytes | None:
    """What is in a picture's file, which the collection holds or names; None for no picture."""
    if picture is None:
        return None
    data = picture["bytes"]
    return Path(picture["path"]).read_bytes() if data is None else data


# === TensorFlow Datasets ===


def _tensorflow_datasets(name: str) -> tuple[Parts, list[str], list[Problem]]:
    tfds = import_module(_MODULES["tfds"])
    builder = tfds.builder(name)
    features = builder.info.features
    image = _one(name, features, tfds.features.Image, "pictures")
    label = _one(name, features, tfds.features.ClassLabel, "classes")
    builder.download_and_prepare()
    encoded = {image: tfds.decode.SkipDecoding()}
    parts: Parts = {
        split: (
            (row[image], int(row[label]))
            for row in tfds.as_numpy(builder.as_dataset(split=split, decoders=encoded))
        )
        for split in builder.info.splits
    }
    problems = _chosen(name, features, tfds.features.ClassLabel, label)
    return parts, list(features[label].names), problems


_MODULES = {"hf": "datasets", "tfds": "tensorflow_datasets"}
_READERS: dict[str, Callable[[str], tuple[Parts, list[str], list[Problem]]]] = {
    "hf": _hugging_face,
    "tfds": _tensorflow_datasets,
}


# === Both ===


def _columns(features: Any, kind: type) -> list[str]:
    return [column for column, feature in features.items() if isinstance(feature, kind)]


def _one(name: str, features: Any, kind: type, what: str) -> str:
    """The column that is meant of those of a kind."""
    columns = _columns(features, kind)
    if not columns:
        raise DataError(f"{name}: expected a column of {what}, got {', '.join(features)}")
    return next((wanted for wanted in LABELS if wanted in columns), columns[0])


def _chosen(name: str, features: Any, kind: type, label: str) -> list[Problem]:
    """What a user should know where there are several kinds of classes."""
    others = [column for column in _columns(features, kind) if column != label]
    if not others:
        return []
    text = f"{name}: the classes are those of {label!r}; there are {', '.join(others)} as well"
    return [Problem("ignored", text, tuple(others))]
