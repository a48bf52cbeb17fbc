"""Models and their versions on disk, and which of them are being served.

    <base_path>/<version>/striate.json ...              an artifact, in TensorFlow Serving's layout
    <base_path>/<version>/saved_model.pb variables/     a SavedModel that striate did not write,
                          model.tflite, model.onnx      or another model

The directory is looked at again and again. A version that the policy wants is loaded before one
that it no longer wants is let go, so requests never meet a gap. An artifact is looked at only when
its `striate.json` is there, which is written last, another model when its files stopped changing;
and it becomes AVAILABLE only when it is proven. One that fails stays listed with the reason, the
policy chooses among the others, and it is tried again a few times and whenever its files change.
When all versions vanish from disk, what is loaded goes on serving. What has ended stays listed for
a while: a few versions of each model, and a few models.
"""

import errno
import logging
import stat
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

from striate.artifact import GOLDENS, MANIFEST
from striate.errors import ArtifactError, DisagreementError, StriateError
from striate.serve import memory
from striate.serve.behind import DaemonThreads
from striate.serve.observe.counters import Loads
from striate.serve.options import ModelConfig, VersionPolicy
from striate.serve.repository.servable import Servable
from striate.serve.status import Code, ServingError, UnknownLabel, cut

log = logging.getLogger("striate.serve")

# What a model of somebody else is known by
FOREIGN = ("saved_model.pb", "model.tflite", "model.onnx")

ENDING = 5.0  # seconds for a look at a disk that does not answer, once nobody waits for it
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

KEPT = 8  # versions of a model that have ended, and models without any other, that stay listed


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
    tries: int = 0
    retry_at: float = float("inf")  # in time.monotonic()

    @property
    def may_retry(self) -> bool:
        """Whether its files changed since it failed, or the time has come to try it once more."""
        return time.monotonic() >= self.retry_at or self.files != fingerprint(self.path)


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


@dataclass
class Model:
    """A name, the directory of its versions, the policy that chooses among them, and labels.

    seen: what the files of versions without a manifest looked like at the last look; None before
    the first one. removed: no longer configured; its versions stay listed. doubled: versions with
    several directories, of which that was said. complaint: why the directory could not be read at
    the last look.
    """

    name: str
    base_path: Path
    policy: VersionPolicy
    labels: dict[str, int] = field(default_factory=dict)
    versions: dict[int, Version] = field(default_factory=dict)
    seen: dict[int, tuple] | None = None
    removed: bool = False
    doubled: frozenset[int] = frozenset()
    complaint: str = ""

    def available(self) -> list[int]:
        """The numbers of the versions that answer, ascending."""
        known = list(self.versions.items())  # a copy: another thread may be adding one
        return sorted(number for number, version in known if version.state == State.AVAILABLE)

    @property
    def over(self) -> bool:
        """Whether nothing of it is served, or will be."""
        return self.removed and all(v.state == State.END for v in self.versions.values())

    def named(self, label: str) -> int | None:
        """The version with a label, or with a number that is written as one; None without any."""
        return int(label) if label.isdecimal() else self.labels.get(label)

    def serving(self, number: int) -> Servable | None:
        """What answers for a version while it is AVAILABLE."""
        version = self.versions.get(number)
        return version.servable if version and version.state == State.AVAILABLE else None


@dataclass(frozen=True)
class Retries:
    """How often a version that failed to load is tried again, and after how many seconds."""

    most: int = 5
    seconds: float = 60.0


