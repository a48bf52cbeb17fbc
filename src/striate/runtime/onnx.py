"""ONNX Runtime: the engine of choice on a CPU, ready in a fraction of a second."""

from pathlib import Path

import numpy as np

from striate.artifact import Artifact


class OnnxEngine:
    """A session over `model.onnx` or `model.int8.onnx`; many threads may call `predict`."""

    def __init__(self, path: Path, threads: int | None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        providers = [
            p
            for p in ("CUDAExecutionProvider", "CPUExecutionProvider")
            if p in onnxruntime.get_available_providers()
        ]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()
        precision = path.stem.partition(".")[2]
        self.name = f"onnx-{precision}" if precision else "onnx"
        self.kernel = f"onnxruntime {onnxruntime.__version__} {provider} {precision or 'fp32'}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(["scores"], {"image": images})[0]


def open_form(artifact: Artifact, path: Path, threads: int | None) -> OnnxEngine:
    return OnnxEngine(path, threads)
