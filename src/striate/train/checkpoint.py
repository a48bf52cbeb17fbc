"""What a killed run leaves behind, and how the same command finds it again.

    saved_models/mine/.run-3f2a.../        one unfinished run: this recipe, data and first weights
      run.json                             its number, so that it is never published twice
      checkpoint.npz                       every variable, the optimiser's and the random state too
      best-00007.npz                       the weights to go back to, where a recipe asks for it
      snapshot-00010.npz                   those of the end of a cycle, likewise
      metrics.jsonl  tensorboard/          what happened so far
      lock                                 held while a process works on it

Every file is written beside its place, flushed to the disk and renamed, so that a kill at any
moment leaves the old one or the new one.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from striate.artifact import staged_name
from striate.errors import StriateError
from striate.files import held
from striate.lazy import keras

META = "state.json"
METRICS = "metrics.jsonl"


@dataclasses.dataclass
class State:
    """Where a run stands: phase, epoch and step to come, and what it has seen.

    partial: (steps, mean loss, mean accuracy) of the epoch that is under way. least: the smallest
    mean loss of a stretch of this phase.
    history: one row an epoch. best: the best epoch of this phase, as `{"epoch", "value"}`; 0 is
    what it began with.
    stale: epochs since then. stopped: whether the phase ends early. plateau: the best value since
    this phase began, for a `plateau` schedule, and the epochs since then or since the last fall.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    partial: dict[str, float] = dataclasses.field(default_factory=dict)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, Any] | None = None
    stale: int = 0
    stopped: bool = False
    plateau: dict[str, Any] | None = None
    least: float | None = None

    def next_phase(self) -> None:
        """Step to the start of the next phase."""
        self.phase += 1
        self.epoch = self.step = self.stale = 0
        self.partial, self.best, self.stopped = {}, None, False
        self.plateau = self.least = None


class NoStore:
    """Keeps nothing on the disk: for fits whose result goes straight back to the caller."""

    def __init__(self) -> None:
        self._best: list[np.ndarray] = []
        self._snapshots: dict[int, list[np.ndarray]] = {}

    def load(self) -> tuple[State, dict[str, list[np.ndarray]]]:
        """A fresh state, and no arrays."""
        return State(), {}

    def save(self, state: State, arrays: dict[str, Sequence[Any]], *, due: bool = True) -> None:
        """Nothing to keep."""

    def log(self, row: dict[str, Any]) -> None:
        """Nothing to keep: the state has the history."""

    def save_best(self, epoch: int, variables: Sequence[Any]) -> None:
        """Keep the best weights in memory."""
        self._best = arrays_of(variables)

    def load_best(self, epoch: int) -> list[np.ndarray]:
        """The weights of the best epoch."""
        return self._best

    def save_snapshot(self, epoch: int, variables: Sequence[Any]) -> None:
        """Keep the weights at the end of a cycle in memory."""
        self._snapshots[epoch] = arrays_of(variables)

    def load_snapshot(self, epoch: int) -> list[np.ndarray]:
        """Those weights."""
        return self._snapshots[epoch]


class Store:
    """The hidden directory of one run; use `open_store`."""

    def __init__(self, directory: Path, run: str, seconds: float) -> None:
        self.directory = directory
        self.run = run
        self._seconds = seconds
        self._last = time.monotonic()

    def load(self) -> tuple[State, dict[str, list[np.ndarray]]]:
        """Where the run stands and the arrays of its last checkpoint; fresh where there is none."""
        path = self.directory / "checkpoint.npz"
        if not path.exists():
            return State(), {}
        meta, arrays = read_arrays(path)
        state = State(**meta)
        rows = "".join(_line(row) for row in state.history)
        write_atomically(self.directory / METRICS, rows.encode())
        return state, arrays

    def log(self, row: dict[str, Any]) -> None:
        """Add the row of an epoch to `metrics.jsonl`."""
        with (self.directory / METRICS).open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def save(self, state: State, arrays: dict[str, Sequence[Any]], *, due: bool = True) -> None:
        """Write a checkpoint; with due=False only when the last one is old enough."""
        if due or time.monotonic() - self._last >= self._seconds:
            write_arrays(self.directory / "checkpoint.npz", dataclasses.asdict(state), arrays)
            self._last = time.monotonic()
            self._drop_stale_best(state)

    def save_best(self, epoch: int, variables: Sequence[Any]) -> None:
        """Keep the weights of an epoch; the checkpoint that follows says that they are the best."""
        write_arrays(self._best_path(epoch), {}, {"variables": variables})

    def load_best(self, epoch: int) -> list[np.ndarray]:
        """The weights of an epoch that `save_best` kept."""
        return read_arrays(self._best_path(epoch))[1]["variables"]

    def save_snapshot(self, epoch: int, variables: Sequence[Any]) -> None:
        """Keep the weights at the end of a cycle; a run that goes back writes the same again."""
        path = self.directory / f"snapshot-{epoch:05d}.npz"
        write_arrays(path, {}, {"variables": variables})

    def load_snapshot(self, epoch: int) -> list[np.ndarray]:
        """The weights that `save_snapshot` kept."""
        return read_arrays(self.directory / f"snapshot-{epoch:05d}.npz")[1]["variables"]

    def _best_path(self, epoch: int) -> Path:
        return self.directory / f"best-{epoch:05d}.npz"

    def _drop_stale_best(self, state: State) -> None:
        keep = self._best_path(state.best["epoch"]) if state.best else None
        for path in self.directory.glob("best-*.npz"):
            if path != keep:
                path.unlink()


