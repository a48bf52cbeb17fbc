"""The Open Inference Protocol (KServe v2) over the core, whatever carries it.

What gRPC and REST have in common: which signature a request means, whether its tensors are those of
that signature, the classification extension, and Triton's texts, because clients read them. What is
not inference is in `oip_about`.

The protocol knows no signatures: its models have one set of inputs and outputs. Metadata shows the
default signature; a request that names the inputs and outputs of another one (`image_bytes`,
`heat_map`) is answered by that, and the parameter `signature_name` says it outright.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from striate.serve.core import Core, Request, Target, version_number
from striate.serve.signatures import DEFAULT, Signature, Tensors, TensorSpec
from striate.serve.status import (
    Code,
    QueueFull,
    ServingError,
    UnknownLabel,
    UnknownSignature,
    invalid,
)

FULL = "Exceeds maximum queue size"  # what Triton says where there is no place to wait

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
    """Whom a request asks; a version is a number in a string, a label, or empty for the newest.

    The protocol has strings for versions and says no more of them, so labels are heard there.
    """
    if not version:
        return Target(model)
    if not version.isdecimal():
        return Target(model, label=version)
    number = version_number(version)
    if number is None:
        raise _no_version(version)
    return Target(model, version=number)


def _no_version(version: str | None) -> ServingError:
    return invalid(
        f"failed to get model version from specified version string '{version}' "
        "(details: stoll), version should be an integral value > 0"
    )


def class_count(parameters: Mapping[str, Any]) -> int:
    """How many of its best classes a requested output is to give; 0 for its values."""
    count = parameters.get("classification", 0)
    if not is_integer(count) or count < 0:
        raise invalid(f"expected classification of at least 0, got {count!r}")
    return count


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number; Python counts `true` as one."""
    return isinstance(value, int) and not isinstance(value, bool)


def datatype(dtype: np.dtype) -> str:
    """The protocol's word for a dtype: FP32 for float32, BYTES for strings."""
    return _DATATYPES[dtype.name]


def from_raw(content: bytes | memoryview, dtype: np.dtype) -> np.ndarray:
    """A flat array of little-endian values; of strings, each after its length in four bytes."""
    if dtype.kind != "O":
        if len(content) % dtype.itemsize:
            raise ValueError(f"its {len(content)} bytes are no multiple of {dtype.itemsize}")
        found = np.frombuffer(content, dtype)
        return found if found.flags.aligned else found.copy()  # they may follow JSON of any length
    texts, position = [], 0
    while position < len(content):
        start = position + 4
        position = start + int.from_bytes(content[start - 4 : start], "little")
        if position > len(content):
            raise ValueError("its last string is cut off")
        texts.append(bytes(content[start:position]))
    return objects(texts)


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
    if not is_integer(timeout) or timeout <= 0:
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
    except UnknownLabel:
        raise _no_version(target.label) from None
    except QueueFull:
        raise QueueFull(FULL) from None
    except ServingError as error:
        if error.code == Code.NOT_FOUND:
            raise unknown(target) from None
        raise


def unknown(target: Target) -> ServingError:
    """The error for a model or a version that is not served."""
    version = f" version {target.version}" if target.version is not None else ""
    return ServingError(
        Code.NOT_FOUND, f"Request for unknown model: '{target.model}'{version} is not found"
    )


def objects(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _quoted(names: Iterable[str]) -> str:
    return f"[{','.join(repr(name) for name in names)}]"


def _listed(shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"
