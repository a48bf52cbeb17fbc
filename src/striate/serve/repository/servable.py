"""A version that is loaded, proven, and ready to be asked."""

import io
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from striate.artifact import Artifact, load
from striate.errors import DisagreementError, EngineError
from striate.preprocess import Preprocess, pixels
from striate.runtime import Engine, needs_tensorflow, open_engine, tolerance, usable
from striate.serve.signatures import Signature, Tensors, signatures_of
from striate.serve.status import Code, ServingError

log = logging.getLogger("striate.serve")

# Engines whose one instance answers several threads at a time. Of the others, each worker gets one.
_SHARED = ("onnx", "tensorflow", "keras", "packed")


class Servable(Protocol):
    """What the server asks of a loaded version, from any thread.

    run(ask, feeds): a question of one of its signatures, answered. labels: the class names, empty
    where it has none. engine, kernel: who answers; seconds: how long it took to load. item_bytes:
    what one picture weighs as the engine takes it, 0 where requests carry their tensors as they
    are. artifact: None for a model that striate did not write. difference: the largest of a score
    from a golden one, None where there are no goldens.
    """

    labels: list[str]
    engine: str
    kernel: str
    seconds: float
    item_bytes: int
    difference: float | None

    @property
    def signatures(self) -> Mapping[str, Signature]: ...

    @property
    def artifact(self) -> Artifact | None: ...

    def run(self, ask: str, feeds: Tensors) -> Tensors: ...

    def close(self) -> None:
        """Let go of everything; called once, when the last request has ended."""
        ...


class ArtifactServable:
    """The signatures of an artifact and the engines that answer for it.

    examples: its golden pictures, none where it is about something else: the page shows them, which
    no disk has to be asked for.

    `predict`: image -> scores; `explain`: image -> scores, heat_map, where the engine can.
    """

    def __init__(
        self,
        artifact: Artifact,
        engines: list[Engine],
        seconds: float,
        difference: float,
        examples: np.ndarray,
    ):
        self.artifact = artifact
        self.examples = examples
        self.difference: float | None = difference
        self.signatures = signatures_of(artifact)
        self.labels = artifact.labels
        self.engine = engines[0].name
        self.kernel = engines[0].kernel
        self.seconds = seconds
        self.item_bytes = math.prod(artifact.preprocess.shape)
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        for engine in engines:
            self._idle.put(engine)

    def run(self, ask: str, feeds: Tensors) -> Tensors:
        with self._engine() as engine:
            if ask == "explain":
                return self._explain(engine, feeds["image"])
            return {"scores": engine.predict(feeds["image"])}

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get()

    def _explain(self, engine: Any, images: np.ndarray) -> Tensors:
        if not hasattr(engine, "explain"):
            raise ServingError(
                Code.UNIMPLEMENTED,
                f"The {engine.name} engine cannot explain its answers; "
                "serve the model with --engine tensorflow or keras",
            )
        try:
            scores, heat = engine.explain(images)
        except EngineError as error:
            raise ServingError(Code.UNIMPLEMENTED, str(error)) from None
        return {"scores": scores, "heat_map": heat}

    @contextmanager
    def _engine(self) -> Iterator[Any]:
        engine = self._idle.get()
        try:
            yield engine
        finally:
            self._idle.put(engine)


def open_artifact(
    path: Path, *, engine: str | None, workers: int, threads: int
) -> ArtifactServable:
    """Load the artifact in a directory and prove it: every file by its hash, every engine by the
    golden answers.

    Raises `ArtifactError` for a version that is incomplete or changed, `EngineError` for one that
    no engine reads, `DisagreementError` for one that answers otherwise than when it was written.
    """
    start = time.monotonic()
    artifact = load(path)
    for name in artifact.manifest.files:
        artifact.file(name)  # sizes first: a half-copied version need not be hashed to be refused
    artifact.check()
    name = engine or preferred(usable(artifact))
    if needs_tensorflow(artifact, name):
        _say_slow(artifact, engine)
    engines = _open_engines(artifact, name, workers, threads)
    different = {id(engine): engine for engine in engines}.values()
    goldens = artifact.goldens()
    difference = max(_prove(engine, artifact, *goldens) for engine in different)
    examples = np.empty((0, *artifact.preprocess.shape), np.uint8)
    if isinstance(artifact.preprocess, Preprocess):
        _warm_decoder(artifact.preprocess)
        examples = goldens[0]
    return ArtifactServable(artifact, engines, time.monotonic() - start, difference, examples)


def preferred(names: list[str]) -> str:
    """The engine for a version when none was asked for: the packed one where a net has that form,
    since it was made for speed; else the first."""
    return "packed" if "packed" in names else next(iter(names), "auto")


def _say_slow(artifact: Artifact, engine: str | None) -> None:
    """Say what is waited for, while an engine is loaded that takes its time."""
    if engine in (None, "auto"):
        log.warning(
            "%s holds no form that a quick engine reads, so TensorFlow or Keras is loaded, which "
            "takes some seconds; after `striate export %s --to onnx` it need not be",
            *(artifact.path, artifact.path),
        )
    else:
        log.warning("%s: the %s engine takes some seconds to load", artifact.path, engine)


def _open_engines(artifact: Artifact, name: str, workers: int, threads: int) -> list[Engine]:
    first = open_engine(artifact, name, threads=threads)
    if first.name in _SHARED:
        return [first] * workers
    others = [open_engine(artifact, first.name, threads=threads) for _ in range(workers - 1)]
    return [first, *others]


def _warm_decoder(spec: Preprocess) -> None:
    """Load what decodes pictures now; else the first request waits for it."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.new("RGB", (1, 1)).save(encoded, "PNG")
    pixels(encoded.getvalue(), spec)


def _prove(engine: Engine, artifact: Artifact, images: np.ndarray, expected: np.ndarray) -> float:
    """Hold an engine to the golden answers, by one picture and by the batch; it is warm then.

    Returns the largest difference of a score.
    """
    most = tolerance(artifact, engine.name)
    largest = 0.0
    for n in (1, len(images)):
        found = engine.predict(images[:n])
        difference = (
            np.abs(found - expected[:n]).max() if found.shape == expected[:n].shape else np.inf
        )
        if not difference <= most:
            raise DisagreementError(
                f"{artifact.path}: the {engine.name} engine differs from the golden scores by "
                f"{difference:.2g}, expected at most {most:.0e}; export it again"
            )
        largest = max(largest, float(difference))
    return largest