class Repository:
    """The models that a server answers for.

    open_version: directory -> Servable, or an error that says why not. load_threads: versions that
    are loaded at the same time. loads: where attempts are counted. forgotten(model, version) is
    called for each version that is listed no more.
    """

    def __init__(
        self,
        models: list[Model],
        open_version: Callable[[Path], Servable],
        *,
        retries: Retries = Retries(),
        load_threads: int = 1,
        loads: Loads | None = None,
    ):
        self.models = {model.name: model for model in models}
        self._open_version = open_version
        self.loads = loads or Loads()
        self._retries = retries
        self._load_threads = max(1, load_threads)
        self.forgotten: Callable[[str, int], None] = lambda model, version: None
        self._lock = threading.Lock()  # of everything that a request looks at
        self._refreshing = threading.RLock()  # one change at a time
        self._closed = threading.Event()
        self._pollers: list[threading.Thread] = []

    @contextmanager
    def lease(
        self, name: str, number: int | None = None, label: str | None = None
    ) -> Iterator[Lease]:
        """The version that answers: number `number`, the one with a label, or the newest.

        Raises `ServingError`: NOT_FOUND when no such version is AVAILABLE, INVALID_ARGUMENT for a
        label that the model does not have.
        """
        with self._lock:
            if label is not None:
                number = self._labelled(name, label)
            version, servable = self._find(name, number)
            version.in_flight += 1
        try:
            yield Lease(name, version.number, servable)
        finally:
            with self._lock:
                version.in_flight -= 1
                ended = _end_if_idle(version)
            _close(ended)

    def _labelled(self, name: str, label: str) -> int:
        model = self.models.get(name)
        if model is None or label not in model.labels:
            raise UnknownLabel(label)
        return model.labels[label]

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
            return all(model.available() for model in self.models.values() if not model.removed)

    def configured(self) -> list[Model]:
        """The models that are meant to be served."""
        return [model for model in list(self.models.values()) if not model.removed]

    def absent(self) -> list[str]:
        """Of the models that are meant to be served, those that have no version, none that failed
        either: why, a line for each."""
        return [
            f"model {model.name}: {_why_none(model.base_path)}"
            for model in self.configured()
            if not model.available() and all(v.code == Code.OK for v in model.versions.values())
        ]

    def configure(self, configs: Iterable[ModelConfig]) -> list[Event]:
        """Serve these models and no others: load what is new, then let go of the rest.

        Labels are for `label`, which needs the versions loaded. Returns what happened, in order.
        """
        with self._refreshing:
            wanted = {config.name: config for config in configs}
            with self._lock:
                for model in self.models.values():
                    model.removed = model.name not in wanted
                for name, config in wanted.items():
                    base_path = Path(config.base_path)
                    model = self.models.setdefault(name, Model(name, base_path, config.policy))
                    model.base_path, model.policy = base_path, config.policy
            return self.refresh()

    def label(self, configs: Iterable[ModelConfig], *, allow_unavailable: bool = False) -> None:
        """Give each model the labels of its configuration, and take away those it had.

        Raises `ServingError` (FAILED_PRECONDITION), and changes nothing, for a label on a version
        that is not AVAILABLE. allow_unavailable: of a label that the model did not have yet.
        """
        configs = list(configs)
        with self._lock:
            for config in configs:
                model = self.models[config.name]
                for label, number in config.labels.items():
                    is_new = label not in model.labels
                    if number not in model.available() and not (allow_unavailable and is_new):
                        raise ServingError(
                            Code.FAILED_PRECONDITION,
                            f"Request to assign label to version {number} of model {config.name}, "
                            "which is not currently available for inference",
                        )
            for config in configs:
                self.models[config.name].labels = dict(config.labels)

    def refresh(self) -> list[Event]:
        """Look at the directories once: load what is wanted and new, then let go of the rest.

        Returns what happened, in order.
        """
        with self._refreshing:
            events = []
            on_disk = {name: self._seen(model) for name, model in self.models.items()}
            while not self._closed.is_set() and (missing := self._missing(on_disk)):
                events += self._load_all(missing)
            for name, model in self.models.items():
                wanted = self._wanted(model, on_disk[name])
                if wanted or model.removed:
                    unwanted = sorted(set(model.available()) - wanted)
                    events += [self._unload(model, number) for number in unwanted]
            if events:
                self._forget(on_disk)
                memory.give_back()
            return events

    def _forget(self, on_disk: dict[str, dict[int, Path]]) -> None:
        """List no more what ended long ago; what failed and is still there is not over."""
        for name, model in self.models.items():
            ended = [
                version
                for _, version in sorted(model.versions.items())
                if version.state == State.END
                and not (version.code and version.path == on_disk[name].get(version.number))
            ]
            for version in ended[:-KEPT]:
                with self._lock:
                    del model.versions[version.number]
                self.loads.forget(str(version.path))
                self.forgotten(name, version.number)
        over = [name for name, model in self.models.items() if model.over]
        for name in over[:-KEPT]:
            with self._lock:
                model = self.models.pop(name)
            for number, version in model.versions.items():
                self.loads.forget(str(version.path))
                self.forgotten(name, number)

    def _seen(self, model: Model) -> dict[int, Path]:
        """The same as `_look`, or nothing, which changes nothing, of a directory that cannot be
        read: the other models do not wait for it. What is wrong with it is said once, and once that
        it no longer is."""
        found: dict[int, Path] = {}
        try:
            found = self._look(model)
            loaded = bool(model.available()) and not model.removed
            complaint = _nothing_in(model.base_path) if loaded and not found else ""
        except OSError as error:
            complaint = f"{model.base_path} cannot be read ({error.strerror})"
        if complaint and complaint != model.complaint:
            log.error("%s: %s; what is loaded goes on answering", model.name, complaint)
        if model.complaint and not complaint:
            log.info("%s: there are versions in %s again", model.name, model.base_path)
        model.complaint = complaint
        return found

    def _look(self, model: Model) -> dict[int, Path]:
        """The versions on disk that are whole.

        What has no manifest may still be being copied, so it must look the same twice; not when its
        model is looked at for the first time, since the server is waited for then.
        """
        if model.removed:
            return {}
        directories = _directories(model.base_path)
        _say_doubles(model, directories)
        found = {number: paths[0] for number, paths in directories.items()}
        new = [n for n in found if n not in model.versions and not _has_manifest(found[n])]
        looks = {number: fingerprint(found[number]) for number in new}
        before, model.seen = model.seen, looks
        changing = [n for n in new if before is not None and before.get(n) != looks[n]]
        return {number: path for number, path in found.items() if number not in changing}

    def _missing(self, on_disk: dict[str, dict[int, Path]]) -> list[tuple[Model, int, Path]]:
        found = []
        for name, model in self.models.items():
            paths = on_disk[name]
            served = {n for n in model.available() if model.versions[n].path == paths.get(n)}
            wanted = sorted(self._wanted(model, paths) - served)
            found += [(model, number, paths[number]) for number in wanted]
        return found

    def _wanted(self, model: Model, on_disk: dict[int, Path]) -> set[int]:
        """What the policy chooses among the complete versions that did not fail as they are."""
        failed = {
            number
            for number, version in model.versions.items()
            if version.code and version.path == on_disk.get(number) and not version.may_retry
        }
        return model.policy.choose([number for number in on_disk if number not in failed])

    def _load_all(self, missing: list[tuple[Model, int, Path]]) -> list[Event]:
        if self._load_threads == 1 or len(missing) == 1:
            return [self._load(*version) for version in missing]
        with DaemonThreads(self._load_threads, "load") as threads:
            return list(threads.map(lambda version: self._load(*version), missing))

    def _load(self, model: Model, number: int, path: Path) -> Event:
        before = model.versions.get(number)
        version = Version(number, path, State.LOADING, files=fingerprint(path))
        if before is not None and before.code and before.files == version.files:
            version.tries = before.tries
        with self._lock:
            if before is None or before.state != State.AVAILABLE:
                model.versions[number] = version
        try:
            servable = self._open_version(path)
        except Exception as error:  # whatever it is, this version fails and the others go on
            return self._failed(model, version, error)
        with self._lock:
            self.loads.loaded(str(path), servable.seconds)
            version.servable = servable
            version.state = State.AVAILABLE
            model.versions[number] = version
            ended = [_let_go(before)]
            if self._closed.is_set():  # it took longer than the server did to end
                ended.append(_let_go(version))
        for servable_ended in ended:
            _close(servable_ended)
        return Event(
            False, f"{model.name} version {number} is served: {servable.engine} ({servable.kernel})"
        )

    def _failed(self, model: Model, version: Version, error: Exception) -> Event:
        if not isinstance(error, StriateError | OSError):
            log.exception("%s version %d", model.name, version.number)
        with self._lock:
            self.loads.attempts[str(version.path), False] += 1
            version.tries += 1
            if version.tries <= self._retries.most:
                version.retry_at = time.monotonic() + self._retries.seconds
            version.state, version.code = State.END, _code_of(error)
            version.message = cut(_words(error))
            before = model.versions.get(version.number)
            model.versions[version.number] = version
            ended = _let_go(before)
        _close(ended)
        return Event(
            True, f"{model.name} version {version.number} is not served: {version.message}"
        )

    def _unload(self, model: Model, number: int) -> Event:
        with self._lock:
            ended = _let_go(model.versions[number])
        _close(ended)
        return Event(False, f"{model.name} version {number} is no longer served")

    def watch(self, seconds: float) -> None:
        """Refresh every so many seconds, in a thread of its own, until `close`."""
        self.every(seconds, self._refresh_and_log)

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call every so many seconds, in a thread of its own, until `close`."""

        def poll() -> None:
            while not self._closed.wait(seconds):
                try:
                    call()
                except Exception:  # a mistake of ours: the next look may do better, none never will
                    log.exception("the server looks again in %g s", seconds)

        thread = threading.Thread(target=poll, name="repository", daemon=True)
        thread.start()
        self._pollers.append(thread)

    def _refresh_and_log(self) -> None:
        for event in self.refresh():
            event.log()

    def close(self, seconds: float = ENDING) -> None:
        """Look no more, and let go of every version. What is being looked at or loaded has so many
        seconds to end: a disk may never answer."""
        self._closed.set()
        deadline = time.monotonic() + seconds
        for thread in self._pollers:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._pollers):
            log.warning("a look at the disk has not ended in %g s, and is not waited for", seconds)
        for model in self.models.values():
            for number in model.available():
                self._unload(model, number)


def complete_versions(base_path: Path) -> dict[int, Path]:
    """Version number -> directory, of the versions that are there with all they need."""
    return {number: paths[0] for number, paths in _directories(base_path).items()}


def _say_doubles(model: Model, directories: dict[int, list[Path]]) -> None:
    """Say once which of several directories of a version is the one that counts."""
    several = {n: paths for n, paths in directories.items() if len(paths) > 1}
    for number in several.keys() - model.doubled:
        first, *others = (path.name for path in several[number])
        log.warning(
            "%s version %d is the directory %s; the same version in %s is ignored",
            *(model.name, number, first, ", ".join(others)),
        )
    model.doubled = frozenset(several)


def _directories(base_path: Path) -> dict[int, list[Path]]:
    """Version number -> its complete directories, the one with the shortest name first: 7, 007."""
    found: dict[int, list[Path]] = {}
    if not stat.S_ISDIR(_mode(base_path)):
        return found
    for path in sorted(base_path.iterdir(), key=lambda path: (len(path.name), path.name)):
        if path.name.isdecimal() and int(path.name) < 1 << 63 and _is_complete(path):
            found.setdefault(int(path.name), []).append(path)
    return found


def _why_none(base_path: Path) -> str:
    """Why a policy found nothing to its liking in a directory."""
    try:
        found = ", ".join(map(str, sorted(complete_versions(base_path))))
        why_not = f"the policy wants none of the versions in {base_path}: {found}"
        return _nothing_in(base_path) or why_not
    except OSError as error:
        return f"{base_path} cannot be read ({error.strerror})"


def _nothing_in(base_path: Path) -> str:
    """Why there is no version in a directory; nothing where there is one."""
    if not stat.S_ISDIR(_mode(base_path)):
        return f"expected a directory of versions at {base_path}, got nothing there"
    if not complete_versions(base_path):
        return f"expected a version with all its files in {base_path}, got none"
    return ""


def _is_complete(path: Path) -> bool:
    """An artifact with its manifest, or a model of somebody else; not half of an artifact.

    One that cannot be looked into, since its disk fails or nobody may, is there: what is loaded of
    it goes on, and else it is tried, so that its status says so.
    """
    if _has_manifest(path):
        return True
    try:
        foreign = any(stat.S_ISREG(_mode(path / name)) for name in FOREIGN)
        return foreign and not any(_mode(path / name) for name in (GOLDENS, "model.keras"))
    except OSError:
        return True


def _has_manifest(path: Path) -> bool:
    """Whether it is there, or nobody can say."""
    try:
        return stat.S_ISREG(_mode(path / MANIFEST))
    except OSError:
        return True


def _mode(path: Path) -> int:
    """What is at a path, of `stat`'s kinds; 0 for nothing. Raises `OSError` where nobody can say,
    which is not the same."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in NOT_THERE:
            return 0
        raise


