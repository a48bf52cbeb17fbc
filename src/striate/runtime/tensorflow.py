"""TensorFlow over the SavedModel: what TensorFlow Serving runs."""

from pathlib import Path

import numpy as np

from striate.artifact import Artifact
from striate.errors import EngineError


class TensorFlowEngine:
    """The `serving_default` signature of a SavedModel."""

    name = "tensorflow"

    def __init__(self, directory: Path, threads: int | None):
        import tensorflow as tf

        if threads is not None:
            _limit_threads(tf, threads)
        self._tf = tf
        self._model = tf.saved_model.load(str(directory))  # the signature does not keep it alive
        self._predict = self._model.signatures["serving_default"]
        device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
        self.kernel = f"tensorflow {tf.__version__} {device} fp32"

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self._predict(image=self._tf.constant(images))["scores"].numpy()

    def explain(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(scores, heat maps float32 [N, H, W]); `EngineError` for a SavedModel without them."""
        if "explain" not in self._model.signatures:
            raise EngineError("this SavedModel has no signature `explain`; export it again")
        found = self._model.signatures["explain"](image=self._tf.constant(images))
        return found["scores"].numpy(), found["heat_map"].numpy()


def _limit_threads(tf, threads: int) -> None:
    """Set the process's thread pools; TensorFlow fixes them when it first computes."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # already computing: the pools keep the size they have


def open_form(artifact: Artifact, path: Path, threads: int | None) -> TensorFlowEngine:
    return TensorFlowEngine(path.parent, threads)
