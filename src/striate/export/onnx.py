"""ONNX: `model.onnx`, uint8 `image` [N, H, W, C] -> float32 `scores` [N, classes]."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.artifact import Artifact
from striate.errors import UsageError
from striate.export.colours import convolved_colours
from striate.export.graph import image_spec, scores_function
from striate.export.grouped import plain_groups
from striate.export.metadata import add_to_onnx

if TYPE_CHECKING:
    from onnx import GraphProto

OPSET = 18


def write(artifact: Artifact, directory: Path) -> None:
    """Convert the classifier's TensorFlow graph; the check that follows loads what was written.

    Raises `UsageError` for a layer that computes what ONNX has no operation for.
    """
    import onnx
    import tf2onnx

    from striate.export import elementwise, hard_sigmoid, padding  # noqa: F401, the converter's

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # what it reports is said below
    function = scores_function(artifact)
    with plain_groups(artifact.model), convolved_colours(artifact.classifier):
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=[image_spec(artifact)], opset=OPSET
        )
    _check_operations(model.graph)
    _hold_constants(model.graph, function)
    hard_sigmoid.fuse(model.graph)
    padding.fold(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    add_to_onnx(model, artifact)
    onnx.save(model, directory / "model.onnx")


def _check_operations(graph: "GraphProto") -> None:
    """Raise `UsageError` for an operation that the converter left as TensorFlow's."""
    from onnx import defs

    for node in graph.node:
        if not defs.has(node.op_type, node.domain):
            raise UsageError(
                f"onnx: {node.name} is a {node.op_type}, which ONNX does not have; "
                "export it to saved_model"
            )


def _hold_constants(graph: "GraphProto", function: Any) -> None:
    """Keep in the graph the arrays that layers hold as such (the means of a Normalization): the
    converter takes them for inputs beside the picture."""
    from onnx import numpy_helper

    captured = function.get_concrete_function().graph.captures
    arrays = {inner.name: outer for outer, inner in captured if outer.dtype.is_numpy_compatible}
    for value in list(graph.input):
        if value.name in arrays:
            array = numpy_helper.from_array(arrays[value.name].numpy(), value.name)
            graph.initializer.append(array)
            graph.input.remove(value)
