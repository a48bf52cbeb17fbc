"""Export with proof: write a form, load it in its own runtime, hold it to Keras, then keep it.

    artifact, rows = export(artifact, ["saved_model", "onnx", "litert"])
    artifact, rows = export(artifact, ["int8"], images=pictures)
    rows = verify(artifact)

A form that disagrees never enters the artifact. One file per form.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from striate.artifact import Artifact, Source, add_form, opened
from striate.data import load as load_data
from striate.data.files import pictures_under
from striate.data.splits import evenly
from striate.errors import (
    ArtifactError,
    DataError,
    EngineError,
    StriateError,
    UsageError,
    check_known,
    first_line,
)
from striate.export.undecided import decided
from striate.export.verify import Agreement, check_form, probe_images, reference_scores
from striate.lazy import Verb
from striate.libraries import need
from striate.preprocess import Spec, pixels
from striate.runtime import ENGINES

sys.modules[__name__].__class__ = Verb  # striate.export(...) is striate.export.export(...)


class Form(NamedTuple):
    """What writes a form, the engines that read it, each a file of its own, and what both need."""

    writer: str
    engines: tuple[str, ...]
    libraries: tuple[str, ...]


FORMS = {
    "saved_model": Form("striate.export.saved_model", ("tensorflow",), ("tensorflow",)),
    "onnx": Form(
        "striate.export.onnx", ("onnx",), ("tensorflow", "tf2onnx", "onnx", "onnxruntime")
    ),
    "litert": Form("striate.export.litert", ("litert",), ("tensorflow", "ai_edge_litert")),
}
# Forms that only some nets have, written when they are asked for.
SPECIAL_FORMS = {
    "packed": Form(
        "striate.export.packed", ("packed", "runner"), ("tensorflow", "onnx", "onnxruntime")
    ),
    "int8": Form(
        "striate.export.int8",
        ("litert-int8", "onnx-int8"),
        ("tensorflow", "tf2onnx", "onnx", "onnxruntime", "ai_edge_litert"),
    ),
    "float16": Form(
        "striate.export.float16", ("litert-float16",), ("tensorflow", "ai_edge_litert")
    ),
}
ALL_FORMS = {**FORMS, **SPECIAL_FORMS}

FEWEST_PICTURES = 8  # that int8 can be calibrated and compared on


def export(
    artifact: Source,
    to: Iterable[str] = tuple(FORMS),
    *,
    images: np.ndarray | None = None,
    accept_loss: bool = False,
) -> tuple[Artifact, list[Agreement]]:
    """Write exported forms into an artifact, each only after it gave Keras' answers.

    artifact: itself, or its path; to: forms out of `ALL_FORMS`, or one; images: uint8 [N, H, W, C]
    to compare on besides the goldens (default: pictures made from the goldens, and noise). `int8`
    needs them: every second one shows it which numbers occur, and it is compared on the others.
    accept_loss: keep `int8` and `float16` also where they name another first class on more than 1 %
    of the pictures.

    Returns the artifact with its new forms, and one `Agreement` a form, or one for each engine that
    reads it. Raises `UsageError` for an unknown form and for `int8` without images,
    `DisagreementError` when a form answers differently, `EngineError` when its runtime is missing
    or refuses it; the forms before that one are kept.
    """
    artifact = opened(artifact)
    forms = check_names(to)
    check_possible(artifact, forms, images)
    if images is not None:
        artifact.preprocess.check(images)
    shown = None
    if "int8" in forms and images is not None:
        shown, images = images[::2], images[1::2]
    _need_tensorflow_backend()
    probes = probe_images(artifact, images)
    probes, expected = decided(artifact, probes, reference_scores(artifact, probes))
    rows = []
    for form in forms:
        artifact, agreements = _export_form(
            artifact, form, probes, expected, shown=shown, accept_loss=accept_loss
        )
        rows += agreements
    return artifact, rows


def some_pictures(artifact: Artifact, data: str | os.PathLike, most: int) -> np.ndarray:
    """At most so many pictures, spread evenly over a data set, as uint8 [N, H, W, C].

    data: as for `striate.data.load`, or any folder of pictures, as nobody asks for their classes.
        Those that cannot be read are passed over.

    Raises `DataError` where there are none, or none of what the net takes.
    """
    spec = artifact.preprocess
    if spec.kind == "picture" and (paths := pictures_under(Path(data))[0]):
        found = list(_decoded([paths[i] for i in evenly(len(paths), most)], spec))
        if not found:
            raise DataError(f"{data}: none of its {len(paths)} pictures can be read")
        return np.stack(found)
    dataset = load_data(data, kind=spec.kind, split=0)
    examples = dataset.examples(spec, evenly(len(dataset), most))
    return examples.pixels(np.arange(len(examples)))


def _decoded(paths: Iterable[Path], spec: Spec) -> Iterator[np.ndarray]:
    for path in paths:
        with contextlib.suppress(DataError):
            yield pixels(path, spec)


def check_possible(artifact: Artifact, forms: list[str], images: np.ndarray | None = None) -> None:
    """Raise `UsageError` for a form that cannot be had of this net, or not with so few images, and
    where the version takes no files, before time is spent on any. It loads no Keras."""
    for folder in (artifact.path, artifact.path.parent):  # a form is staged beside the version
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{folder}: expected a folder that takes files; export a copy of it")
    n = 0 if images is None else len(images)
    if "int8" in forms and n < FEWEST_PICTURES:
        raise UsageError(
            f"int8 needs at least {FEWEST_PICTURES} pictures of the kind that it will see, got "
            f"{n}: give --data (images=)"
        )
    if "packed" in forms:
        from striate.export.packed import check_packable

        check_packable(artifact)
    libraries = [name for form in forms for name in ALL_FORMS[form].libraries]
    need(f"export to {', '.join(forms)}", *dict.fromkeys(libraries))


def _export_form(
    artifact: Artifact,
    form: str,
    probes: np.ndarray,
    expected: np.ndarray,
    *,
    shown: np.ndarray | None,
    accept_loss: bool,
) -> tuple[Artifact, list[Agreement]]:
    writer, engines, _ = ALL_FORMS[form]
    more = {"images": shown} if form == "int8" else {}
    found = []

    def write(staged: Path) -> None:
        try:
            import_module(writer).write(artifact, staged, **more)
        except StriateError:
            raise
        except Exception as error:  # a full disk, or what a converter raises for a net of its own
            raise EngineError(
                f"{artifact.path}: {form} cannot be written ({first_line(error)}); it was not kept"
            ) from error

    def check(staged: Path) -> dict[str, Any]:
        for engine in engines:
            found.append(
                check_form(
                    artifact,
                    form,
                    engine,
                    probes,
                    expected,
                    root=staged,
                    accept_loss=accept_loss,
                )
            )
        others = {row.engine: row.record() for row in found[1:]}
        return {**found[0].record(), **others}

    return add_form(artifact, form, write, check), found


def verify(
    artifact: Source, forms: Iterable[str] | None = None, *, images: np.ndarray | None = None
) -> list[Agreement]:
    """Hold every form that the artifact has to Keras' answers again, and every file to its hash.

    forms: only these. Raises `ArtifactError` for a changed file and for a form that is asked for
    and is not there, `DisagreementError` for a form that disagrees.
    """
    artifact = opened(artifact)
    if images is not None:
        artifact.preprocess.check(images)
    there = [form for form in artifact.manifest.forms if form in ALL_FORMS]
    asked = there if forms is None else check_names(forms)
    if missing := [form for form in asked if form not in there]:
        raise ArtifactError(
            f"{artifact.path}: has no {missing[0]} to verify; it holds {', '.join(there) or 'none'}"
        )
    artifact.check()
    probes = probe_images(artifact, images)
    probes, expected = decided(artifact, probes, reference_scores(artifact, probes))
    return [
        check_form(artifact, form, engine, probes, expected, accept_loss=True)
        for form in asked
        for engine in ALL_FORMS[form].engines
        if ENGINES[engine].file in artifact.manifest.files
    ]


def check_names(forms: Iterable[str]) -> list[str]:
    """The forms asked for, once each, in order; `UsageError` names one that does not exist."""
    if not isinstance(forms, Iterable):
        raise UsageError(f"expected a list of forms ({', '.join(ALL_FORMS)}), got {forms!r}")
    names = list(dict.fromkeys([forms] if isinstance(forms, str) else forms))
    check_known("forms", names, ALL_FORMS)
    return names


def _need_tensorflow_backend() -> None:
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise EngineError(
            f"export goes through TensorFlow, and Keras runs on {backend!r} here: "
            "run it with KERAS_BACKEND=tensorflow (the artifact is the same)"
        )
