"""Packed: one bit for each binary weight. `model.packed.onnx`, the same tensor contract, is written
here; `model.packed`, for the runner in C, by `striate.export.compact`.

`model.packed.onnx` is plain ONNX that any runtime reads: a binary layer is a node
`striate.BinaryConv` whose meaning the file itself defines, in standard operators, as a function
(bits -> signs -> Conv). Read so, it runs at the speed of floats. Where striate's compiled kernels
are, the packed engine drops that definition and lets them compute the nodes instead, on bits.

The graph is written from the Keras layers directly, channels last around binary layers, as the
kernels want it, and channels first around the real ones, as ONNX has it.
"""

import dataclasses
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from striate.artifact import Artifact
from striate.errors import UsageError
from striate.export import compact, padding
from striate.export.metadata import add_to_onnx
from striate.runtime.binary import pack_bits
from striate.runtime.packed import DOMAIN, FILE

OPSET = 18
IR_VERSION = 10
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value of the graph. layout: `last` [N, h, w, c], `first` [N, c, h, w] or `flat` [N, c].

    gain, shift: a batch normalisation that is still to be done, value * gain + shift; a binary
    layer does it while it takes the signs.
    """

    name: str
    layout: str
    gain: np.ndarray | None = None
    shift: np.ndarray | None = None


class Graph:
    """An ONNX graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._turned: dict[tuple[str, str], str] = {}

    def constant(self, values: Any, dtype: str = "f4") -> str:
        name = f"c{len(self.initializers)}"
        array = np.ascontiguousarray(values, dtype)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def done(self, tensor: Tensor) -> Tensor:
        """The tensor with its normalisation done."""
        if tensor.gain is None or tensor.shift is None:
            return tensor
        across = (-1, 1, 1) if tensor.layout == "first" else (-1,)
        gain, shift = (self.constant(v.reshape(across)) for v in (tensor.gain, tensor.shift))
        name = self.add("Add", self.add("Mul", tensor.name, gain), shift)
        return Tensor(name, tensor.layout)

    def turned(self, tensor: Tensor, layout: str) -> Tensor:
        """The tensor in another layout; its normalisation stays to be done."""
        if tensor.layout == layout:
            return tensor
        key = (tensor.name, layout)
        if key not in self._turned:
            order = TO_FIRST if layout == "first" else TO_LAST
            self._turned[key] = self.add("Transpose", tensor.name, perm=order)
        return dataclasses.replace(tensor, name=self._turned[key], layout=layout)


# === Layers ===


def same(graph: Graph, layer, x: Tensor) -> Tensor:
    return x


def relu(graph: Graph, layer, x: Tensor) -> Tensor:
    x = graph.done(x)
    if layer.negative_slope or layer.threshold:
        raise UsageError(f"packed: layer {layer.name!r} is a leaky ReLU, which no binary net has")
    if layer.max_value is None:
        return Tensor(graph.add("Relu", x.name), x.layout)
    limits = graph.constant(0.0), graph.constant(layer.max_value)
    return Tensor(graph.add("Clip", x.name, *limits), x.layout)


def batch_normalisation(graph: Graph, layer, x: Tensor) -> Tensor:
    x = graph.done(x)
    gain, shift = compact.gain_and_shift(layer)
    return dataclasses.replace(x, gain=gain, shift=shift)


def window(layer, kernel, strides) -> dict[str, Any]:
    """ONNX' attributes of a layer with a sliding window."""
    sides = layer.input.shape[1:3]
    pads = [compact.spatial(layer, *at) for at in zip(sides, kernel, strides, strict=True)]
    return {
        "kernel_shape": list(kernel),
        "strides": list(strides),
        "pads": [before for before, _ in pads] + [after for _, after in pads],
    }


def pointwise(graph: Graph, layer, x: Tensor) -> Tensor:
    """A 1x1 convolution of a map with its channels last: a matrix product, nothing to turn."""
    kernel, *bias = layer.get_weights()
    name = x.name
    if layer.strides != (1, 1):
        begin, end, axes = [0, 0], [2**31 - 1] * 2, [1, 2]
        name = graph.add(
            "Slice", name, *(graph.constant(v, "i8") for v in (begin, end, axes, layer.strides))
        )
    name = graph.add("MatMul", name, graph.constant(kernel[0, 0]))
    for values in bias:
        name = graph.add("Add", name, graph.constant(values))
    return Tensor(name, "last")


