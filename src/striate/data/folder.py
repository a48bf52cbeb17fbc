"""A folder for each class: `root/CLASS/**/picture`, or `root/{train,val,test}/CLASS/**/picture`."""

from collections.abc import Callable
from pathlib import Path

from striate.data.files import (
    PICTURES,
    digests_of,
    ignored,
    is_hidden,
    pictures_under,
    unreadable,
)
from striate.data.records import Problem, Records
from striate.errors import DataError
from striate.preprocess import KINDS
from striate.preprocess.spec import shown

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
LAYOUT = "expected one folder of pictures for each class (root/CLASS/picture.jpg)"


def matches(source: str, kind: str | None) -> bool:
    """Whether a source is a folder; readers of more special folders are asked first."""
    return Path(source).is_dir() and kind in (None, "picture")


def read(source: str, kind: str | None) -> Records:
    """The pictures below `source` with the folder names as classes and, where given, splits.

    Raises `DataError` when there is no class folder with a picture in it.
    """
    root = Path(source)
    found, unread, problems = in_class_folders(root, pictures_under, "picture")
    strays = [p for folder in (root, *_split_folders(root)) for p in _pictures_in(folder)]
    if not found:
        raise DataError(f"{root}: {LAYOUT}, got {_what_is_there(root, strays, unread)}")
    _check_single_class(root, {label for _, label, _ in found})
    problems += ignored(unread, root, "a format that striate does not read")
    problems += ignored(strays, root, "in no class folder")
    digests = digests_of([path for path, _, _ in found])
    return records_of(root, found, digests, problems)


def records_of(
    root: Path, found, digests, problems: list[Problem], kind: str = "picture"
) -> Records:
    """Records of (path, class, split) and the digest of each; what cannot be opened is left out."""
    kept = []
    for (path, label, split), digest in zip(found, digests, strict=True):
        name = shown(path.relative_to(root).as_posix())
        if isinstance(digest, OSError):
            problems.append(unreadable(name, digest))
        else:
            kept.append((name, path, label, split, digest))
    if not kept:
        noun = KINDS[kind].noun
        raise DataError(f"{root}: none of its {len(found)} {noun}s can be read; {problems[-1]}")
    names, paths, labels, splits, contents = map(list, zip(*kept, strict=True))
    return Records(
        names=names,
        images=paths,
        labels=labels,
        digests=contents,
        splits=None if splits[0] is None else splits,
        problems=problems,
        kind=kind,
    )


Found = tuple[Path, str, str | None]  # path, class, split


def in_class_folders(
    root: Path, look: Callable[[Path], tuple[list[Path], list[Path]]], noun: str
) -> tuple[list[Found], list[Path], list[Problem]]:
    """What lies in the class folders, what else does, and the folders that hold nothing.

    look: a class folder -> (the examples in it, files that are none); noun: what those are called.
    """
    found: list[Found] = []
    others: list[Path] = []
    problems: list[Problem] = []
    for folder, split in class_folders(root):
        examples, rest = look(folder)
        found += [(path, folder.name, split) for path in examples]
        others += rest
        if not examples:
            where = folder.relative_to(root).as_posix()
            problems.append(
                Problem("empty_class", f"class folder {where!r} holds no {noun}", (where,))
            )
    return found, others, problems


def class_folders(root: Path) -> list[tuple[Path, str | None]]:
    """Each class folder with its split; the split is None where the folders do not name any."""
    splits = _split_folders(root)
    if not splits:
        return [(folder, None) for folder in _folders(root)]
    return [(inner, split) for folder, split in splits.items() for inner in _folders(folder)]


def _split_folders(root: Path) -> dict[Path, str]:
    """The folders that are splits, each with its name; none where all are classes.

    One class may be called `train`, beside `tram` and `bus`. Two names of splits are no chance:
    then a third folder of pictures is a `DataError`, which would else be learnt as a class.
    """
    folders = _folders(root)
    known = {folder: SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders}
    splits = {folder: split for folder, split in known.items() if split}
    several = len(set(splits.values())) > 1
    if not several and ("train" not in splits.values() or len(splits) < len(folders)):
        return {}
    for folder in folders:
        if folder not in splits and any(pictures_under(folder)):
            raise DataError(
                f"{root}: expected classes alone or splits alone, got {folder.name!r} with "
                f"pictures beside {' and '.join(split.name for split in splits)}; move it away"
            )
    return splits if several or any(map(_folders, splits)) else {}


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p))


def _pictures_in(folder: Path) -> list[Path]:
    """Those in a folder itself, not below."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.is_file())


def _check_single_class(root: Path, labels: set[str]) -> None:
    """A tree that was unpacked into a folder of its own is one class to us: say so."""
    if len(labels) != 1:
        return
    inner = root / next(iter(labels))
    if inner.is_dir() and len(_folders(inner)) > 1:
        raise DataError(
            f"{root}: {LAYOUT}, got only {inner.name!r}, which holds folders itself; "
            f"did you mean {inner}?"
        )


def _what_is_there(root: Path, strays: list[Path], unread: list[Path]) -> str:
    if strays:
        first = shown(strays[0].relative_to(root).as_posix())
        return f"{len(strays)} pictures in no class folder, such as {first}"
    if unread:
        return f"only formats that striate does not read, such as {unread[0].name}"
    folders = _folders(root)
    if folders:
        return f"{len(folders)} folders without a picture, such as {folders[0].name!r}"
    return "an empty folder" if not any(root.iterdir()) else "no folder in it"
