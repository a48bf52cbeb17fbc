"""The Open Inference Protocol but for inference: health, metadata, statistics, the repository.

Every answer is the protocol's JSON; gRPC's messages have the same fields by the same names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from typing import Any

from striate.serve.core import Core, Target
from striate.serve.observe.counters import Count
from striate.serve.protocols.oip import datatype, max_batch, worded
from striate.serve.repository import Lease, State, Version
from striate.serve.repository.servable import Servable
from striate.serve.signatures import DEFAULT, Signature, TensorSpec
from striate.serve.status import Code, ServingError, UnknownLabel

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
]

_PLATFORMS = {
    "onnx": "onnxruntime_onnx",
    "packed": "onnxruntime_onnx",
    "litert": "litert_tflite",
    "tensorflow": "tensorflow_savedmodel",
    "keras": "keras_keras",
    "openvino": "openvino_onnx",
}

_STATES = {
    State.START: "LOADING",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}


def server_metadata() -> dict[str, Any]:
    return {"name": "striate", "version": metadata.version("striate"), "extensions": EXTENSIONS}


def model_ready(core: Core, target: Target) -> bool:
    """Whether a model, or that version of it, answers; False as well where there is none.

    Raises `ServingError` for a version that is neither a number nor a label (INVALID_ARGUMENT), and
    for a model that the call's key does not open.
    """
    core.permit(target.model)
    with worded(target):
        try:
            with core.lease(target):
                return True
        except UnknownLabel:
            raise
        except ServingError:
            return False


def model_metadata(core: Core, target: Target) -> dict[str, Any]:
    with _leased(core, target) as lease:
        signature = default_signature(lease.servable)
        named = target.version is not None or target.label is not None
        available = [lease.version] if named else _versions(core, lease.model)
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


def statistics(core: Core, target: Target) -> list[dict[str, Any]]:
    """What every version of a model, or of all of them, was asked; times in nanoseconds.

    An engine computes a request whole, so there is one execution an answer; decoding counts as
    `compute_input`, what is left of the whole.
    """
    if target.model:
        with _leased(core, target) as lease:  # a model that is not served has no statistics
            if target.label is not None:
                target = replace(target, version=lease.version)
    found = []
    counts = core.counters.snapshot()
    for name, number in _served(core, target):
        merged = [c for key, c in counts.items() if (key.model, key.version) == (name, number)]
        found.append({"name": name, "version": str(number), **_statistics(merged)})
    return found


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


@contextmanager
def _leased(core: Core, target: Target) -> Iterator[Lease]:
    with worded(target), core.lease(target) as lease:
        yield lease


def _versions(core: Core, model: str) -> list[int]:
    """The numbers of the versions that answer, ascending."""
    return sorted(
        version.number for version in _statuses(core, model) if version.state == State.AVAILABLE
    )


def _statuses(core: Core, model: str) -> list[Version]:
    """What became of each version of a model; nothing where none was ever looked at, or where the
    call's key does not open it."""
    if not core.opens(model):
        return []
    try:
        return core.repository.statuses(model)
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