def convolution(graph: Graph, layer, x: Tensor) -> Tensor:
    x = graph.done(x)
    plain = type(layer).__name__ == "Conv2D" and layer.groups == 1
    if x.layout == "last" and plain and layer.kernel_size == (1, 1):
        return pointwise(graph, layer, x)
    x = graph.turned(x, "first")
    kernel, *bias = layer.get_weights()
    if type(layer).__name__ == "DepthwiseConv2D":
        groups, kernel = (
            kernel.shape[2],
            kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2]),
        )
    else:
        groups, kernel = layer.groups, kernel.transpose(3, 2, 0, 1)
    inputs = [graph.constant(values) for values in (kernel, *bias)]
    at = window(layer, layer.kernel_size, layer.strides)
    return Tensor(graph.add("Conv", x.name, *inputs, group=groups, **at), "first")


def zero_padding(graph: Graph, layer, x: Tensor) -> Tensor:
    x = graph.turned(graph.done(x), "first")
    (top, bottom), (left, right) = layer.padding
    pads = graph.constant([0, 0, top, left, 0, 0, bottom, right], "i8")
    return Tensor(graph.add("Pad", x.name, pads), "first")


def max_pooling(graph: Graph, layer, x: Tensor) -> Tensor:
    x = graph.turned(graph.done(x), "first")
    at = window(layer, layer.pool_size, layer.strides)
    return Tensor(graph.add("MaxPool", x.name, **at), "first")


def average(graph: Graph, layer, x: Tensor) -> Tensor:
    x = graph.done(x)
    axes = graph.constant([1, 2] if x.layout == "last" else [2, 3], "i8")
    return Tensor(graph.add("ReduceMean", x.name, axes, keepdims=0), "flat")


def flatten(graph: Graph, layer, x: Tensor) -> Tensor:
    x = graph.turned(x, "last") if x.layout != "flat" else x
    name = graph.add("Reshape", x.name, graph.constant([0, layer.output.shape[-1]], "i8"))
    if x.gain is None or x.shift is None:
        return Tensor(name, "flat")
    pixels = layer.output.shape[-1] // len(x.gain)
    return Tensor(name, "flat", np.tile(x.gain, pixels), np.tile(x.shift, pixels))


def dense(graph: Graph, layer, x: Tensor) -> Tensor:
    inputs = [graph.constant(values) for values in layer.get_weights()]
    return Tensor(graph.add("Gemm", graph.done(x).name, *inputs), "flat")


def add(graph: Graph, layer, *terms: Tensor) -> Tensor:
    layout = "last" if any(x.layout == "last" for x in terms) else terms[0].layout
    names = [graph.turned(graph.done(x), layout).name for x in terms]
    return Tensor(reduce(lambda x, y: graph.add("Add", x, y), names), layout)


def binary_convolution(graph: Graph, layer, x: Tensor) -> Tensor:
    compact.refuse_padded_reals(layer)
    kernel, stride, pad = np.asarray(layer.kernel), layer.strides, layer.pad
    if not layer.binary_inputs:
        return _of_reals(graph, layer, x, kernel, stride, pad)
    if layer.activation_scale or layer.pad_value:
        x = graph.turned(graph.done(x), "last")
    scale = input_scale(graph, layer, x) if layer.activation_scale else None
    if layer.pad_value and pad:
        pads = graph.constant([0, pad, pad, 0] * 2, "i8")
        x = Tensor(graph.add("Pad", x.name, pads, graph.constant(1.0)), "last")
        pad = 0
    return _of_signs(graph, layer, x, kernel, stride, pad, scale)


def input_scale(graph: Graph, layer, x: Tensor) -> str:
    """K: the mean |x| over the channels and the pixels under the kernel, [N, h', w', 1]."""
    across = graph.constant([3], "i8")
    means = graph.add("ReduceMean", graph.add("Abs", x.name), across, keepdims=1)
    box = graph.add(
        "AveragePool",
        graph.add("Transpose", means, perm=TO_FIRST),
        kernel_shape=[layer.kernel_size] * 2,
        strides=[layer.strides] * 2,
        pads=[layer.pad] * 4,
        count_include_pad=1,
    )
    return graph.add("Transpose", box, perm=TO_LAST)


def binary_dense(graph: Graph, layer, x: Tensor) -> Tensor:
    """A dense layer is a 1x1 convolution of one pixel."""
    kernel = np.asarray(layer.kernel)[None, None]
    pixel = graph.add("Reshape", x.name, graph.constant([0, 1, 1, kernel.shape[2]], "i8"))
    x = dataclasses.replace(x, name=pixel, layout="last")
    answers = (_of_signs if layer.binary_inputs else _of_reals)(graph, layer, x, kernel, 1, 0)
    flat = graph.constant([0, layer.units], "i8")
    return Tensor(graph.add("Reshape", answers.name, flat), "flat")


