"""The Open Inference Protocol (KServe v2) over the core, whatever carries it.

What gRPC and REST have in common: which signature a request means, whether its tensors are those of
that signature, the classification extension, and every answer that is not an inference, as plain
data. Texts are Triton's, because clients read them.

The protocol knows no signatures: its models have one set of inputs and outputs. Metadata shows the
default signature; a request that names the inputs and outputs of another one (`image_bytes`,
`heat_map`) is answered by that, and the parameter `signature_name` says it outright.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np

from striate.serve.core import Core, Request, Target
from striate.serve.counters import Count
from striate.serve.repository import Lease, State, Version
from striate.serve.servable import Servable
from striate.serve.signatures import DEFAULT, Signature, Tensors, TensorSpec
from striate.serve.status import Code, QueueFull, ServingError, UnknownSignature, invalid

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
]

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "object": "BYTES",
}

_PLATFORMS = {
    "onnx": "onnxruntime_onnx",
    "packed": "onnxruntime_onnx",
    "litert": "litert_tflite",
    "tensorflow": "tensorflow_savedmodel",
    "keras": "keras_keras",
    "openvino": "openvino_onnx",
}


@dataclass(frozen=True)
class Input:
    """One tensor that a request carries. read(dtype) -> its values, in order, as a flat array."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    read: Callable[[np.dtype], np.ndarray]


@dataclass(frozen=True)
class Inference:
    """What a request asks: tensors in; outputs wanted (none for all), each with how many of its
    best classes, or 0 for its values; parameters of the whole request.
    """

    target: Target
    inputs: Sequence[Input]
    outputs: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    deadline: float | None = None
    gone: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Inferred:
    """The answer: who gave it, and named tensors, strings as objects."""

    model: str
    version: str
    outputs: Tensors


def infer(core: Core, asked: Inference) -> Inferred:
    """Answer an inference, or raise the `ServingError` that says why not, in Triton's words."""
    with worded(asked.target):
        answer = core.predict(
            Request(
                asked.target,
                _signature_name(core, asked),
                read=lambda signature: _read(core, asked, signature),
                outputs=tuple(asked.outputs),
                deadline=_deadline(asked),
                gone=asked.gone,
            )
        )
    outputs = {
        name: best_classes(array, asked.outputs[name], answer.servable.labels)
        if asked.outputs.get(name)
        else array
        for name, array in answer.outputs.items()
    }
    return Inferred(answer.model, str(answer.version), outputs)


def target_of(model: str, version: str) -> Target:
    """Whom a request asks; a version is a number in a string, or empty for the newest."""
    if not version:
        return Target(model)
    if not version.isdecimal() or int(version) >= 1 << 63:
        raise invalid(
            f"failed to get model version from specified version string '{version}' "
            "(details: stoll), version should be an integral value > 0"
        )
    return Target(model, version=int(version))


def class_count(parameters: Mapping[str, Any]) -> int:
    """How many of its best classes a requested output is to give; 0 for its values."""
    count = parameters.get("classification", 0)
    if not isinstance(count, int) or count < 0:
        raise invalid(f"expected classification of at least 0, got {count!r}")
    return count


def datatype(dtype: np.dtype) -> str:
    """The protocol's word for a dtype: FP32 for float32, BYTES for strings."""
    return _DATATYPES[dtype.name]


def from_raw(content: bytes, dtype: np.dtype) -> np.ndarray:
    """A flat array of little-endian values; of strings, each after its length in four bytes."""
    if dtype.kind != "O":
        if len(content) % dtype.itemsize:
            raise ValueError(f"its {len(content)} bytes are no multiple of {dtype.itemsize}")
        return np.frombuffer(content, dtype)
    found, position = [], 0
    while position < len(content):
        start = position + 4
        position = start + int.from_bytes(content[start - 4 : start], "little")
        if position > len(content):
            raise ValueError("its last string is cut off")
        found.append(content[start:position])
    return objects(found)


