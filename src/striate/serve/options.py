"""What a server is told at the start, by tensorflow_model_server's names where it has them.

Plain data: importing this file costs nothing, so `striate serve --help` may.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from striate.errors import UsageError

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class VersionPolicy:
    """Which of a model's versions on disk are served at the same time.

    kind: `latest` (the `count` highest numbers), `all`, or `specific` (the numbers in `versions`).
    A request that names no version is answered by the highest one that is loaded.

    >>> VersionPolicy("latest", count=2).choose([1, 2, 5])
    {2, 5}
    """

    kind: str = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "VersionPolicy":
        """The policy written `latest`, `latest:N`, `all`, or as numbers: `3` or `3,5`."""
        word, _, number = text.strip().partition(":")
        if word == "all" and not number:
            return cls("all")
        if word == "latest" and (not number or (number.isdecimal() and int(number) > 0)):
            return cls("latest", count=int(number or 1))
        numbers = [part.strip() for part in text.split(",")]
        if all(part.isdecimal() for part in numbers):
            return cls("specific", versions=tuple(int(part) for part in numbers))
        raise UsageError(
            f"expected a version policy latest, latest:N, all or numbers (3,5), got {text!r}"
        )

    def choose(self, numbers: list[int]) -> set[int]:
        """Those of `numbers`, the versions that could be served, that this policy wants."""
        if self.kind == "all":
            return set(numbers)
        if self.kind == "specific":
            return set(numbers) & set(self.versions)
        return set(sorted(numbers)[-self.count :])


@dataclass(frozen=True)
class ServerOptions:
    """Everything that `striate serve` can be told.

    model_base_path: a model directory (versions 1, 2, ... in it), one version directory (only that
        version is served), or a directory of model directories (all of them are served).
    model_name: what requests call the model; None takes the directory's name.
    port, rest_api_port: gRPC and REST; 0 turns one off.
    host: the address to listen on; 0.0.0.0 is every interface, as in tensorflow_model_server.
    version_policy: which versions are served at the same time.
    file_system_poll_wait_seconds: how often the directory is looked at; 0 looks only once.
    rest_api_timeout_in_ms: how long a REST request may wait for its turn.
    engine: `onnx`, `litert`, `tensorflow`, `keras`, or `auto`, which races the quick ones at every
        start; None takes the first of those four that the version holds and that is installed.
    threads: of one call of the engine.
    workers: calls that compute at the same time; None is one for each processor.
    max_queue: requests that may wait beyond those; the next is refused at once (UNAVAILABLE).
    max_message_bytes: of one request, encoded or decoded, gRPC or REST.
    drain_seconds: how long requests in flight may take to end after SIGTERM.
    """

    model_base_path: str | os.PathLike = ""
    model_name: str | None = None
    port: int = 8500
    rest_api_port: int = 0
    host: str = "0.0.0.0"
    version_policy: VersionPolicy = VersionPolicy()
    file_system_poll_wait_seconds: float = 1.0
    rest_api_timeout_in_ms: int = 30_000
    engine: str | None = None
    threads: int = 1
    workers: int | None = None
    max_queue: int = 64
    max_message_bytes: int = 64 * MEBIBYTE
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("port", "rest_api_port"):
            _expect(0 <= getattr(self, name) <= 65535, name, "from 0 to 65535", self)
        _expect(self.port or self.rest_api_port, "port", "or rest_api_port other than 0", self)
        _expect(self.port != self.rest_api_port, "port", "other than rest_api_port", self)
        _expect(str(self.model_base_path), "model_base_path", "that is a directory", self)
        _expect(self.model_name != "", "model_name", "that is not empty", self)
        _expect(self.threads >= 1, "threads", "of at least 1", self)
        _expect(self.workers is None or self.workers >= 1, "workers", "of at least 1", self)
        _expect(self.max_queue >= 0, "max_queue", "of at least 0", self)
        _expect(self.max_message_bytes >= 1, "max_message_bytes", "of at least 1", self)
        for name in ("file_system_poll_wait_seconds", "rest_api_timeout_in_ms", "drain_seconds"):
            _expect(getattr(self, name) >= 0, name, "of at least 0", self)

    @property
    def base_path(self) -> Path:
        return Path(self.model_base_path)

    @property
    def worker_count(self) -> int:
        return self.workers or processors()


def processors() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _expect(holds: object, name: str, wanted: str, options: ServerOptions) -> None:
    if not holds:
        raise UsageError(f"expected {name} {wanted}, got {getattr(options, name)!r}")
