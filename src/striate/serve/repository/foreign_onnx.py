"""ONNX files that striate did not write: the graph's tensors are those of `serving_default`.

Unlike a SavedModel's, an ONNX graph's declared shapes are meant: ONNX Runtime refuses what does not
fit them, and so does the server, before it, in one line.
"""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import ArtifactError
from striate.serve.signatures import DEFAULT, PREDICT, Signature, Tensors, TensorSpec
from striate.serve.status import invalid
from striate.serve.unforeseen import lacks_memory

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(string)": "object",
    **{
        f"tensor({name})": name
        for kind in ("int", "uint")
        for name in (f"{kind}8", f"{kind}16", f"{kind}32", f"{kind}64")
    },
    "tensor(bool)": "bool",
}


class OnnxServable:
    """A session over one file, for all threads. Raises `ArtifactError` for one that none reads."""

    engine = "onnx"
    item_bytes = 0
    artifact = None
    difference: float | None = None

    def __init__(self, path: Path, *, threads: int):
        from striate.runtime.onnx import open_session

        start = time.monotonic()
        try:
            self._session, self.kernel = open_session(path, threads)
        except Exception as error:  # ONNX Runtime's own kinds of errors have no common one
            raise ArtifactError(f"{path}: ONNX Runtime cannot load it ({_line(error)})") from None
        signature = Signature(
            DEFAULT,
            PREDICT,
            {node.name: _spec(path, node) for node in self._session.get_inputs()},
            {node.name: _spec(path, node) for node in self._session.get_outputs()},
        )
        self.signatures = {DEFAULT: signature}
        self.labels = _labels(self._session.get_modelmeta().custom_metadata_map)
        self.seconds = time.monotonic() - start

    def run(self, ask: str, feeds: Tensors) -> Tensors:
        outputs = list(self.signatures[DEFAULT].outputs)
        try:
            found = self._session.run(outputs, {n: _to_text(t) for n, t in feeds.items()})
        except Exception as error:  # sizes that are open in the graph and do not fit each other
            if lacks_memory(error):
                raise
            raise invalid(_line(error)) from None
        return {n: _to_bytes(np.asarray(t)) for n, t in zip(outputs, found, strict=True)}

    def close(self) -> None:
        del self._session


def _labels(facts: Mapping[str, str]) -> list[str]:
    """The classes that a file names as `striate export` does: in its metadata, a list as JSON."""
    try:
        found = json.loads(facts.get("labels", "[]"))
    except ValueError:
        return []
    listed = isinstance(found, list) and all(isinstance(label, str) for label in found)
    return found if listed else []


def _spec(path: Path, node: Any) -> TensorSpec:
    """What a graph declares of a tensor: a size that is a name is any size; no sizes are any rank.

    Raises `ArtifactError` for what no protocol carries.
    """
    if node.type not in _DTYPES:
        raise ArtifactError(f"{path}: {node.name} is a {node.type}, which is not served")
    sizes = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(np.dtype(_DTYPES[node.type]), sizes or None, node.name)


def _to_text(tensor: np.ndarray) -> np.ndarray:
    """ONNX's strings are text."""
    if tensor.dtype.kind != "O":
        return tensor
    try:
        decoded = [value.decode() for value in tensor.ravel()]
    except UnicodeDecodeError:
        raise invalid("Expected strings in UTF-8, got bytes that are none") from None
    return np.array(decoded, object).reshape(tensor.shape)


def _to_bytes(tensor: np.ndarray) -> np.ndarray:
    if tensor.dtype.kind not in "OU":
        return tensor
    return np.array([str(v).encode() for v in tensor.ravel()], object).reshape(tensor.shape)


def _line(error: Exception) -> str:
    """What ONNX Runtime says, in one line, without where in its own code."""
    line = " ".join(str(error).split())
    return re.sub(
        r".*(?:\[ONNXRuntimeError\] : \d+ : \w+ : |Status Message: |was false\. )", "", line
    )
