"""Fetching a published file once, checked against its hash, into the user's cache."""

import hashlib
import http.client
import os
import tempfile
import urllib.request
import warnings
from pathlib import Path
from urllib.error import HTTPError

from striate.errors import StriateError

TIMEOUT = 60  # seconds without a byte before a server is given up


def cache_dir() -> Path:
    """Where fetched files are kept: $STRIATE_CACHE, or `striate` in the user's cache folder.

    Raises `StriateError` for a user who has none, as in a container that knows them by number.
    """
    chosen = os.environ.get("STRIATE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "striate"
    except RuntimeError:
        raise StriateError(
            "expected a home folder to keep fetched files in, got none; "
            "point STRIATE_CACHE at a folder that can be written"
        ) from None


def fetch(url: str, *, hash: str | None, name: str) -> Path:
    """The local copy of `url`, fetched unless the cache has it.

    hash: "md5:..." or "sha256:...", checked for a cached file too. Of a sha256 the first eight
        digits or more will do, where the publisher gives no others: they tell a broken file, not a
        forged one. None if nobody has published a hash: the file is then taken as it comes over
        HTTPS, and a warning gives its sha256.
    name: the file's path inside the cache.

    Raises `StriateError` when the server cannot be reached or the hash differs; a file with another
    hash is deleted. A file is never visible half-written.
    """
    path = cache_dir() / name
    if path.exists():
        if hash is not None:
            _check(path, hash, url)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StriateError(
            f"the cache {path.parent} cannot be written ({error.strerror}); "
            "point STRIATE_CACHE at a folder that can"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            _download(url, file, path)
        _check(Path(part), hash, url)
        os.chmod(part, 0o644)  # a temporary file is its maker's alone, a cache may be a group's
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _download(url: str, file, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            expected = response.headers.get("Content-Length")
            got = 0
            while block := response.read(1 << 20):
                file.write(block)
                got += len(block)
    except (OSError, http.client.HTTPException) as error:
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise StriateError(
            f"{url} cannot be fetched ({reason}); fetch it by other means and put it at {path}"
        ) from None
    if expected is not None and got != int(expected):
        raise StriateError(f"{url}: expected {expected} bytes, got {got}; try again")


def _check(path: Path, expected: str | None, url: str) -> None:
    """Delete a file whose hash differs from the pinned one, and say so."""
    if expected is None:
        digest = _digest(path, "sha256")
        warnings.warn(f"{url}: no hash is published for this file; sha256 {digest}", stacklevel=3)
        return
    algorithm, _, digest = expected.partition(":")
    got = _digest(path, algorithm)
    beginning = algorithm == "sha256" and len(digest) >= 8 and got.startswith(digest)
    if got != digest and not beginning:
        path.unlink()
        raise StriateError(
            f"{url}: expected {algorithm} {digest}, got {got}; the file was deleted. "
            "Try again; if it stays so, the file was changed at its source"
        )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
