"""Models and their versions on disk, and which of them are being served.

    <model_base_path>/<version>/striate.json ...        the layout of TensorFlow Serving

The directory is looked at again and again. A version that the policy wants is loaded before one
that it no longer wants is let go, so requests never meet a gap. A version is looked at only when
its `striate.json` is there, which is written last; and it becomes AVAILABLE only when it is proven.
One that fails stays listed with the reason, the policy chooses among the others, and it is tried
again when its files change. When all versions vanish from disk, what is loaded goes on serving.
"""

import logging
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from striate.artifact import MANIFEST
from striate.errors import ArtifactError, DisagreementError, StriateError
from striate.serve.options import VersionPolicy
from striate.serve.servable import Servable
from striate.serve.status import Code, ServingError, cut

log = logging.getLogger("striate.serve")


class State(IntEnum):
    """ModelVersionStatus.State of TensorFlow Serving."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass
class Version:
    """One version that was ever loaded, or tried. Its repository changes it, under its lock."""

    number: int
    path: Path
    state: State = State.START
    code: Code = Code.OK
    message: str = ""
    servable: Servable | None = None
    in_flight: int = 0
    files: tuple = ()  # what they looked like when it was tried


@dataclass(frozen=True)
class Lease:
    """A loaded version that cannot be let go while somebody holds this."""

    model: str
    version: int
    servable: Servable


@dataclass(frozen=True)
class Event:
    """Something that happened to a version, in one line; `failed` when it is bad news."""

    failed: bool
    text: str

    def log(self) -> None:
        log.log(logging.WARNING if self.failed else logging.INFO, "%s", self.text)


class Model:
    """A name, the directory of its versions, and the policy that chooses among them."""

    def __init__(self, name: str, base_path: Path, policy: VersionPolicy):
        self.name = name
        self.base_path = base_path
        self.policy = policy
        self.versions: dict[int, Version] = {}

    def available(self) -> list[int]:
        """The numbers of the versions that answer, ascending."""
        known = list(self.versions.items())  # a copy: another thread may be adding one
        return sorted(number for number, version in known if version.state == State.AVAILABLE)


class Repository:
    """The models that a server answers for.

    open_version: directory -> Servable, or an error that says why not.
    """

    def __init__(self, models: list[Model], open_version: Callable[[Path], Servable]):
        self.models = {model.name: model for model in models}
        self._open_version = open_version
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None

    @contextmanager
    def lease(self, name: str, number: int | None = None) -> Iterator[Lease]:
        """The version that answers: number `number`, or the newest that is loaded.

        Raises `ServingError` (NOT_FOUND) when no such version is AVAILABLE.
        """
        with self._lock:
            version, servable = self._find(name, number)
            version.in_flight += 1
        try:
            yield Lease(name, version.number, servable)
        finally:
            with self._lock:
                version.in_flight -= 1
                _end_if_idle(version)

    def _find(self, name: str, number: int | None) -> tuple[Version, Servable]:
        model = self.models.get(name)
        if model is not None and (available := model.available()):
            chosen = number
            if chosen is None or _means_newest(chosen, available):
                chosen = available[-1]
            version = model.versions.get(chosen)
            if version is not None and version.state == State.AVAILABLE and version.servable:
                return version, version.servable
        wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")

    def statuses(self, name: str, number: int | None = None) -> list[Version]:
        """What became of every version of a model, or of one, the newest first.

        Raises `ServingError` (NOT_FOUND) when there is none.
        """
        with self._lock:
            model = self.models.get(name)
            known = {n: replace(v) for n, v in model.versions.items()} if model else {}
        if number is not None and known and _means_newest(number, known):
            number = None
        if number is not None and number not in known:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {number} of model {name}")
        if not known:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [known[n] for n in sorted(known, reverse=True) if number in (None, n)]

    def ready(self) -> bool:
        """Whether every model has a version that answers."""
        with self._lock:
            return all(model.available() for model in self.models.values())

    def refresh(self) -> list[Event]:
        """Look at the directories once: load what is wanted and new, then let go of the rest.

        Returns what happened, in order.
        """
        events = []
        for model in self.models.values():
            on_disk = complete_versions(model.base_path)
            wanted = self._wanted(model, on_disk)
            while missing := wanted - set(model.available()):
                events += [self._load(model, number, on_disk[number]) for number in sorted(missing)]
                wanted = self._wanted(model, on_disk)
            if wanted:
                unwanted = sorted(set(model.available()) - wanted)
                events += [self._unload(model, number) for number in unwanted]
        return events

    def _wanted(self, model: Model, on_disk: dict[int, Path]) -> set[int]:
        """What the policy chooses among the complete versions that did not fail as they are."""
        failed = {
            number
            for number, version in model.versions.items()
            if number in on_disk and version.code and version.files == fingerprint(version.path)
        }
        return model.policy.choose([number for number in on_disk if number not in failed])

    def _load(self, model: Model, number: int, path: Path) -> Event:
        version = Version(number, path, files=fingerprint(path))
        with self._lock:
            model.versions[number] = version
            version.state = State.LOADING
        try:
            servable = self._open_version(path)
        except Exception as error:  # whatever it is, this version fails and the others go on
            if not isinstance(error, StriateError):
                log.exception("%s version %d", model.name, number)
            with self._lock:
                version.state, version.code = State.END, _code_of(error)
                version.message = cut(str(error) or repr(error))
            return Event(True, f"{model.name} version {number} is not served: {version.message}")
        with self._lock:
            version.servable = servable
            version.state = State.AVAILABLE
        return Event(
            False, f"{model.name} version {number} is served: {servable.engine} ({servable.kernel})"
        )

    def _unload(self, model: Model, number: int) -> Event:
        version = model.versions[number]
        with self._lock:
            version.state = State.UNLOADING
            _end_if_idle(version)
        return Event(False, f"{model.name} version {number} is no longer served")

    def watch(self, seconds: float) -> None:
        """Refresh every so many seconds, in a thread of its own, until `close`."""
        self._poller = threading.Thread(target=self._poll, args=(seconds,), name="repository")
        self._poller.daemon = True
        self._poller.start()

    def _poll(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                for event in self.refresh():
                    event.log()
            except OSError as error:  # a file system that is away comes back
                log.error("the model directories cannot be read: %s", error)

    def close(self) -> None:
        """Look no more; what is loaded keeps answering."""
        self._closed.set()
        if self._poller is not None:
            self._poller.join()


def find_models(base_path: Path, name: str | None, policy: VersionPolicy) -> list[Model]:
    """The models in a directory: a model's (with versions in it), a version's, or one of models.

    Raises `ArtifactError` when it is none of these, or when one name is given to several models.
    """
    base_path = base_path.resolve()
    if not base_path.is_dir():
        raise ArtifactError(f"{base_path}: expected a model directory, got nothing there")
    if (base_path / MANIFEST).is_file() and base_path.name.isdecimal():
        only = VersionPolicy("specific", versions=(int(base_path.name),))
        return [Model(name or base_path.parent.name, base_path.parent, only)]
    if complete_versions(base_path):
        return [Model(name or base_path.name, base_path, policy)]
    inside = sorted(p for p in base_path.iterdir() if p.is_dir() and complete_versions(p))
    if name is not None and len(inside) != 1:
        inside = []
    if not inside:
        raise ArtifactError(
            f"{base_path}: expected version directories (1, 2, ...) with {MANIFEST} in them; "
            "name the directory of one model, one of its versions, or a directory of models"
        )
    return [Model(name or path.name, path, policy) for path in inside]


def complete_versions(base_path: Path) -> dict[int, Path]:
    """Version number -> directory, of the versions whose `striate.json` is there."""
    if not base_path.is_dir():
        return {}
    return {
        int(path.name): path
        for path in base_path.iterdir()
        if path.name.isdecimal() and (path / MANIFEST).is_file()
    }


def fingerprint(path: Path) -> tuple:
    """What the files of a version look like from outside; it changes when they do."""
    found = []
    for file in path.rglob("*"):
        try:
            stat = file.stat()
        except FileNotFoundError:  # it is being copied, or deleted, right now
            continue
        found.append((str(file), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def _means_newest(number: int, known: Container[int]) -> bool:
    """Version 0 where there is none: what clients send (ovmsclient) that have no other word."""
    return number == 0 and 0 not in known


def _end_if_idle(version: Version) -> None:
    if version.state == State.UNLOADING and version.in_flight == 0:
        version.servable = None
        version.state = State.END


def _code_of(error: Exception) -> Code:
    if isinstance(error, ArtifactError):
        return Code.DATA_LOSS
    if isinstance(error, DisagreementError):
        return Code.FAILED_PRECONDITION
    return Code.UNKNOWN