def _of_signs(
    graph: Graph,
    layer,
    x: Tensor,
    kernel: np.ndarray,
    stride: int,
    pad: int,
    input_scale: str | None = None,
) -> Tensor:
    """Signs of inputs convolved with signs of weights, channels last.

    input_scale: the name of K, by which sums are multiplied first.
    """
    x = graph.turned(x, "last")
    channels = kernel.shape[2]
    gain = np.ones(channels, np.float32) if x.gain is None else x.gain
    shift = np.zeros(channels, np.float32) if x.shift is None else x.shift
    inputs = [x.name, graph.constant(gain), graph.constant(shift), _bits(graph, kernel)]
    alpha, beta = _alpha_and_beta(layer)
    first = (alpha, beta) if input_scale is None else (np.ones_like(alpha), np.zeros_like(beta))
    inputs += [*map(graph.constant, first), graph.constant([channels], "i8")]
    name = graph.add("BinaryConv", *inputs, **_square(stride, pad))
    if input_scale is not None:
        name = graph.add("Mul", graph.add("Mul", name, input_scale), graph.constant(alpha))
        name = graph.add("Add", name, graph.constant(beta))
    return Tensor(name, "last")


def _of_reals(graph: Graph, layer, x: Tensor, kernel: np.ndarray, stride: int, pad: int) -> Tensor:
    """Inputs as they are, convolved with signs of weights, channels first."""
    x = graph.turned(graph.done(x), "first")
    scales = (graph.constant(values[:, None, None]) for values in _alpha_and_beta(layer))
    inputs = [x.name, _bits(graph, kernel), *scales, graph.constant([kernel.shape[2]], "i8")]
    return Tensor(graph.add("BinaryWeightConv", *inputs, **_square(stride, pad)), "first")


def _bits(graph: Graph, kernel: np.ndarray) -> str:
    """The signs of a kernel [k, k, c, f] as bits, uint8 [f, k, k, bytes]."""
    return graph.constant(pack_bits(kernel.transpose(3, 0, 1, 2)).view(np.uint8), "u1")


def _alpha_and_beta(layer) -> tuple[np.ndarray, np.ndarray]:
    """What each filter's sums are multiplied by, and what is added: float32 [filters] each."""
    alpha = np.asarray(layer.alpha()) if layer.scale else np.ones(layer.units)
    beta = np.asarray(layer.bias) if layer.use_bias else np.zeros(layer.units)
    return alpha.astype(np.float32), beta.astype(np.float32)


def _square(stride: int, pad: int) -> dict[str, Any]:
    """The attributes of a binary node, the same along both axes."""
    return {"strides": [stride] * 2, "pads": [pad] * 4, "domain": DOMAIN}


LAYERS: dict[str, Callable[..., Tensor]] = {
    "Add": add,
    "BatchNormalization": batch_normalisation,
    "BinaryConv2D": binary_convolution,
    "BinaryDense": binary_dense,
    "Conv2D": convolution,
    "Dense": dense,
    "DepthwiseConv2D": convolution,
    "Dropout": same,
    "Flatten": flatten,
    "GlobalAveragePooling2D": average,
    "Identity": same,
    "MaxPooling2D": max_pooling,
    "ReLU": relu,
    "ZeroPadding2D": zero_padding,
}


# === What the nodes of binary layers mean ===


def attribute(name: str) -> onnx.AttributeProto:
    """An attribute of a node inside a function that is the function's own."""
    return onnx.AttributeProto(name=name, ref_attr_name=name, type=onnx.AttributeProto.INTS)


def constant(name: str, values: Any, dtype: str) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.asarray(values, dtype))
    return helper.make_node("Constant", [], [name], value=tensor)


def signs_of_weights() -> list[onnx.NodeProto]:
    """bits uint8 [f, k, k, bytes], channels int64 [1] -> weights float [f, c, k, k], +1 and -1."""
    node = helper.make_node
    return [
        constant("places", np.arange(8), "u1"),
        constant("low", 1, "u1"),
        constant("last", [-1], "i8"),
        constant("shape", [0, 0, 0, -1], "i8"),
        constant("zero", [0], "i8"),
        constant("axis", [3], "i8"),
        constant("two", 2, "f4"),
        constant("one", 1, "f4"),
        node("Unsqueeze", ["bits", "last"], ["bytes"]),
        node("BitShift", ["bytes", "places"], ["shifted"], direction="RIGHT"),
        node("BitwiseAnd", ["shifted", "low"], ["single"]),
        node("Reshape", ["single", "shape"], ["all"]),
        node("Slice", ["all", "zero", "channels", "axis"], ["used"]),
        node("Cast", ["used"], ["as_float"], to=TensorProto.FLOAT),
        node("Mul", ["as_float", "two"], ["doubled"]),
        node("Sub", ["doubled", "one"], ["signs"]),
        node("Transpose", ["signs"], ["weights"], perm=TO_FIRST),
    ]