def to_raw(array: np.ndarray) -> bytes:
    """The inverse of `from_raw`."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array).tobytes()
    return b"".join(len(value).to_bytes(4, "little") + value for value in array.ravel())


def best_classes(scores: np.ndarray, count: int, labels: Sequence[str]) -> np.ndarray:
    """The classification extension: [..., classes] -> [..., count] strings, the best first.

    "score:index:label" each, without the label where the model has none.
    """
    if scores.ndim == 0 or scores.dtype.kind not in "iuf":
        raise invalid("classification needs an output of numbers, one a class")
    named = len(labels) == scores.shape[-1]
    rows = scores.reshape(-1, scores.shape[-1])
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    found = [
        f"{row[i]:f}:{i}:{labels[i]}" if named else f"{row[i]:f}:{i}"
        for row, chosen in zip(rows, order, strict=True)
        for i in chosen
    ]
    return objects([text.encode() for text in found]).reshape(*scores.shape[:-1], order.shape[1])


# Everything but inference, as the protocol's JSON; gRPC's messages have the same fields


def server_metadata() -> dict[str, Any]:
    return {"name": "striate", "version": metadata.version("striate"), "extensions": EXTENSIONS}


def model_ready(core: Core, target: Target) -> bool:
    """Whether a model, or that version of it, answers; False as well where there is none."""
    try:
        with core.lease(target):
            return True
    except ServingError:
        return False


def model_metadata(core: Core, target: Target) -> dict[str, Any]:
    with _leased(core, target) as lease:
        signature = default_signature(lease.servable)
        available = [target.version] if target.version is not None else _versions(core, lease.model)
        return {
            "name": lease.model,
            "versions": [str(number) for number in available],
            "platform": platform(lease.servable),
            "inputs": [_described(name, spec) for name, spec in signature.inputs.items()],
            "outputs": [_described(name, spec) for name, spec in signature.outputs.items()],
        }


def model_config(core: Core, target: Target) -> dict[str, Any]:
    """The model as a Triton configuration; dims are without the batch where there is one."""
    with _leased(core, target) as lease:
        signature = default_signature(lease.servable)
        most = max_batch(signature, core.max_bytes)
        return {
            "name": lease.model,
            "platform": platform(lease.servable),
            "max_batch_size": most,
            "input": [_configured(*item, most) for item in signature.inputs.items()],
            "output": [_configured(*item, most) for item in signature.outputs.items()],
        }


def repository_index(core: Core, *, only_ready: bool = False) -> list[dict[str, str]]:
    """Every version of every model, in Triton's words for its state."""
    found = []
    for name in list(core.repository.models):
        for version in sorted(_statuses(core, name), key=lambda version: version.number):
            state = _STATES[version.state]
            if only_ready and state != "READY":
                continue
            entry = {"name": name, "version": str(version.number), "state": state}
            found.append({**entry, "reason": version.message} if version.message else entry)
    return found


_STATES = {
    State.START: "LOADING",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}


def statistics(core: Core, target: Target) -> list[dict[str, Any]]:
    """What every version of a model, or of all of them, was asked; times in nanoseconds.

    An engine computes a request whole, so there is one execution an answer; decoding counts as
    `compute_input`, what is left of the whole.
    """
    if target.model:
        with _leased(core, target):
            pass  # a model that is not served has no statistics
    found = []
    counts = core.counters.snapshot()
    for name, number in _served(core, target):
        merged = [c for key, c in counts.items() if (key.model, key.version) == (name, number)]
        found.append({"name": name, "version": str(number), **_statistics(merged)})
    return found


def _served(core: Core, target: Target) -> list[tuple[str, int]]:
    """(model, version) of every version that answers and is asked about."""
    return [
        (name, number)
        for name in ([target.model] if target.model else list(core.repository.models))
        for number in _versions(core, name)
        if target.version in (None, number)
    ]


