"""The artifact: one directory that holds a classifier and the proof of what it answers.

    saved_models/<name>/<version>/
      striate.json                  what it is, what every file must hash to, what it scored
      model.keras                   the Keras net: normalised floats -> logits
      saved_model.pb variables/ model.onnx model.tflite      the exported forms
      assets/labels.txt             one class a line, in the order of the scores
      assets.extra/goldens.npz      a few real inputs and the scores that every form must give
      assets.extra/whitening.npz    arrays of the preprocessing, where it has any

It is also a TensorFlow Serving version directory. A version is written beside its final place and
renamed into it, so a half-written one is never visible; `striate.json` is always replaced last.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np

from striate.errors import ArtifactError, UsageError, check_whole, first_line
from striate.preprocess import Spec, from_dict, pixels
from striate.registry import ModelSpec, Places, check_layout, deep_graphs, list_models

SCHEMA = 1
MANIFEST = "striate.json"
LABELS = "assets/labels.txt"
GOLDENS = "assets.extra/goldens.npz"
STAGED = ".tmp-"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `striate.json` says.

    model: name in the registry, builder options, num_classes and input_shape; of a net of another
    make, its places.
    files: path -> {"sha256", "bytes"} of every file of the version, this one excepted.
    forms: form (`keras`, `saved_model`, `onnx`, `litert`) -> what its verification measured.
    metrics: what evaluation found, with confidence intervals; temperature: what logits are divided
    by before the softmax; drift_baseline: what ordinary inputs and answers look like.
    """

    name: str
    model: dict[str, Any]
    labels: list[str]
    preprocess: dict[str, Any]
    schema: int = SCHEMA
    created: str = ""
    temperature: float = 1.0
    recipe: dict[str, Any] | None = None
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    drift_baseline: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    licence: str = ""
    forms: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> "Manifest":
        """The inverse of `to_json`; `ArtifactError` where the text is no manifest of ours."""
        try:
            values = json.loads(text)
            schema = values["schema"]
        except (ValueError, TypeError, KeyError):
            raise ArtifactError(
                f"{where}: expected a striate manifest, got something else"
            ) from None
        if schema != SCHEMA:
            raise ArtifactError(
                f"{where}: expected schema {SCHEMA}, got {schema!r}; "
                "use the striate release that wrote it, or export it again"
            )
        try:
            manifest = cls(**values)
        except TypeError as error:
            raise ArtifactError(f"{where}: expected a complete manifest, but {error}") from None
        manifest._check(where)
        return manifest

    def _check(self, where: Path) -> None:
        """`ArtifactError` for a field that is of another kind than it should be."""
        for field in dataclasses.fields(self):
            kinds = _kinds_of(field.type)
            if not isinstance(getattr(self, field.name), kinds):
                expected = " or ".join(kind.__name__ for kind in kinds)
                raise ArtifactError(
                    f"{where}: expected {field.name} as {expected}, got something else; "
                    "copy or export the version again"
                )
        for fact in ("name", "options", "num_classes", "input_shape"):
            if fact not in self.model:
                raise ArtifactError(
                    f"{where}: expected a complete manifest, but its model has no {fact}"
                )
        if len(self.labels) != self.model["num_classes"]:
            raise ArtifactError(
                f"{where}: expected {self.model['num_classes']} labels, got {len(self.labels)}"
            )


def _kinds_of(annotation: Any) -> tuple[type, ...]:
    """What a value of an annotation is an instance of: `dict[str, Any] | None` a dict or None."""
    either = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    kinds = tuple(get_origin(kind) or kind for kind in either)
    return (*kinds, int) if float in kinds else kinds  # JSON may have 1 for 1.0


