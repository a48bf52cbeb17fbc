"""OpenVINO over the ONNX form: an extra, often the fastest on Intel's processors.

Left to itself it computes in bfloat16 where the processor can, and gives other answers than the
other engines; so single precision is asked for.
"""

import threading
from pathlib import Path

import numpy as np

from striate.artifact import Artifact


class OpenVinoEngine:
    """A compiled `model.onnx`. It holds its tensors, so calls take turns."""

    name = "openvino"

    def __init__(self, path: Path, threads: int | None):
        import openvino

        settings: dict[str, str | int] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(path), "CPU", settings)
        self._request = compiled.create_infer_request()
        self._turn = threading.Lock()
        version = openvino.__version__.split("-")[0]
        self.kernel = f"openvino {version} cpu fp32"

    def predict(self, images: np.ndarray) -> np.ndarray:
        with self._turn:
            return self._request.infer({"image": np.ascontiguousarray(images)})["scores"]


def open_form(artifact: Artifact, path: Path, threads: int | None) -> OpenVinoEngine:
    return OpenVinoEngine(path, threads)
