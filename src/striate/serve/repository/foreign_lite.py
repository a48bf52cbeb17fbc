"""LiteRT files that striate did not write, as TensorFlow Serving serves `model.tflite`.

Signatures that the file stores are served by their names; a file without any gets
`serving_default`, whose inputs and outputs are called as its tensors are.
"""

import time
import zipfile
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from striate.artifact import LABELS
from striate.errors import ArtifactError
from striate.serve.signatures import DEFAULT, PREDICT, Signature, Tensors, TensorSpec
from striate.serve.status import invalid


class LiteRtServable:
    """An interpreter for each worker over one file. Raises `ArtifactError` for one that none reads.

    Sizes that the file leaves open are those of each request.
    """

    engine = "litert"
    kernel = "litert xnnpack"
    item_bytes = 0
    artifact = None
    difference: float | None = None

    def __init__(self, path: Path, *, workers: int, threads: int):
        from ai_edge_litert.interpreter import Interpreter

        start = time.monotonic()
        self._idle: SimpleQueue[Any] = SimpleQueue()
        try:
            for _ in range(workers):
                interpreter = Interpreter(model_path=str(path), num_threads=threads)
                interpreter.allocate_tensors()
                self._idle.put(interpreter)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path}: LiteRT cannot load it ({error})") from None
        self.signatures = {s.name: s for s in _signatures(interpreter)}
        self.labels = _labels(path)
        self.seconds = time.monotonic() - start

    def run(self, ask: str, feeds: Tensors) -> Tensors:
        interpreter = self._idle.get()
        try:
            if ask in interpreter.get_signature_list():
                return interpreter.get_signature_runner(ask)(**feeds)
            return _run_unsigned(interpreter, feeds)
        except (ValueError, RuntimeError) as error:
            raise invalid(str(error)) from None
        finally:
            self._idle.put(interpreter)

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get()


def _signatures(interpreter: Any) -> list[Signature]:
    stored = [
        (name, runner.get_input_details(), runner.get_output_details())
        for name in interpreter.get_signature_list()
        for runner in [interpreter.get_signature_runner(name)]
    ]
    unsigned = (
        DEFAULT,
        {detail["name"]: detail for detail in interpreter.get_input_details()},
        {detail["name"]: detail for detail in interpreter.get_output_details()},
    )
    return [
        Signature(name, PREDICT, _specs(inputs), _specs(outputs), ask=name, exact=False)
        for name, inputs, outputs in stored or [unsigned]
    ]


def _labels(path: Path) -> list[str]:
    """The classes in the archive behind a model, where `striate export` and MediaPipe have them."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(Path(LABELS).name).decode("utf-8", "replace").splitlines()
    except (zipfile.BadZipFile, KeyError):  # it has none
        return []


def _specs(details: dict[str, dict[str, Any]]) -> dict[str, TensorSpec]:
    return {name: _spec(detail) for name, detail in details.items()}


def _spec(detail: dict[str, Any]) -> TensorSpec:
    dtype = np.dtype("object") if detail["dtype"] is np.bytes_ else np.dtype(detail["dtype"])
    return TensorSpec(dtype, tuple(int(n) for n in detail["shape_signature"]), detail["name"])


def _run_unsigned(interpreter: Any, feeds: Tensors) -> Tensors:
    details = interpreter.get_input_details()
    for detail in details:
        interpreter.resize_tensor_input(detail["index"], feeds[detail["name"]].shape)
    interpreter.allocate_tensors()
    for detail in details:
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()
    return {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}
