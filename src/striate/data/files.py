"""What the readers of picture files share: which files are pictures, and what each one holds."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from striate.data.records import Problem
from striate.preprocess.clip import frame_files
from striate.preprocess.picture import SUFFIXES
from striate.preprocess.spec import content, shown

# Besides what striate.preprocess.decode reads, what a user might take for a picture all the same.
PICTURES = SUFFIXES
UNREAD_PICTURES = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef")
)
THREADS = min(32, 2 * (os.cpu_count() or 1))


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is no data by its name alone: dot files, archives' leftovers."""
    return path.name.startswith(".") or path.name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def pictures_under(folder: Path) -> tuple[list[Path], list[Path]]:
    """(pictures, pictures of a format that cannot be read) in a folder and below, by their names.

    Files that are no pictures (notes, tables) and hidden ones are passed over in silence, and so
    are links to a folder that they lie in: there is no end to what is below them. Raises `OSError`
    for a folder that cannot be looked into, where a whole class may lie.
    """
    pictures, unread = [], []
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = sorted(
            f for f in folders if not is_hidden(Path(f)) and not leads_up(Path(where, f))
        )
        for file in sorted(files):
            path = Path(where, file)
            if is_hidden(path):
                continue
            if path.suffix.lower() in PICTURES:
                pictures.append(path)
            elif path.suffix.lower() in UNREAD_PICTURES:
                unread.append(path)
    return pictures, unread


def _refuse(error: OSError) -> None:
    """Raise it, but for what is no folder and so has none in it."""
    if not isinstance(error, NotADirectoryError | FileNotFoundError):
        raise error


def named(paths: Iterable[Path]) -> list[Path]:
    """What paths name: for a folder the pictures in it and below, else the path itself."""
    return [file for path in paths for file in pictures_under(path)[0] or [path]]


def leads_up(folder: Path) -> bool:
    """Whether a folder is a link to one of those that it lies in."""
    here = folder.parent.resolve()
    return folder.is_symlink() and folder.resolve() in (here, *here.parents)


def digests_of(paths: Sequence[Path]) -> list[bytes | OSError]:
    """The SHA-256 of what is in each file, or folder of frames, or why it cannot be read."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> bytes | OSError:
    try:
        if path.is_dir():  # a clip's frames, one after the other
            frames = b"".join(hashlib.sha256(content(p)).digest() for p in frame_files(path))
            return hashlib.sha256(frames).digest()
        return hashlib.sha256(content(path)).digest()
    except OSError as error:
        return error


def unreadable(name: str, error: OSError) -> Problem:
    """The problem of a file that cannot even be opened."""
    return Problem("unreadable", f"{name}: cannot be read ({error.strerror or error})", (name,))


def ignored(paths: Iterable[Path], root: Path, why: str) -> list[Problem]:
    """One problem for pictures that are left out, or none where there are none."""
    names = tuple(shown(path.relative_to(root).as_posix()) for path in paths)
    if not names:
        return []
    kinds = ", ".join(sorted(Counter(Path(name).suffix.lower() for name in names)))
    files = "1 file" if len(names) == 1 else f"{len(names)} files"
    return [Problem("ignored", f"{files} ({kinds}) left out, {why}: {names[0]}", names)]
