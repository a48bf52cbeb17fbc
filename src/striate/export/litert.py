"""LiteRT: `model.tflite` with the signature `serving_default` (image -> scores)."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from striate.artifact import Artifact
from striate.errors import UsageError
from striate.export.graph import save, scores_function
from striate.export.metadata import with_labels
from striate.export.pooling import flat_pools

# What the converter says on its first line of many, of an operation and the node's name.
MISSING = r"""fused\["\w+:", "([^"@]+)@.*?'tf\.(\w+)' op is neither a custom op nor a flex op"""


def write(artifact: Artifact, directory: Path) -> None:
    with converter(artifact) as found:
        (directory / "model.tflite").write_bytes(with_labels(found.convert(), artifact))


@contextmanager
def converter(artifact: Artifact) -> Iterator[Any]:
    """LiteRT's converter of the classifier, to be set up and used inside.

    It goes through a SavedModel of the one signature, the only way that keeps its names. Raises
    `UsageError` for a layer that computes what LiteRT has no operation for.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    with tempfile.TemporaryDirectory() as plain:
        with flat_pools(artifact.model):
            save(artifact, {"serving_default": scores_function(artifact)}, plain)
        found = tf.lite.TFLiteConverter.from_saved_model(plain, signature_keys=["serving_default"])
        try:
            yield found
        except ConverterError as error:
            if missing := re.search(MISSING, str(error)):
                raise UsageError(_refusal(*missing.groups())) from error
            raise


def _refusal(name: str, kind: str) -> str:
    """kind: TensorFlow's operation; name: of the node that does it, scopes of layers before."""
    return f"litert: {name} is a {kind}, which LiteRT does not have; export it to saved_model"