def check_output(base: Path) -> None:
    """`StriateError` where a model's directory can be neither made nor written to.

    To be asked before the work, which may take hours, since nothing is written until it is done.
    """
    nearest = next(path for path in (base, *base.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise StriateError(f"{base}: cannot be written to ({nearest} is no directory)")
    if not os.access(nearest, os.W_OK):
        raise StriateError(f"{base}: cannot be written to (permission denied at {nearest})")


@contextlib.contextmanager
def open_store(base: Path, fingerprint: str, seconds: float) -> Iterator[Store]:
    """The run of this fingerprint under a model directory, new or as a killed process left it.

    Raises `StriateError` when another process is at work on the same run, or when the directory
    cannot be written. The caller removes it with `discard` when the run is over.
    """
    directory = base / f".run-{fingerprint[:16]}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StriateError(f"{base}: cannot be written to ({error.strerror})") from None
    busy = "another process is at work on this very run"
    with held(directory, f"{busy}; wait for it, or change the output or the seed"):
        run_file = directory / "run.json"
        if not run_file.exists():
            write_atomically(run_file, json.dumps({"run": uuid.uuid4().hex}).encode())
        run = json.loads(run_file.read_text("utf-8"))["run"]
        yield Store(directory, run, seconds)


def discard(store: Store) -> None:
    """Remove a run's directory; the renaming makes it vanish at once."""
    gone = store.directory.with_name(staged_name() + store.directory.name.removeprefix(".run-"))
    shutil.rmtree(gone, ignore_errors=True)
    store.directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def other_runs(base: Path, stores: Iterable[Store]) -> list[Path]:
    """Directories of runs of other recipes, data or weights under a model directory."""
    mine = {store.directory.name for store in stores}
    return sorted(path for path in base.glob(".run-*") if path.name not in mine)


def write_arrays(path: Path, meta: dict[str, Any], groups: dict[str, Sequence[Any]]) -> None:
    """Write groups of variables, exactly, with some JSON, as one file that appears at once."""
    arrays = {
        f"{group}/{i:05d}": array
        for group, variables in groups.items()
        for i, array in enumerate(arrays_of(variables))
    }
    arrays[META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with _replacing(path) as file:
        np.savez(file, **arrays)


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """The inverse of `write_arrays`."""
    groups: dict[str, list[np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored[META].tobytes())
        for name in sorted(stored.files):
            if name != META:
                groups.setdefault(name.split("/")[0], []).append(stored[name])
    return meta, groups


def assign(variables: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    """Put stored arrays back into the variables that they came from."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file that appears at once."""
    with _replacing(path) as file:
        file.write(data)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def arrays_of(variables: Sequence[Any]) -> list[np.ndarray]:
    """The values of variables, as they are now."""
    # a copy: on some backends the array would go on changing with its variable
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        fresh.unlink(missing_ok=True)  # a full disk has room for better things
        raise StriateError(
            f"{path}: cannot be written ({error.strerror or error}); once it can, the same command "
            "goes on from what was written before"
        ) from None
    fresh.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a renaming last through a power cut, where the file system knows how."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # shared folders of other machines do not, such as SMB's
            os.fsync(handle)
    finally:
        os.close(handle)
