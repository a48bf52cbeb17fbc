"""The first layers of a packed net, from the bytes of a picture, as one node of striate's own.

A convolution of bytes is one of integers, which the matrix units of some processors (AMX) add up
many times faster than floats, and exactly (`native/stem.h` says how). Where there is one, the
packed engine puts `striate.Stem` in the place of the nodes that normalise the pixels, convolve,
rectify and pool them. The file does not change: other machines compute those nodes.
"""

import dataclasses
import re
from collections import defaultdict

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from striate.runtime.binary import library
from striate.runtime.packed import DOMAIN

# Channels first, colours in the net's order, normalised, convolved, ..., and channels last again.
BEGINNING = re.compile(
    "Transpose (Gather )?Cast Sub Mul (Pad )?Conv (Mul Add )?(Relu )?(MaxPool )?Transpose "
)
NO_POOL = [1, 1, 1, 1, 0, 0, 0, 0]
WINDOW = ("rows", "columns", "row_stride", "column_stride", "top", "left", "bottom", "right")


@dataclasses.dataclass
class Stem:
    """What a net begins with.

    weights: [rows, columns, c, filters], and mean: [c], of the picture's channels; bias: [filters];
    conv, pool: in the order of `WINDOW`.
    """

    nodes: list[NodeProto]
    weights: np.ndarray
    mean: np.ndarray
    bias: np.ndarray
    conv: list[int]
    pool: list[int]
    relu: bool


def fuse(model: ModelProto, threads: int) -> bool:
    """Let one node compute what the net begins with, in place.

    False, and nothing changed, where it begins otherwise, or with more than the node takes.
    """
    stem = _stem_of(model.graph)
    if stem is None or not _is_taken(stem, model.graph):
        return False
    arrays = {"stem_weights": stem.weights, "stem_mean": stem.mean, "stem_bias": stem.bias}
    for name, values in arrays.items():
        array = np.ascontiguousarray(values, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    numbers = {"relu": int(stem.relu), "threads": threads}
    numbers |= zip(WINDOW, stem.conv, strict=True)
    numbers |= {f"pool_{k}": v for k, v in zip(WINDOW, stem.pool, strict=True)}
    node = helper.make_node("Stem", ["image", *arrays], stem.nodes[-1].output, domain=DOMAIN)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in numbers.items())
    for old in stem.nodes:
        model.graph.node.remove(old)
    model.graph.node.insert(0, node)
    return True


def _is_taken(stem: Stem, graph: GraphProto) -> bool:
    """Whether the compiled code computes windows of these sizes on these pictures, by numbers."""
    picture = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[1:]]
    numbers = [*picture, stem.weights.shape[-1], *stem.conv, *stem.pool, int(stem.relu)]
    shape = np.array(numbers, np.int32)
    native = library()
    takes = native is not None and native.striate_stem_takes(shape.ctypes.data)
    return bool(takes) and bool(np.isfinite(np.float32(stem.weights)).all())


def _stem_of(graph: GraphProto) -> Stem | None:
    chain = _chain(graph)
    found = BEGINNING.match("".join(f"{node.op_type} " for node in chain))
    if found is None:
        return None
    nodes = chain[: found.group().count(" ")]
    at = [node.op_type for node in nodes].index("Conv")
    if any(a.name == "group" and a.i > 1 for a in nodes[at].attribute):
        return None
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    before = {node.op_type: arrays[node.input[1]] for node in nodes[1:at] if node.input[1:]}
    after = {node.op_type: node for node in nodes[at + 1 :]}
    constants = [arrays[name].astype(np.float64) for name in nodes[at].input[1:]]
    batch_norm = [arrays[after[op].input[1]].ravel() for op in ("Mul", "Add") if op in after]
    weights, bias = _folded(constants, batch_norm)
    weights *= before["Mul"].reshape(1, -1, 1, 1)
    # Channel i of the net is channel `Gather[i]` of the picture.
    order = np.argsort(before.get("Gather", np.arange(weights.shape[1])))
    conv = _window(nodes[at])
    if "Pad" in before:
        conv[4:] = np.add(conv[4:], before["Pad"][[2, 3, 6, 7]]).tolist()
    return Stem(
        nodes=nodes,
        weights=weights[:, order].transpose(2, 3, 1, 0),
        mean=before["Sub"].ravel()[order],
        bias=bias,
        conv=conv,
        pool=_window(after["MaxPool"]) if "MaxPool" in after else NO_POOL,
        relu="Relu" in after,
    )


def _folded(conv: list[np.ndarray], batch_norm: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution, of which the latter may be missing, with the gain and the
    shift behind it, if there are any."""
    weights, bias = conv[0], conv[1] if conv[1:] else np.zeros(len(conv[0]))
    if not batch_norm:
        return weights, bias
    gain, shift = batch_norm
    return weights * gain.reshape(-1, 1, 1, 1), bias * gain + shift


def _chain(graph: GraphProto) -> list[NodeProto]:
    """The nodes from the picture on, as long as each is all that reads the one before it."""
    readers = defaultdict(list)
    for node in graph.node:
        for name in set(node.input):
            readers[name].append(node)
    chain: list[NodeProto] = []
    at = "image"
    while len(readers[at]) == 1 and readers[at][0].input[0] == at:
        chain.append(readers[at][0])
        at = chain[-1].output[0]
    return chain


def _window(node: NodeProto) -> list[int]:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return [*found["kernel_shape"], *found["strides"], *found["pads"]]
