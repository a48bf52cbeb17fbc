"""Export with proof: write a form, load it in its own runtime, hold it to Keras, then keep it.

    artifact, rows = export(artifact, ["saved_model", "onnx", "litert"])
    rows = verify(artifact)

A form that disagrees never enters the artifact. One file per form.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from striate.artifact import Artifact, add_form
from striate.errors import EngineError, UsageError, did_you_mean
from striate.export.verify import Agreement, check_form, probe_images, reference_scores
from striate.lazy import Verb
from striate.runtime import ENGINES

sys.modules[__name__].__class__ = Verb  # striate.export(...) is striate.export.export(...)

# form -> (the module that writes it, the engines that read it, each a file of its own)
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "saved_model": ("striate.export.saved_model", ("tensorflow",)),
    "onnx": ("striate.export.onnx", ("onnx",)),
    "litert": ("striate.export.litert", ("litert",)),
}
# Forms that only some nets have, written when they are asked for.
SPECIAL_FORMS = {"packed": ("striate.export.packed", ("packed", "runner"))}
ALL_FORMS = {**FORMS, **SPECIAL_FORMS}


def export(
    artifact: Artifact,
    to: Iterable[str] = tuple(FORMS),
    *,
    images: np.ndarray | None = None,
) -> tuple[Artifact, list[Agreement]]:
    """Write exported forms into an artifact, each only after it gave Keras' answers.

    to: forms out of `ALL_FORMS`; images: uint8 [N, H, W, C] to compare on besides the goldens
    (default: pictures made from the goldens, and noise).

    Returns the artifact with its new forms, and one `Agreement` a form, or one for each engine that
    reads it. Raises `UsageError` for an
    unknown form, `DisagreementError` when a form answers differently, `EngineError` when its
    runtime is missing or refuses it; the forms before that one are kept.
    """
    forms = check_names(to)
    _need_tensorflow_backend()
    probes = probe_images(artifact, images)
    expected = reference_scores(artifact, probes)
    rows = []
    for form in forms:
        artifact, agreements = _export_form(artifact, form, probes, expected)
        rows += agreements
    return artifact, rows


def _export_form(
    artifact: Artifact, form: str, probes: np.ndarray, expected: np.ndarray
) -> tuple[Artifact, list[Agreement]]:
    writer, engines = ALL_FORMS[form]
    found = []

    def write(staged: Path) -> None:
        import_module(writer).write(artifact, staged)

    def check(staged: Path) -> dict[str, Any]:
        for engine in engines:
            found.append(check_form(artifact, form, engine, probes, expected, root=staged))
        others = {row.engine: row.record() for row in found[1:]}
        return {**found[0].record(), **others}

    return add_form(artifact, form, write, check), found


def verify(artifact: Artifact, *, images: np.ndarray | None = None) -> list[Agreement]:
    """Hold every form that the artifact has to Keras' answers again, and every file to its hash.

    Raises `ArtifactError` for a changed file, `DisagreementError` for a form that disagrees.
    """
    artifact.check()
    probes = probe_images(artifact, images)
    expected = reference_scores(artifact, probes)
    return [
        check_form(artifact, form, engine, probes, expected)
        for form in artifact.manifest.forms
        if form in ALL_FORMS
        for engine in ALL_FORMS[form][1]
        if ENGINES[engine].file in artifact.manifest.files
    ]


def check_names(forms: Iterable[str]) -> list[str]:
    """The forms asked for, once each, in order; `UsageError` names one that does not exist."""
    names = list(dict.fromkeys(forms))
    for name in names:
        if name not in ALL_FORMS:
            raise UsageError(
                f"expected forms out of {', '.join(ALL_FORMS)}, got {name!r}."
                f"{did_you_mean(name, ALL_FORMS)}"
            )
    return names


def _need_tensorflow_backend() -> None:
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise EngineError(
            f"export goes through TensorFlow, and Keras runs on {backend!r} here: "
            "run it with KERAS_BACKEND=tensorflow (the artifact is the same)"
        )
