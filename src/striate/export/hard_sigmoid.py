"""Hard sigmoids as ONNX' own operation: one pass over a map where the converter leaves three.

TensorFlow has none, so that min(max(x + 3, 0), 6) / 6 (Howard et al. 2019,
https://arxiv.org/abs/1905.02244) arrives as Add, Clip and Mul.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

BACKWARDS = (("Mul", [1 / 6]), ("Clip", [0.0, 6.0]), ("Add", [3.0]))


def fuse(graph: GraphProto) -> None:
    """Write a HardSigmoid for every such three nodes, where nothing else reads between them."""
    made = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    numbers = {
        array.name: numpy_helper.to_array(array).item()
        for array in graph.initializer
        if np.prod(array.dims) == 1
    }
    for node in list(graph.node):
        nodes, name = [], node.output[0]
        for kind, constants in BACKWARDS:
            if name in made and _is(made[name], kind, constants, numbers):
                nodes.append(made[name])
                name = next(given for given in nodes[-1].input if given not in numbers)
        between = [other.output[0] for other in nodes[1:]]
        if len(nodes) == len(BACKWARDS) and all(uses[output] == 1 for output in between):
            outputs = list(node.output)
            node.CopyFrom(
                helper.make_node("HardSigmoid", [name], outputs, node.name, alpha=1 / 6, beta=0.5)
            )
            for other in nodes[1:]:
                graph.node.remove(other)


def _is(node: NodeProto, kind: str, constants: list[float], numbers: Mapping[str, float]) -> bool:
    """Whether a node is of a kind and takes these numbers, besides one tensor."""
    given = [numbers[name] for name in node.input if name in numbers]
    return (
        node.op_type == kind
        and len(node.input) == len(constants) + 1 == len(given) + 1
        and np.allclose(given, constants)
    )
