"""Keras itself, on whatever backend is configured: the answer that every form is held to.

Its threads are the backend's: `threads` is not obeyed here.
"""

from pathlib import Path

import numpy as np

from striate.artifact import Artifact, scores_of


class KerasEngine:
    """The net of `model.keras` behind the tensor contract."""

    name = "keras"

    def __init__(self, artifact: Artifact):
        import keras

        self._artifact = artifact
        self._classifier = artifact.classifier
        self.kernel = f"keras {keras.__version__} {keras.backend.backend()} fp32"

    def predict(self, images: np.ndarray) -> np.ndarray:
        return scores_of(self._classifier, images)

    def explain(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(scores, heat maps float32 [N, H, W]) by Grad-CAM of the best class."""
        from striate.explain import explain

        return self.predict(images), explain(self._artifact, images).maps


def open_form(artifact: Artifact, path: Path, threads: int | None) -> KerasEngine:
    return KerasEngine(artifact)
