"""ONNX Runtime: the engine of choice on a CPU, ready in a fraction of a second."""

from pathlib import Path
from typing import Any

import numpy as np

from striate.artifact import Artifact

PROVIDER = "ExecutionProvider"  # how ONNX Runtime ends the name of each


def open_session(path: Path, threads: int | None) -> tuple[Any, str]:
    """A session over a file, which many threads may run, and what it computes with."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    providers = [f"{name}{PROVIDER}" for name in devices()]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    provider = session.get_providers()[0].removesuffix(PROVIDER).lower()
    return session, f"onnxruntime {onnxruntime.__version__} {provider}"


def devices() -> list[str]:
    """What ONNX Runtime computes on here for us, the fastest first: CUDA where it has that, CPU."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    return [name for name in ("CUDA", "CPU") if f"{name}{PROVIDER}" in there]


class OnnxEngine:
    """A session over `model.onnx` or `model.int8.onnx`; many threads may call `predict`."""

    def __init__(self, path: Path, threads: int | None):
        self._session, kernel = open_session(path, threads)
        precision = path.stem.partition(".")[2]
        self.name = f"onnx-{precision}" if precision else "onnx"
        self.kernel = f"{kernel} {precision or 'fp32'}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(["scores"], {"image": images})[0]


def open_form(artifact: Artifact, path: Path, threads: int | None) -> OnnxEngine:
    return OnnxEngine(path, threads)
