"""LiteRT: `model.tflite` with the signature `serving_default` (image -> scores)."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from striate.artifact import Artifact
from striate.export.graph import save, scores_function
from striate.export.pooling import flat_pools


def write(artifact: Artifact, directory: Path) -> None:
    with converter(artifact) as found:
        (directory / "model.tflite").write_bytes(found.convert())


@contextmanager
def converter(artifact: Artifact) -> Iterator[Any]:
    """LiteRT's converter of the classifier, to be set up and used inside.

    It goes through a SavedModel of the one signature, the only way that keeps its names.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as plain:
        with flat_pools(artifact.model):
            save(artifact, {"serving_default": scores_function(artifact)}, plain)
        yield tf.lite.TFLiteConverter.from_saved_model(plain, signature_keys=["serving_default"])
