"""Engines that answer: uint8 images in, scores out, whatever runtime does the arithmetic.

    engine = open_engine(artifact, "onnx", threads=1)
    scores = engine.predict(images)        # uint8 [N, H, W, C] -> float32 [N, classes]

One file per engine. `auto` takes the fastest of those installed that gives the golden answers.
"""

import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from striate.artifact import Artifact, Source, opened
from striate.errors import EngineError, UsageError, did_you_mean, first_line
from striate.libraries import is_installed
from striate.preprocess import Spec

FLOAT_TOLERANCE = 1e-4  # max |difference| of a score between float forms


class Engine(Protocol):
    """What every engine does. `name` is the engine's, `kernel` what does its arithmetic."""

    name: str
    kernel: str

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Scores, float32 [N, classes], of images, uint8 [N, H, W, C]."""
        ...


class Checked:
    """An engine that is only asked what it can answer; all else of it as it is.

    Left alone each takes something else that does not fit: floats from 0 to 1 are black pictures to
    Keras and OpenVINO, a colour picture is three grey ones to LiteRT, and a picture without its
    first axis may end TensorFlow's process.
    """

    def __init__(self, engine: Engine, spec: Spec):
        self._engine, self._spec = engine, spec
        self.name, self.kernel = engine.name, engine.kernel

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Scores, float32 [N, classes]; `UsageError` for images that do not fit."""
        self._spec.check(images)
        return self._engine.predict(images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class EngineKind(NamedTuple):
    """One way to answer: which form it reads, which module opens it, which package it needs."""

    form: str
    file: str
    module: str
    needs: str
    distribution: str
    light: bool  # starts in well under a second, so `auto` may try it
    exact: bool = True  # gives Keras' scores; of others nobody gets an answer unasked


ENGINES: dict[str, EngineKind] = {
    "onnx": EngineKind(
        "onnx", "model.onnx", "striate.runtime.onnx", "onnxruntime", "onnxruntime", True
    ),
    "litert": EngineKind(
        "litert", "model.tflite", "striate.runtime.litert", "ai_edge_litert", "ai-edge-litert", True
    ),
    "packed": EngineKind(
        "packed", "model.packed.onnx", "striate.runtime.packed", "onnxruntime", "onnxruntime", True
    ),
    "runner": EngineKind(
        "packed", "model.packed", "striate.runtime.runner", "numpy", "striate", True
    ),
    "openvino": EngineKind(
        "onnx", "model.onnx", "striate.runtime.openvino", "openvino", "openvino", True
    ),
    "tensorflow": EngineKind(
        "saved_model",
        "saved_model.pb",
        "striate.runtime.tensorflow",
        "tensorflow",
        "tensorflow",
        False,
    ),
    "keras": EngineKind("keras", "model.keras", "striate.runtime.keras", "keras", "keras", False),
    "onnx-int8": EngineKind(
        "int8",
        "model.int8.onnx",
        "striate.runtime.onnx",
        "onnxruntime",
        "onnxruntime",
        True,
        exact=False,
    ),
    "litert-int8": EngineKind(
        "int8",
        "model.int8.tflite",
        "striate.runtime.litert",
        "ai_edge_litert",
        "ai-edge-litert",
        True,
        exact=False,
    ),
    "litert-float16": EngineKind(
        "float16",
        "model.float16.tflite",
        "striate.runtime.litert",
        "ai_edge_litert",
        "ai-edge-litert",
        True,
        exact=False,
    ),
}


def installed() -> dict[str, str]:
    """Engine -> version of its package, for every engine that this environment can run."""
    return {
        name: _version(kind.distribution)
        for name, kind in ENGINES.items()
        if is_installed(kind.needs)
    }


def _version(distribution: str) -> str:
    """Of a package, or of another build of it that brings the same module, as onnxruntime-gpu."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        builds = metadata.packages_distributions().get(distribution.replace("-", "_"))
        return metadata.version(builds[0]) if builds else "?"


def open_engine(
    artifact: Source,
    name: str = "auto",
    *,
    threads: int | None = None,
    root: Path | None = None,
) -> Engine:
    """An engine that answers for an artifact.

    artifact: itself, or its path. name: `auto`, or one of `ENGINES`.
    threads: for one call; None leaves it to the engine. root: read the form's files there instead
    of in the artifact (verification).

    Raises `UsageError` for an unknown name or kernel, `EngineError` when the engine is not
    installed or refuses its file, `ArtifactError` when the artifact has no such form.
    """
    artifact = opened(artifact)
    if name == "auto":
        return fastest_engine(artifact, threads=threads)
    kind = ENGINES.get(name)
    if kind is None:
        raise UsageError(
            f"expected an engine (auto, {', '.join(ENGINES)}), got {name!r}."
            f"{did_you_mean(name, ENGINES)}"
        )
    if not is_installed(kind.needs):
        raise EngineError(
            f"the {name} engine needs what is not installed here: pip install {kind.distribution}"
        )
    path = artifact.file(kind.file) if root is None else root / kind.file
    opener: Callable[..., Engine] = import_module(kind.module).open_form
    try:
        return Checked(opener(artifact, path, threads), artifact.preprocess)
    except UsageError:  # of what was asked for, as by STRIATE_KERNEL; the file is no matter
        raise
    except Exception as error:  # whatever a runtime raises for a file that it cannot read
        raise EngineError(f"{path}: the {name} engine refuses it ({first_line(error)})") from error


def usable(artifact: Artifact) -> list[str]:
    """The engines that are installed here, whose form the artifact holds, and that give Keras'
    scores."""
    return [name for name in readable(artifact) if ENGINES[name].exact]


def readable(artifact: Artifact) -> list[str]:
    """The engines that are installed here and whose form the artifact holds, int8 and all."""
    return [name for name in installed() if ENGINES[name].file in artifact.manifest.files]


def tolerance(artifact: Artifact, name: str) -> float:
    """How far a score of an engine may be from the golden one.

    Of rounded numbers, twice as far as when the form was written: another processor may round
    otherwise.
    """
    kind = ENGINES[name]
    if kind.exact:
        return FLOAT_TOLERANCE
    record = artifact.manifest.forms[kind.form]
    return 2 * record.get(name, record)["max_abs_diff"] + FLOAT_TOLERANCE


def needs_tensorflow(artifact: Artifact, name: str = "auto") -> bool:
    """Whether answering by this engine imports TensorFlow, or Keras, which takes seconds."""
    if name == "auto":
        return not any(ENGINES[engine].light for engine in usable(artifact))
    return name in ENGINES and not ENGINES[name].light


def fastest_engine(artifact: Artifact, *, threads: int | None = None) -> Engine:
    """The fastest usable engine that agrees with the goldens, each timed on one golden image.

    Only engines that start quickly are tried (ONNX Runtime, LiteRT, OpenVINO, the packed ones);
    where the artifact has none of their forms, TensorFlow, then Keras, answers.
    """
    names = usable(artifact)
    images, scores = artifact.goldens()
    best: tuple[float, Engine] | None = None
    for name in (n for n in names if ENGINES[n].light):
        try:
            engine = open_engine(artifact, name, threads=threads)
        except EngineError:  # it refuses the file; the others may not
            continue
        agrees = np.abs(engine.predict(images) - scores).max() <= FLOAT_TOLERANCE  # not so of a NaN
        if not agrees:
            continue
        seconds = _seconds_of_one(engine, images[:1])
        if best is None or seconds < best[0]:
            best = (seconds, engine)
    if best is not None:
        return best[1]
    heavy = [name for name in names if not ENGINES[name].light]
    if not heavy:
        raise EngineError(
            f"{artifact.path}: holds the forms {', '.join(artifact.manifest.forms)}, and none of "
            f"the installed engines ({', '.join(installed()) or 'none'}) reads one of them"
        )
    return open_engine(artifact, heavy[0], threads=threads)


def _seconds_of_one(engine: Engine, image: np.ndarray) -> float:
    def once() -> float:
        start = time.perf_counter()
        engine.predict(image)
        return time.perf_counter() - start

    return min(once() for _ in range(3))