def _statistics(counts: list[Count]) -> dict[str, Any]:
    answered = sum(count.whole.n for count in counts)
    whole, queue, compute = (
        sum(getattr(count, part).seconds for count in counts)
        for part in ("whole", "queue", "compute")
    )
    failed = sum(count.failed.n for count in counts)
    return {
        "last_inference": round(1000 * max((count.last for count in counts), default=0)),
        "inference_count": sum(count.items for count in counts),
        "execution_count": answered,
        "inference_stats": {
            "success": _duration(answered, whole),
            "fail": _duration(failed, sum(count.failed.seconds for count in counts)),
            "queue": _duration(answered, queue),
            "compute_input": _duration(answered, whole - queue - compute),
            "compute_infer": _duration(answered, compute),
            "compute_output": _duration(answered, 0),
        },
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": max(0, round(seconds * 1e9))}


def control_refused() -> ServingError:
    """Loading and unloading are the version policy's: it looks at the directory by itself."""
    return ServingError(
        Code.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled"
    )


def platform(servable: Servable) -> str:
    """What computes and which form it reads, as the protocol names such pairs."""
    return _PLATFORMS.get(servable.engine, servable.engine)


def default_signature(servable: Servable) -> Signature:
    """The signature that metadata shows: the default one, or the only one."""
    signatures = servable.signatures
    return signatures[DEFAULT] if DEFAULT in signatures else next(iter(signatures.values()))


def max_batch(signature: Signature, max_bytes: int) -> int:
    """How many items a request may carry; 0 for tensors that have no batch dimension."""
    specs = [*signature.inputs.values(), *signature.outputs.values()]
    if not signature.exact or not all(spec.shape and spec.shape[0] == -1 for spec in specs):
        return 0
    return max(1, max_bytes // max(_item_bytes(spec) for spec in signature.inputs.values()))


def _item_bytes(spec: TensorSpec) -> int:
    sizes = [size for size in (spec.shape or ())[1:] if size > 0]
    return spec.dtype.itemsize * math.prod(sizes)


def _signature_name(core: Core, asked: Inference) -> str:
    """The signature that takes the inputs and gives the outputs that a request names.

    The newest version may change before the request is answered; nothing here depends on it.
    """
    if named := asked.parameters.get("signature_name"):
        return str(named)
    _, signatures = core.signatures(asked.target)
    names = {given.name for given in asked.inputs}
    fallback = DEFAULT if DEFAULT in signatures else next(iter(signatures))
    for signature in sorted(signatures.values(), key=lambda signature: signature.name != fallback):
        needed = signature.inputs.keys() - signature.defaults.keys()
        if needed <= names <= signature.inputs.keys() and (
            asked.outputs.keys() <= signature.outputs.keys()
        ):
            return signature.name
    return fallback


def _read(core: Core, asked: Inference, signature: Signature) -> Tensors:
    """The tensors of a request, held to a signature in the protocol's own words."""
    model = asked.target.model
    _check_inputs(asked, signature)
    for name in asked.outputs:
        if name not in signature.outputs:
            raise invalid(f"unexpected inference output '{name}' for model '{model}'")
    found = {}
    for given in asked.inputs:
        spec = signature.inputs[given.name]
        _check_tensor(given, spec, model, exact=signature.exact)
        try:
            values = given.read(spec.dtype)
        except ValueError as error:
            raise invalid(f"input '{given.name}' for model '{model}': {error}") from None
        if values.size != math.prod(given.shape):
            raise invalid(
                f"input '{given.name}' for model '{model}' got unexpected elements count "
                f"{values.size}, expected {math.prod(given.shape)}"
            )
        found[given.name] = values.reshape(given.shape)
    most = max_batch(signature, core.max_bytes)
    if most and any(len(tensor) > most for tensor in found.values()):
        raise invalid(f"inference request batch-size must be <= {most} for '{model}'")
    return found


def _check_inputs(asked: Inference, signature: Signature) -> None:
    model = asked.target.model
    names = [given.name for given in asked.inputs]
    wanted = list(signature.inputs)
    missing = [name for name in wanted if name not in names and name not in signature.defaults]
    unexpected = [name for name in names if name not in wanted]
    if len(names) != len(wanted) and (missing or unexpected):
        text = f"expected {len(wanted)} inputs but got {len(names)} inputs for model '{model}'. "
        text += f"Got input(s) {_quoted(names)}"
        if missing:
            text += f", but missing required input(s) {_quoted(missing)}"
        raise invalid(f"{text}. Please provide all required input(s).")
    for name in unexpected:
        raise invalid(f"unexpected inference input '{name}' for model '{model}'")
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"input '{name}' already exists in request")


def _check_tensor(given: Input, spec: TensorSpec, model: str, *, exact: bool) -> None:
    expected = datatype(spec.dtype)
    if given.datatype != expected:
        raise invalid(
            f"inference input '{given.name}' data-type is '{given.datatype}', "
            f"but model '{model}' expects '{expected}'"
        )
    wanted = spec.shape if spec.shape is not None and (exact or len(spec.shape) >= 3) else None
    fits = wanted is None or (
        len(given.shape) == len(wanted)
        and all(want in (-1, got) for got, want in zip(given.shape, wanted, strict=True))
    )
    if not fits or min(given.shape, default=0) < 0:
        raise invalid(
            f"unexpected shape for input '{given.name}' for model '{model}'. "
            f"Expected {_listed(spec.shape or ())}, got {_listed(given.shape)}."
        )


def _deadline(asked: Inference) -> float | None:
    """The earlier of the call's deadline and the parameter `timeout`, in microseconds."""
    timeout = asked.parameters.get("timeout")
    if not isinstance(timeout, int) or timeout <= 0:
        return asked.deadline
    given = time.monotonic() + timeout / 1e6
    return given if asked.deadline is None else min(given, asked.deadline)


@contextmanager
def worded(target: Target) -> Iterator[None]:
    """Turn the core's refusals into Triton's words, where clients look for those."""
    try:
        yield
    except UnknownSignature as error:
        raise invalid(str(error)) from None
    except QueueFull as error:
        raise ServingError(error.code, "Exceeds maximum queue size") from None
    except ServingError as error:
        if error.code == Code.NOT_FOUND:
            raise unknown(target) from None
        raise


@contextmanager
def _leased(core: Core, target: Target) -> Iterator[Lease]:
    with worded(target), core.lease(target) as lease:
        yield lease


def unknown(target: Target) -> ServingError:
    """The error for a model or a version that is not served."""
    version = f" version {target.version}" if target.version is not None else ""
    return ServingError(
        Code.NOT_FOUND, f"Request for unknown model: '{target.model}'{version} is not found"
    )


def _versions(core: Core, model: str) -> list[int]:
    """The numbers of the versions that answer, ascending."""
    return sorted(
        version.number for version in _statuses(core, model) if version.state == State.AVAILABLE
    )


def _statuses(core: Core, model: str) -> list[Version]:
    """What became of each version of a model; nothing where none was ever looked at."""
    try:
        return core.statuses(Target(model))
    except ServingError:
        return []


def _described(name: str, spec: TensorSpec) -> dict[str, Any]:
    shape = [-1] if spec.shape is None else list(spec.shape)
    return {"name": name, "datatype": datatype(spec.dtype), "shape": shape}


def _configured(name: str, spec: TensorSpec, most: int) -> dict[str, Any]:
    shape = [-1] if spec.shape is None else list(spec.shape)
    word = datatype(spec.dtype)
    return {
        "name": name,
        "data_type": "TYPE_STRING" if word == "BYTES" else f"TYPE_{word}",
        "dims": shape[1:] or [1] if most else shape,
    }


def objects(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _quoted(names: Iterable[str]) -> str:
    return f"[{','.join(repr(name) for name in names)}]"


def _listed(shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"