@dataclasses.dataclass(frozen=True, repr=False)
class Artifact:
    """A classifier on disk: `load(path)` makes one, `write_version` a new one.

    >>> artifact = striate.load("saved_models/squeezenet1_1/1")
    >>> artifact.labels[artifact.predict(["examples/photos/cat.jpg"]).argmax()]
    'Egyptian cat'
    """

    path: Path
    manifest: Manifest

    def __repr__(self) -> str:
        """In a line: a manifest has pages."""
        net, count = self.manifest.model["name"], len(self.labels)
        return f"<Artifact {self.path}: {net}, {count:,} classes>"

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int | None:
        """The number of the version; None for one that was copied to a directory without one."""
        return int(self.path.name) if self.path.name.isdecimal() else None

    @property
    def labels(self) -> list[str]:
        """The class names, in the order of the scores."""
        return self.manifest.labels

    @cached_property
    def preprocess(self) -> Spec:
        try:
            return from_dict(self.manifest.preprocess, self.path)
        except UsageError as error:
            raise ArtifactError(f"{self.path / MANIFEST}: {error}") from None

    @property
    def spec(self) -> ModelSpec | None:
        """The registry's entry for this net; None when it is not one of the registry's."""
        spec = next(iter(list_models(self.manifest.model["name"])), None)
        until = self.manifest.model["options"].get("until")
        return spec.until(until) if spec and until else spec

    @property
    def places(self) -> ModelSpec | Places | None:
        """Where to look in the net: the registry's entry, or what `adopt` found in a net of another
        make; None of an ensemble."""
        found = self.manifest.model.get("places")
        return self.spec or (Places(**found) if found else None)

    @cached_property
    def model(self):
        """The Keras net: float32 [N, H, W, C], normalised -> float32 logits [N, classes]."""
        import keras

        from striate import layers

        check_layout()
        for name in layers.__all__:  # Keras must know every layer that a saved net may have
            getattr(layers, name)
        with self._reading("model.keras") as path, deep_graphs():
            return keras.saving.load_model(path, compile=False)

    def layer_kinds(self) -> list[str]:
        """The classes of the net's layers, by name, read without loading it."""
        with self._reading("model.keras") as path, zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        return [layer["class_name"] for layer in config["config"]["layers"]]

    @cached_property
    def classifier(self):
        """The tensor contract in Keras: uint8 `image` [N, H, W, C] -> `scores` [N, classes]."""
        return classifier(self.model, self.preprocess, self.manifest.temperature)

    def file(self, name: str) -> Path:
        """The path of one file of the version; `ArtifactError` when it is missing or cut off."""
        expected = self.manifest.files.get(name)
        if expected is None:
            raise ArtifactError(
                f"{self.path}: has no {name}; it holds the forms {', '.join(self.manifest.forms)}"
            )
        path = self.path / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected["bytes"]:
            got = "no file" if size is None else f"{size:,} bytes"
            raise ArtifactError(
                f"{path}: expected {expected['bytes']:,} bytes, got {got}; "
                "the version is incomplete, copy or export it again"
            )
        return path

    def check(self) -> None:
        """Compare every file with its recorded SHA-256; `ArtifactError` at the first difference."""
        for name in self.manifest.files:
            self._check_contents(name)

    def _check_contents(self, name: str) -> None:
        if sha256(self.file(name)) != self.manifest.files[name]["sha256"]:
            raise ArtifactError(
                f"{self.path / name}: its contents changed since it was written "
                "(SHA-256 differs); copy or export it again"
            )

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """The path of a file, for a library to read: what it raises becomes `ArtifactError`."""
        path = self.file(name)
        try:
            yield path
        except Exception as error:  # each library has its own for a file that it cannot read
            self._check_contents(name)
            raise ArtifactError(f"{path}: cannot be read ({first_line(error)})") from error

    def goldens(self) -> tuple[np.ndarray, np.ndarray]:
        """(images uint8 [k, H, W, C], scores float32 [k, classes]) that every form must give."""
        with self._reading(GOLDENS) as path, np.load(path) as stored:
            return stored["images"], stored["scores"]

    def predict(self, images: Sequence[Any] | np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Scores of paths, encoded bytes, uint8 arrays or Pillow images, by the Keras model.

        Returns float32 [N, classes], each row adding up to 1. `striate.runtime` answers the same
        through the exported forms, faster. Raises `UsageError` for no images or one that is not in
        a list, `DataError` for one that cannot be read.
        """
        check_several(images, self.preprocess.shape)
        check_whole("batch_size", batch_size, 1)
        parts, left = [], iter(images)
        while batch := list(islice(left, batch_size)):  # thousands at once would fill the memory
            tensors = np.stack([pixels(image, self.preprocess) for image in batch])
            parts.append(scores_of(self.classifier, tensors, batch_size=batch_size))
        return np.concatenate(parts)


Source = Artifact | str | os.PathLike  # what the verbs take for an artifact


def opened(source: Source) -> Artifact:
    """The artifact itself, or the one at a path; `UsageError` for what is neither."""
    return source if isinstance(source, Artifact) else load(source)


def check_several(images: Any, shape: tuple[int, ...]) -> None:
    """Raise `UsageError` for one picture where several are expected, and for none.

    shape: of one example as the net takes it.
    """
    array = isinstance(images, np.ndarray)
    one = _is_one(images, shape) if array else isinstance(images, str | bytes)
    if isinstance(images, Iterator):
        raise UsageError(f"expected a list of pictures, got {images!r:.60}: make a list() of it")
    if one or not hasattr(images, "__len__"):
        got = f"one as {images.dtype} {list(images.shape)}" if array else f"{images!r:.60}"
        raise UsageError(f"expected a list of pictures, got {got}: put it in brackets")
    if len(images) == 0:
        raise UsageError("expected at least one picture, got none")


def _is_one(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether an array is one example, of any size: each of its rows would pass for a picture.

    Without an axis for colours, as several grey pictures may be, its last axis is no few channels.
    """
    if array.dtype.kind not in "biuf":  # paths, or pictures of several sizes
        return array.ndim == 0
    if array.ndim == len(shape):
        return array.shape[-1] in (1, 3, 4, shape[-1])
    return array.ndim < len(shape)


def classifier(model, preprocess: Spec, temperature: float = 1.0):
    """The Keras model of the tensor contract around a net of logits.

    model: float32 [N, H, W, C] -> logits [N, classes]. Returns uint8 `image` -> float32 `scores`,
    softmax(logits / temperature); it shares the net's weights.
    """
    import keras

    image = keras.Input(preprocess.shape, dtype=preprocess.dtype, name="image")
    logits = model(preprocess.layer()(image), training=False)
    if temperature != 1.0:
        logits = keras.layers.Rescaling(1 / temperature, dtype="float32", name="calibrate")(logits)
    scores = keras.layers.Softmax(dtype="float32", name="scores")(logits)
    return keras.Model(image, scores, name="classifier")


def scores_of(contract, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Run a Keras model of the tensor contract over uint8 images, in inference mode, by batches.

    Compiled: operation by operation, a picture by itself would take several times as long.
    """
    parts = [
        answer_of(contract, images[i : i + batch_size]) for i in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)


def answer_of(model, batch: np.ndarray):
    """model.predict_on_batch(batch), without a warning that would be wrong.

    Keras makes a function anew for every net, and TensorFlow takes those of five nets for one that
    is traced again and again.
    """
    log = logging.getLogger("tensorflow")
    log.addFilter(_is_no_retracing)
    try:
        return model.predict_on_batch(batch)
    finally:
        log.removeFilter(_is_no_retracing)


def _is_no_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


def load(path: str | os.PathLike) -> Artifact:
    """The artifact in a version directory, or the newest version of a model directory.

    Raises `ArtifactError` when there is none. Files are checked when they are used
    (`Artifact.file`), all of them by `Artifact.check`.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"expected an artifact or its path, got {type(path).__name__}")
    directory = Path(path)
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: expected an artifact directory, got nothing there")
    if not (directory / MANIFEST).is_file():
        found = version_directories(directory)
        if not found:
            raise ArtifactError(
                f"{directory}: expected {MANIFEST} or version directories (1, 2, ...) in it; "
                "is it an artifact that striate wrote?"
            )
        directory = found[-1]
    directory = directory.resolve()
    manifest_path = directory / MANIFEST
    if not manifest_path.is_file():
        raise ArtifactError(f"{directory}: expected {MANIFEST} in it; the version is incomplete")
    try:
        text = manifest_path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{manifest_path}: cannot be read ({why})") from None
    return Artifact(directory, Manifest.from_json(text, manifest_path))


def versions(base: str | os.PathLike) -> list[int]:
    """The version numbers under a model directory, ascending."""
    return [int(path.name) for path in version_directories(base)]


def version_directories(base: str | os.PathLike) -> list[Path]:
    """The versions under a model directory, the newest last, by TensorFlow Serving's rule: each is
    named by its number, which may have zeros before it."""
    base = Path(base)
    if not base.is_dir():
        return []
    found = (path for path in base.iterdir() if path.name.isdecimal() and path.is_dir())
    return sorted(found, key=lambda path: int(path.name))


def write_version(
    base: str | os.PathLike,
    *,
    model,
    labels: Sequence[str],
    preprocess: Spec,
    model_name: str,
    options: dict[str, Any] | None = None,
    places: Places | None = None,
    goldens: np.ndarray,
    **fields: Any,
) -> Artifact:
    """Write the Keras form of a classifier as the next free version under `base`.

    model: the Keras net of logits; places: where to look in one that is not the registry's;
    goldens: a few real inputs, uint8 [k, H, W, C]; fields: more of `Manifest` (recipe, metrics,
    data, drift_baseline, temperature, licence).
    The version appears at once and whole, or not at all.
    """
    base = Path(base)
    check_net(model, labels, preprocess)
    scores = scores_of(classifier(model, preprocess, fields.get("temperature", 1.0)), goldens)
    manifest = Manifest(
        name=Path(os.path.abspath(base)).name,  # also of "."
        model={
            "name": model_name,
            "options": options or {},
            "num_classes": len(labels),
            "input_shape": list(preprocess.shape),
            **({"places": dataclasses.asdict(places)} if places else {}),
        },
        labels=list(labels),
        preprocess=preprocess.to_dict(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment(),
        forms={"keras": {}},
        **fields,
    )
    with staging(base) as staged:
        (staged / "assets").mkdir()
        (staged / "assets.extra").mkdir()
        (staged / LABELS).write_text("".join(f"{label}\n" for label in labels), "utf-8")
        np.savez_compressed(staged / GOLDENS, images=goldens, scores=scores)
        preprocess.write(staged)
        model.save(staged / "model.keras")
        _write_manifest(staged, dataclasses.replace(manifest, files=inventory(staged)))
        return load(_publish(staged, base))


def is_label(text: str) -> bool:
    """Whether a class can be called so: one line of `assets/labels.txt`, where a line more would
    give the classes behind it other names on a phone."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a folder that is named in another coding
        return False
    return "\0" not in text and text.splitlines() in ([], [text])


def check_net(model: Any, labels: Sequence[str], preprocess: Spec) -> None:
    """`UsageError` for a net that does not fit the rest of its version, or every form."""
    if model.output_shape[-1] != len(labels):
        raise UsageError(f"expected {model.output_shape[-1]} labels, got {len(labels)}")
    for label in labels:
        if not is_label(label):
            raise UsageError(f"expected labels of one line in UTF-8, got {label!r}")
    if model.input_shape[1:] != preprocess.shape:
        raise UsageError(
            f"expected a preprocess of shape {model.input_shape[1:]}, got {preprocess.shape}"
        )
    for layer in model._flatten_layers(include_self=False):
        if layer.compute_dtype in ("float16", "bfloat16"):
            raise UsageError(
                f"expected a net that computes in float32, got layer {layer.name!r} in "
                f"{layer.compute_dtype}: build it again without that policy, and set its weights"
            )


def add_form(
    artifact: Artifact,
    form: str,
    write: Callable[[Path], None],
    check: Callable[[Path], dict[str, Any]],
) -> Artifact:
    """Add an exported form to a version, but only when its check passes.

    write(directory) writes the form's files; check(directory) loads them there, raises when they
    do not agree, and returns what it measured, which `striate.json` keeps. Several processes may
    each add a form to one version.
    """
    with staging(artifact.path.parent) as staged:
        write(staged)
        record = check(staged)
        files = inventory(staged)
        with _alone(artifact.path):
            without = _without_form(load(artifact.path), form)
            _move_into(staged, artifact.path)
            manifest = dataclasses.replace(
                without,
                forms={**without.forms, form: {**record, "files": sorted(files)}},
                files={**without.files, **files},
            )
            _write_manifest(artifact.path, manifest)
    return load(artifact.path)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Inside, no other process that asks for the same changes the version."""
    with contextlib.ExitStack() as held:
        # Windows, and some network file systems, lock no directories: there it is the user's care.
        with contextlib.suppress(ModuleNotFoundError, OSError):
            import fcntl

            handle = os.open(directory, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(base: Path) -> Iterator[Path]:
    """A hidden directory beside the versions, on their file system; gone when the block ends."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        _sweep(base)
        staged = Path(tempfile.mkdtemp(prefix=staged_name(), dir=base))
    except OSError as error:
        raise ArtifactError(f"{base}: cannot be written to ({error.strerror})") from None
    with contextlib.suppress(OSError):  # of file systems that have no modes
        staged.chmod(0o755)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def staged_name() -> str:
    """What the name of a directory begins with that is not whole yet, or not any more; the next
    writer removes it where this process is killed."""
    return f"{STAGED}{platform.node()}-{os.getpid()}-"


def _sweep(base: Path) -> None:
    """Remove what processes of this machine that were killed left staged."""
    for left in base.glob(f"{STAGED}*-*-*"):
        machine, pid, _ = left.name.removeprefix(STAGED).rsplit("-", 2)
        ours = machine == platform.node() and pid.isdecimal()
        if ours and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def inventory(directory: Path) -> dict[str, dict[str, Any]]:
    """Path -> {"sha256", "bytes"} of every file under a directory, `striate.json` excepted."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {
        p.relative_to(directory).as_posix(): {"sha256": sha256(p), "bytes": p.stat().st_size}
        for p in files
    }


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment() -> dict[str, str]:
    """The versions that made an artifact: Python, the platform, and the libraries that matter."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    libraries = ("striate", "keras", "tensorflow", "jax", "onnx", "onnxruntime", "ai-edge-litert")
    for library in libraries:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def drift_baseline(images: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """What ordinary inputs and answers look like, to compare live traffic with.

    images: uint8 [N, H, W, C]; scores: float32 [N, classes]. Brightness and contrast are the mean
    and standard deviation of a picture's levels (0 to 255), or of a row's numbers; confidence is
    the largest score.
    """
    levels = (image.ravel().astype(np.float32) for image in images)  # all at once need gigabytes
    spread = np.array([(x.mean(), x.std()) for x in levels])
    measured = {
        "brightness": spread[:, 0],
        "contrast": spread[:, 1],
        "confidence": scores.max(axis=1),
    }
    baseline: dict[str, Any] = {"n": len(images)}
    for name, values in measured.items():
        quantiles = np.quantile(values, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
        baseline[name] = {
            "mean": round(float(values.mean()), 6),
            "std": round(float(values.std()), 6),
            "quantiles": [round(float(q), 6) for q in quantiles],
        }
    predicted = np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
    baseline["class_prior"] = [round(float(p), 6) for p in predicted / len(scores)]
    return baseline


def add_drift_baseline(artifact: Artifact, images: np.ndarray, scores: np.ndarray) -> Artifact:
    """Keep in a version what inputs and answers look like; arguments as of `drift_baseline`."""
    baseline = drift_baseline(images, scores)
    with _alone(artifact.path):
        manifest = load(artifact.path).manifest
        _write_manifest(artifact.path, dataclasses.replace(manifest, drift_baseline=baseline))
    return load(artifact.path)


def _without_form(artifact: Artifact, form: str) -> Manifest:
    """Take a form out of the version, so that a kill while it is replaced leaves none of it."""
    manifest = artifact.manifest
    if form not in manifest.forms:
        return manifest
    stale = set(manifest.forms[form].get("files", ()))
    manifest = dataclasses.replace(
        manifest,
        forms={name: record for name, record in manifest.forms.items() if name != form},
        files={name: entry for name, entry in manifest.files.items() if name not in stale},
    )
    _write_manifest(artifact.path, manifest)
    for name in stale:
        (artifact.path / name).unlink(missing_ok=True)
    return manifest


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    fresh = directory / f"{MANIFEST}.new"
    with fresh.open("w", encoding="utf-8") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / MANIFEST)


def _publish(staged: Path, base: Path) -> Path:
    """Rename a staged version to the next free number; another writer may take one meanwhile."""
    while True:
        taken = [int(path.name) for path in base.iterdir() if path.name.isdecimal()]  # files too
        final = base / str(max(taken, default=0) + 1)
        try:
            staged.rename(final)
            return final
        except OSError:
            if not final.exists():
                raise


def _move_into(staged: Path, directory: Path) -> None:
    """Move files into a version, each by one rename; `saved_model.pb` last, since a server that
    polls takes its presence for a whole SavedModel."""
    names = sorted(
        (p.relative_to(staged) for p in staged.rglob("*") if p.is_file()),
        key=lambda name: (name.name == "saved_model.pb", name.as_posix()),
    )
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(directory / name)
