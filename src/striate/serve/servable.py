"""A version that is loaded, proven, and ready to be asked."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from striate.artifact import Artifact, load
from striate.errors import DisagreementError, EngineError
from striate.runtime import FLOAT_TOLERANCE, Engine, open_engine, usable
from striate.serve.signatures import signatures_of
from striate.serve.status import Code, ServingError

# Engines whose one instance answers several threads at a time. Of the others, each worker gets one.
_SHARED = ("onnx", "tensorflow", "keras")


class Servable:
    """The signatures of an artifact and the engines that answer for it.

    `predict(images)`: uint8 [N, H, W, C] -> scores float32 [N, classes], from any thread;
    `explain(images)` -> (scores, heat maps), where the engine can.
    `engine` and `kernel` say who answers; `seconds` is how long it took to load.
    """

    def __init__(self, artifact: Artifact, engines: list[Engine], seconds: float):
        self.artifact = artifact
        self.signatures = signatures_of(artifact)
        self.engine = engines[0].name
        self.kernel = engines[0].kernel
        self.seconds = seconds
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        for engine in engines:
            self._idle.put(engine)

    def predict(self, images: np.ndarray) -> np.ndarray:
        with self._engine() as engine:
            return engine.predict(images)

    def explain(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._engine() as engine:
            if not hasattr(engine, "explain"):
                raise ServingError(
                    Code.UNIMPLEMENTED,
                    f"The {engine.name} engine cannot explain its answers; "
                    "serve the model with --engine tensorflow or keras",
                )
            try:
                return engine.explain(images)
            except EngineError as error:
                raise ServingError(Code.UNIMPLEMENTED, str(error)) from None

    @contextmanager
    def _engine(self) -> Iterator[Any]:
        engine = self._idle.get()
        try:
            yield engine
        finally:
            self._idle.put(engine)


def open_servable(path: Path, *, engine: str | None, workers: int, threads: int) -> Servable:
    """Load the version in a directory and prove it: every file by its hash, every engine by the
    golden answers.

    Raises `ArtifactError` for a version that is incomplete or changed, `EngineError` for one that
    no engine reads, `DisagreementError` for one that answers otherwise than when it was written.
    """
    start = time.monotonic()
    artifact = load(path)
    for name in artifact.manifest.files:
        artifact.file(name)  # sizes first: a half-copied version need not be hashed to be refused
    artifact.check()
    engines = _open_engines(artifact, engine, workers, threads)
    for each in {id(engine): engine for engine in engines}.values():
        _prove(each, artifact)
    return Servable(artifact, engines, time.monotonic() - start)


def _open_engines(artifact: Artifact, name: str | None, workers: int, threads: int) -> list[Engine]:
    name = name or next(iter(usable(artifact)), "auto")
    first = open_engine(artifact, name, threads=threads)
    if first.name in _SHARED:
        return [first] * workers
    others = [open_engine(artifact, first.name, threads=threads) for _ in range(workers - 1)]
    return [first, *others]


def _prove(engine: Engine, artifact: Artifact) -> None:
    """Hold an engine to the golden answers, by one picture and by the batch; it is warm then."""
    images, expected = artifact.goldens()
    for n in (1, len(images)):
        found = engine.predict(images[:n])
        difference = (
            np.abs(found - expected[:n]).max() if found.shape == expected[:n].shape else np.inf
        )
        if not difference <= FLOAT_TOLERANCE:
            raise DisagreementError(
                f"{artifact.path}: the {engine.name} engine differs from the golden scores by "
                f"{difference:.2g}, expected at most {FLOAT_TOLERANCE:.0e}; export it again"
            )