def convolve(maps: str, output: str) -> onnx.NodeProto:
    node = helper.make_node("Conv", [maps, "weights"], [output])
    node.attribute.extend([attribute("strides"), attribute("pads")])
    return node


def functions() -> list[onnx.FunctionProto]:
    """The two kinds of binary layer in standard operators."""
    node = helper.make_node
    signs_of_inputs = [
        constant("nothing", 0, "f4"),
        constant("minus", -1, "f4"),
        node("Mul", ["x", "gain"], ["scaled"]),
        node("Add", ["scaled", "shift"], ["normal"]),
        node("GreaterOrEqual", ["normal", "nothing"], ["positive"]),
        node("Where", ["positive", "one", "minus"], ["signs_last"]),
        node("Transpose", ["signs_last"], ["maps"], perm=TO_FIRST),
        convolve("maps", "dots"),
        node("Transpose", ["dots"], ["dots_last"], perm=TO_LAST),
        node("Mul", ["alpha", "dots_last"], ["loud"]),
        node("Add", ["loud", "beta"], ["y"]),
    ]
    real_inputs = [
        convolve("x", "sums"),
        node("Mul", ["alpha", "sums"], ["loud"]),
        node("Add", ["loud", "beta"], ["y"]),
    ]
    standard = [helper.make_opsetid("", OPSET)]

    def function(name: str, inputs: list[str], nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
        nodes = [*signs_of_weights(), *nodes]
        kind = ["strides", "pads"]
        return helper.make_function(DOMAIN, name, inputs, ["y"], nodes, standard, kind)

    scales = ["alpha", "beta", "channels"]
    return [
        function("BinaryConv", ["x", "gain", "shift", "bits", *scales], signs_of_inputs),
        function("BinaryWeightConv", ["x", "bits", *scales], real_inputs),
    ]


# === The file ===


def check_packable(artifact: Artifact) -> None:
    """Raise `UsageError` for a net without binary layers, or with whitening; it loads no Keras."""
    if not any(kind.startswith("Binary") for kind in artifact.layer_kinds()):
        raise UsageError(
            f"{artifact.path}: {artifact.manifest.model['name']} has no binary layers to pack; "
            "`striate models` lists those of the family xnornet"
        )
    whitening = getattr(artifact.preprocess, "whitening", None)
    if whitening:
        raise UsageError(
            f"{artifact.path}: expected pictures that are normalised by channel, got "
            f"{whitening.method}, which has no packed form; export it to onnx"
        )


def write(artifact: Artifact, directory: Path) -> None:
    """Write the classifier layer by layer. Raises `UsageError` for a layer that none of striate's
    binary nets has."""
    graph = Graph()
    values = {artifact.model.input.name: _normalised(graph, artifact)}
    for handler, layer in compact.handlers_of(LAYERS, artifact.model):
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        values[layer.output.name] = handler(graph, layer, *(values[t.name] for t in inputs))
    logits = graph.done(values[artifact.model.output.name]).name
    if artifact.manifest.temperature != 1.0:
        logits = graph.add("Mul", logits, graph.constant(1 / artifact.manifest.temperature))
    graph.nodes.append(helper.make_node("Softmax", [logits], ["scores"], axis=-1))
    onnx.save(_model(graph, artifact), directory / FILE)
    compact.write(artifact, directory)


def _normalised(graph: Graph, artifact: Artifact) -> Tensor:
    """The pixels as the net wants them: (x - mean) * scale, in its order of colours.

    Channels come first already here: three numbers along the last axis are slow to work on.
    """
    layer = artifact.preprocess.layer()
    x = graph.add("Transpose", "image", perm=TO_FIRST)
    if layer.order == "bgr":
        x = graph.add("Gather", x, graph.constant([2, 1, 0], "i8"), axis=1)
    x = graph.add("Cast", x, to=TensorProto.FLOAT)
    mean, scale = (np.reshape(values, (-1, 1, 1)) for values in (layer.mean, layer.scale))
    x = graph.add("Sub", x, graph.constant(mean))
    return Tensor(graph.add("Mul", x, graph.constant(scale)), "first")


def _model(graph: Graph, artifact: Artifact) -> onnx.ModelProto:
    shape = artifact.preprocess.shape
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *shape])
    classes = len(artifact.labels)
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])
    made = helper.make_graph(
        graph.nodes, artifact.name, [image], [scores], initializer=graph.initializers
    )
    padding.fold(made)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(
        made, opset_imports=opsets, functions=functions(), ir_version=IR_VERSION
    )
    add_to_onnx(model, artifact)
    return model
