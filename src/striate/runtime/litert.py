"""LiteRT (TensorFlow Lite): the engine of phones, here with XNNPACK on a CPU."""

import threading
from pathlib import Path

import numpy as np

from striate.artifact import Artifact


class LiteRtEngine:
    """An interpreter over `model.tflite`, or over one of smaller numbers, `model.int8.tflite`.

    It holds its tensors, so calls take turns.
    """

    def __init__(self, path: Path, threads: int | None):
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape: tuple[int, ...] = ()
        self._turn = threading.Lock()
        precision = path.stem.partition(".")[2]
        self.name = f"litert-{precision}" if precision else "litert"
        self.kernel = f"litert {ai_edge_litert.__version__} xnnpack {precision or 'fp32'}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        with self._turn:
            if images.shape != self._shape:
                self._interpreter.resize_tensor_input(self._input, images.shape)
                self._interpreter.allocate_tensors()
                self._shape = images.shape
            self._interpreter.set_tensor(self._input, images)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output)


def open_form(artifact: Artifact, path: Path, threads: int | None) -> LiteRtEngine:
    return LiteRtEngine(path, threads)
