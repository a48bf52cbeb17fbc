"""float16: `model.float16.tflite`, LiteRT's file with weights of two bytes: half the size.

A graphics processor computes in half precision; XNNPACK on a CPU widens the weights once and
computes in single precision.
"""

from pathlib import Path

from striate.artifact import Artifact
from striate.export.litert import converter
from striate.export.metadata import with_labels


def write(artifact: Artifact, directory: Path) -> None:
    import tensorflow as tf

    with converter(artifact) as found:
        found.optimizations = [tf.lite.Optimize.DEFAULT]
        found.target_spec.supported_types = [tf.float16]
        (directory / "model.float16.tflite").write_bytes(with_labels(found.convert(), artifact))
