"""ONNX: `model.onnx`, uint8 `image` [N, H, W, C] -> float32 `scores` [N, classes]."""

import logging
from pathlib import Path

from striate.artifact import Artifact
from striate.export.colours import convolved_colours
from striate.export.graph import image_spec, scores_function
from striate.export.grouped import plain_groups

OPSET = 18


def write(artifact: Artifact, directory: Path) -> None:
    """Convert the classifier's TensorFlow graph; the check that follows loads what was written."""
    import onnx
    import tf2onnx

    from striate.export import hard_sigmoid, padding

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)  # it reports its own optimiser's progress
    with plain_groups(artifact.model), convolved_colours(artifact.classifier):
        model, _ = tf2onnx.convert.from_function(
            scores_function(artifact), input_signature=[image_spec(artifact)], opset=OPSET
        )
    hard_sigmoid.fuse(model.graph)
    padding.fold(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, directory / "model.onnx")
