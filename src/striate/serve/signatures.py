"""What a served classifier can be asked, whatever the protocol.

Every signature of an artifact is the same act seen through other tensors: inputs -> uint8 images ->
scores -> outputs. The first and the last step are here; the scores are the engine's. A model that
striate did not write has signatures of its own (`repository.foreign`), without such steps.

    serving_default   image uint8 [N, H, W, C]      -> scores float [N, K]
    bytes             image_bytes string [N]        -> scores, classes (the labels, in their order)
    classify          inputs: tf.Example string [N] -> classes, scores
    explain           image uint8 [N, H, W, C]      -> scores, heat_map float [N, H, W]

`bytes` and `classify` decode pictures; nets of voxels, clips and vectors have the first alone,
whose `image` has their own shape and dtype.

Tensors are numpy arrays, strings arrays of `bytes`. The SavedModel of an artifact has the same
signatures, so a plain TensorFlow Serving answers the same requests.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from striate.artifact import Artifact
from striate.errors import DataError
from striate.preprocess import Preprocess, Spec, pixels
from striate.serve.status import invalid

DEFAULT = "serving_default"
PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
EXAMPLE_FEATURE = "image/encoded"

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class TensorSpec:
    """dtype (object for strings) and shape (-1: any size; None: any rank) of one named tensor.

    tensor: what the graph of a SavedModel calls it; empty where there is none.
    """

    dtype: np.dtype
    shape: tuple[int, ...] | None
    tensor: str = ""


def unchanged(tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True)
class Signature:
    """One way to ask: named tensors in, named tensors out, and the two steps around the engine.

    feeds: the tensors of a request -> those that the engine takes; answer: what the engine gives ->
    those of the signature. ask: which question the engine gets. defaults: inputs that a request may
    leave out. exact: whether every rank and fixed size is held to; else only where a declared rank
    is 3 or more, because signatures often declare small shapes that nobody obeys. definition: the
    SignatureDef of a SavedModel that striate did not write.
    """

    name: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    feeds: Callable[[Tensors], Tensors] = unchanged
    answer: Callable[[Tensors], Tensors] = unchanged
    ask: str = "predict"
    defaults: Mapping[str, np.ndarray] = field(default_factory=dict)
    exact: bool = True
    definition: Any = None


def signatures_of(artifact: Artifact) -> dict[str, Signature]:
    """The signatures with which an artifact is served, by name."""
    spec = artifact.preprocess
    labels = np.array([label.encode() for label in artifact.labels], object)
    image = TensorSpec(np.dtype(spec.dtype), (-1, *spec.shape))
    text = TensorSpec(np.dtype("object"), (-1,))
    scores = TensorSpec(np.dtype("float32"), (-1, len(labels)))
    classes = TensorSpec(np.dtype("object"), (-1, len(labels)))

    def with_labels(found: Tensors) -> Tensors:
        return {**found, "classes": np.broadcast_to(labels, found["scores"].shape)}

    def from_bytes(tensors: Tensors) -> Tensors:
        return {"image": decode_all(tensors["image_bytes"], "image_bytes", spec)}

    def from_examples(tensors: Tensors) -> Tensors:
        return {"image": decode_all(encoded_of(tensors["inputs"]), "inputs", spec)}

    labelled = {"classes": classes, "scores": scores}
    found = [
        Signature(DEFAULT, PREDICT, {"image": image}, {"scores": scores}),
        Signature("bytes", PREDICT, {"image_bytes": text}, labelled, from_bytes, with_labels),
        Signature("classify", CLASSIFY, {"inputs": text}, labelled, from_examples, with_labels),
    ]
    if artifact.places is not None and artifact.places.explains:
        found.append(_explaining(image, scores, spec))
    if not isinstance(spec, Preprocess):
        found = found[:1]  # nothing but the tensor encodes voxels, clips and vectors
    return {signature.name: signature for signature in found}


def _explaining(image: TensorSpec, scores: TensorSpec, spec: Spec) -> Signature:
    """Where in the picture the best score comes from, for engines that can tell."""
    heat = TensorSpec(np.dtype("float32"), (-1, *spec.shape[:2]))
    outputs = {"scores": scores, "heat_map": heat}
    return Signature("explain", PREDICT, {"image": image}, outputs, ask="explain")


def decode_all(encoded: np.ndarray, name: str, spec: Spec) -> np.ndarray:
    """Encoded pictures [N] -> uint8 [N, H, W, C]; the one that is no picture is named."""
    images = np.empty((len(encoded), *spec.shape), np.uint8)
    for i, picture in enumerate(encoded):
        try:
            images[i] = pixels(picture, spec)
        except DataError as error:
            raise invalid(f"{name}[{i}]: {error}") from None
    return images


def encoded_of(examples: np.ndarray) -> np.ndarray:
    """The encoded picture in each serialized tf.Example."""
    from google.protobuf.message import DecodeError

    from striate.serve.protos import example_pb2

    found = np.empty(len(examples), object)
    for i, serialized in enumerate(examples):
        try:
            example = example_pb2.Example.FromString(serialized)
        except DecodeError:
            raise invalid(f"Could not parse example input, value: inputs[{i}]") from None
        values = example.features.feature[EXAMPLE_FEATURE].bytes_list.value
        if len(values) != 1:
            raise invalid(
                f"inputs[{i}]: Feature: {EXAMPLE_FEATURE} (data type: string) is required but "
                f"could not be found. Expected one encoded picture in it, got {len(values)}."
            )
        found[i] = values[0]
    return found


def check_names(signature: Signature, names: set[str]) -> None:
    """Compare the inputs that a request names with those of the signature."""
    wanted = set(signature.inputs)
    if len(names) != len(wanted) and not signature.defaults:
        raise invalid(
            f"input size does not match signature: {len(names)}!={len(wanted)} "
            f"len({_braced(names)}) != len({_braced(wanted)}). "
            f"Sent extra: {_braced(names - wanted)}. "
            f"Missing but required: {_braced(wanted - names)}."
        )
    for name in sorted(wanted - names - set(signature.defaults)):
        tensor = signature.inputs[name].tensor or tensor_name(signature.name, name)
        raise invalid(
            f"Signature input alias: {name}(feed name: {tensor}) "
            "not found in request and no default value provided. Inputs expected to be in the "
            f"request {_braced(names)}, or default input alias set: "
            f"{','.join(sorted(signature.defaults))}"
        )
    if names - wanted:
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {','.join(sorted(names & wanted))}"
            f", request input: {','.join(sorted(names))}"
        )


def check_tensors(signature: Signature, tensors: Tensors) -> None:
    """Compare dtype, rank and fixed dimensions with the signature, before an engine sees them.

    TensorFlow does not: a tensor of the wrong rank ends its process, one of the wrong height and
    width is answered with nonsense.
    """
    for i, (name, spec) in enumerate(sorted(signature.inputs.items())):
        tensor = tensors[name]
        if tensor.dtype != spec.dtype:
            raise invalid(
                f"Expects arg[{i}] to be {type_name(spec.dtype)} "
                f"but {type_name(tensor.dtype)} is provided"
            )
        if spec.shape is None or not (signature.exact or len(spec.shape) >= 3):
            continue
        if not _fits(tensor.shape, spec.shape):
            raise invalid(
                f"Input {name} expects shape {_listed(spec.shape)}, got {_listed(tensor.shape)}"
                f"{_hint(tensor.shape, spec.shape)}"
            )
        if signature.exact and tensor.ndim and len(tensor) == 0:
            raise invalid(f"Input {name} expects at least one item, got {_listed(tensor.shape)}")


def check_filter(signature: Signature, names: list[str]) -> None:
    """Check the outputs that a request asks for: each of the signature, none twice."""
    seen: set[str] = set()
    for name in names:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_braced(set(signature.outputs))}."
            )
        if name in seen:
            raise invalid(f"duplicate output tensor alias: {name}")
        seen.add(name)


def check_classifier(signature: Signature) -> None:
    """Check that a signature can be asked by Classify; its method name does not count."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {_shown(signature)}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or '
            f'"scores". Signature was: {_shown(signature)}'
        )


def check_regressor(signature: Signature) -> None:
    """Check that a signature can be asked by Regress; its method name does not count."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {_shown(signature)}")
    if "outputs" not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {_shown(signature)}")


def tensor_name(signature: str, name: str) -> str:
    """The graph's name for an input, as Keras' own export would give it."""
    return f"{signature}_{name}:0"


def type_name(dtype: np.dtype) -> str:
    """TensorFlow's word for a dtype: float for float32, string for bytes."""
    words = {"float32": "float", "float64": "double", "float16": "half", "object": "string"}
    return words.get(dtype.name, dtype.name)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (-1, got) for got, want in zip(shape, wanted, strict=True)
    )


def _hint(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if _fits((1, *shape), wanted):
        return f": the first dimension counts the images, send {_listed((1, *shape))} for one"
    return ""


def _listed(shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"


def _braced(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _shown(signature: Signature) -> str:
    return (
        f"{signature.name}: {_braced(set(signature.inputs))} -> {_braced(set(signature.outputs))}, "
        f"method_name: {signature.method}"
    )
