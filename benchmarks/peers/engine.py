"""What every peer computes with: ONNX Runtime, one thread a call, as striate does."""

import sys

import numpy as np
import onnxruntime


class Engine:
    """The scores of uint8 images [N, H, W, C]."""

    def __init__(self, path: str):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.shape = tuple(self._session.get_inputs()[0].shape[1:])
        self.classes = self._session.get_outputs()[0].shape[1]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(["scores"], {"image": images})[0]

    def of_bytes(self, data: bytes) -> bytes:
        """float32 scores of one picture, both as they lie in memory."""
        return self(np.frombuffer(data, np.uint8).reshape(1, *self.shape)).tobytes()


def asked() -> tuple[str, int, int]:
    """The command line of every peer: MODEL.onnx PORT WORKERS."""
    path, port, workers = sys.argv[1:]
    return path, int(port), int(workers)