def fingerprint(path: Path) -> tuple:
    """What the files of a version look like from outside; it changes when they do."""
    found = []
    for file in _below(path):
        try:
            stat = file.stat()
        except OSError:  # it is being copied or deleted right now, or nobody may look at it
            continue
        found.append((str(file), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def _below(path: Path) -> list[Path]:
    """All that is in a directory; nothing where the disk does not say."""
    try:
        return list(path.rglob("*"))
    except OSError:
        return []


def _means_newest(number: int, known: Container[int]) -> bool:
    """Version 0 where there is none: what clients send (ovmsclient) that have no other word."""
    return number == 0 and 0 not in known


def _let_go(version: Version | None) -> Servable | None:
    """Take a version out of service; returns what is to be closed, once it is out of the lock."""
    if version is None or version.state != State.AVAILABLE:
        return None
    version.state = State.UNLOADING
    return _end_if_idle(version)


def _end_if_idle(version: Version) -> Servable | None:
    if version.state != State.UNLOADING or version.in_flight:
        return None
    ended, version.servable = version.servable, None
    version.state = State.END
    return ended


def _close(servable: Servable | None) -> None:
    if servable is not None:
        servable.close()


def _words(error: Exception) -> str:
    """Why a version failed, in a line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: cannot be read ({error.strerror})"
    return str(error) or repr(error)


def _code_of(error: Exception) -> Code:
    if isinstance(error, ArtifactError):
        return Code.DATA_LOSS
    if isinstance(error, DisagreementError):
        return Code.FAILED_PRECONDITION
    return Code.UNKNOWN
