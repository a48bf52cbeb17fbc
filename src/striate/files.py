"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from striate.errors import StriateError, UsageError


def check_writable(path: str | os.PathLike, *, ending: str = "") -> None:
    """Make a file's folder, and see that it takes the file, before the work that fills it.

    ending: what its name has to end in, as `.png`. Raises `UsageError` for what cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(ending):
        raise UsageError(f"expected a file name that ends in {ending}, got {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path}: expected a file that can be written")


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A place beside a path to write to; what is there at the end takes the path, at once.

    Whoever reads meanwhile, and whoever finds the path after a kill or on a full disk, has what was
    there before. Raises `UsageError` where it cannot be written.

    >>> with whole("report.html") as fresh:
    ...     fresh.write_text(page, "utf-8")
    """
    path = Path(path)
    fresh = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield fresh
        fresh.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{path}: cannot be written ({reason})") from None
    finally:
        with contextlib.suppress(OSError):  # no such place, or a disk that no longer answers
            fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[Path]:
    """A folder for what the block finds, made where there is none, and gone again where the block
    fails before there is anything in it; `UsageError` where it cannot be made."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written to ({error.strerror})") from None
    try:
        yield path
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it
            for folder in new:
                folder.rmdir()
        raise


@contextlib.contextmanager
def held(folder: Path, busy: str) -> Iterator[None]:
    """A folder to oneself until the block, or the process, ends: `StriateError` with `busy` where
    another one holds it. It has a file `lock` from then on.

    Not on Windows and on network file systems without locks, where a second process is the user's
    own care.
    """
    try:
        file = (folder / "lock").open("w")
    except OSError as error:
        raise StriateError(f"{folder}: cannot be written to ({error.strerror})") from None
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StriateError(f"{folder}: {busy}") from None
        except (ModuleNotFoundError, OSError):
            pass
        yield
