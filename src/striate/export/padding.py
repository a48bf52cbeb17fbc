"""Padding before a pooling as the pooling's own: ResNet's stem is padded with zeros and pooled, and
SqueezeNet's maps where the last window would not fit.

Maximum pooling pads with less than every number, so that zeros around a map mean the same only
where nothing is negative: behind a ReLU. As a node of its own, padding copies the whole map, and in
ONNX Runtime into another order of channels and back.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

Arrays = Mapping[str, np.ndarray]
KEEPS_SIGNS = ("Concat", "Add", "MaxPool", "AveragePool", "Transpose", "Identity")


def fold(graph: GraphProto) -> None:
    """Let every MaxPool pad for itself where zeros, read by nothing else, pad a ReLU's answer."""
    made = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    arrays = {a.name: numpy_helper.to_array(a) for a in graph.initializer if np.prod(a.dims) <= 16}
    at_least_zero = _never_negative(graph, arrays)
    for pool in list(graph.node):
        pad = made.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        if pad is None or uses[pad.output[0]] > 1 or not _zeros_around(pad, arrays):
            continue
        around = arrays[pad.input[1]]
        if pad.input[0] in at_least_zero and _can_pad(pool, around):
            _pad(pool, around)
            pool.input[0] = pad.input[0]
            graph.node.remove(pad)


def _zeros_around(node: NodeProto, arrays: Arrays) -> bool:
    """Whether a node puts a known number of zeros around a map [N, c, h, w], and only there."""
    constant = node.op_type == "Pad" and _attribute(node, "mode", b"constant") == b"constant"
    if not constant or not {name for name in node.input[1:] if name} <= arrays.keys():
        return False
    pads, *others = (arrays[name] for name in node.input[1:] if name)
    outside = pads.reshape(2, -1)[:, :2]
    of_zeros = len(others) < 2 and not any(value.any() for value in others)
    return pads.size == 8 and of_zeros and not outside.any() and bool((pads >= 0).all())


def _never_negative(graph: GraphProto, arrays: Arrays) -> set[str]:
    """The values that ReLUs answer, and what is put together from nothing else."""
    found: set[str] = set()
    for node in graph.node:  # in an order in which every value is made before it is read
        least = arrays.get(node.input[1]) if node.op_type == "Clip" and node.input[1:] else None
        clipped = least is not None and bool((least >= 0).all())
        kept = node.op_type in KEEPS_SIGNS and found.issuperset(node.input)
        if node.op_type == "Relu" or clipped or kept:
            found.update(node.output)
    return found


def _can_pad(pool: NodeProto, around: np.ndarray) -> bool:
    """Whether it says by numbers, if at all, how it pads, and no window would be all padding."""
    by_numbers = _attribute(pool, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    least = min(_attribute(pool, "kernel_shape", [0]))
    own = max(_attribute(pool, "pads", [0]))
    return by_numbers and not _attribute(pool, "ceil_mode", 0) and around.max() + own < least


def _pad(pool: NodeProto, around: np.ndarray) -> None:
    """Add to the padding of a pooling: [before, after] of [N, c, h, w]."""
    own = np.array(_attribute(pool, "pads", [0] * 4))
    pads = own + around.reshape(2, 4)[:, 2:].ravel()
    kept = [a for a in pool.attribute if a.name not in ("pads", "auto_pad")]
    del pool.attribute[:]
    pool.attribute.extend([*kept, helper.make_attribute("pads", pads.tolist())])


def _attribute(node: NodeProto, name: str, default):
    found = [a for a in node.attribute if a.name == name]
    return helper.get_attribute_value(found[0]) if found else default
