"""Functions that TensorFlow has and ONNX has by others: `import` tells the ONNX converter of them.

Keras' exact GELU is written with Erfc, CELU with Expm1, and both are said of every number of a map
by itself. Beside these others, to float32's rounding, they are the same but for answers near 0,
where Erfc, Expm1 and Log1p are closer than a score can tell.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tf2onnx import utils
from tf2onnx.handler import tf_op


@tf_op("Erfc")
class Erfc:
    """1 - erf(x)."""

    @classmethod
    def version_9(cls, ctx: Any, node: Any, **kwargs: Any) -> None:
        erf = ctx.make_node("Erf", node.input).output[0]
        _become(ctx, node, "Sub", [_one(ctx, node), erf])


@tf_op("Expm1")
class Expm1:
    """exp(x) - 1."""

    @classmethod
    def version_7(cls, ctx: Any, node: Any, **kwargs: Any) -> None:
        exp = ctx.make_node("Exp", node.input).output[0]
        _become(ctx, node, "Sub", [exp, _one(ctx, node)])


@tf_op("Log1p")
class Log1p:
    """log(x + 1)."""

    @classmethod
    def version_7(cls, ctx: Any, node: Any, **kwargs: Any) -> None:
        more = ctx.make_node("Add", [node.input[0], _one(ctx, node)]).output[0]
        _become(ctx, node, "Log", [more])


def _one(ctx: Any, node: Any) -> str:
    """The number 1 in the type of a node's answer."""
    dtype = utils.map_onnx_to_numpy_type(ctx.get_dtype(node.output[0]))
    return ctx.make_const(utils.make_name("one"), np.array(1, dtype)).output[0]


def _become(ctx: Any, node: Any, kind: str, inputs: Sequence[str]) -> None:
    """Put a node of another kind in a node's place."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    ctx.remove_node(node.name)
    ctx.make_node(kind, inputs, name=node.name, outputs=node.output, shapes=shapes, dtypes=dtypes)
