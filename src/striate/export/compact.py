"""Compact: `model.packed`, a whole binary net in one small file for the runner in C.

The other half of the packed form, for machines without ONNX Runtime: a Raspberry Pi, a browser. The
file is read where it lies, little-endian, every array at a multiple of 64 bytes; `native/README.md`
says what is where, `native/runner.c` checks and runs it, `striate.runtime.runner` reads it too.

A net becomes a flat list of operations on maps with their channels last. What comes after an
operation on each channel alone (a bias, batch normalisation, ReLU) is folded into it; and between
two binary layers, where nobody else reads the map, only bits are left: scale, bias, normalisation
and sign are one comparison of an integer, found by trying the floats themselves.
"""

import dataclasses
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from striate.artifact import Artifact
from striate.errors import UsageError
from striate.lazy import keras
from striate.runtime.binary import pack_bits, thresholds
from striate.runtime.runner import (
    ARRAYS,
    FILE,
    FITS,
    HEADER,
    INTERPOLATIONS,
    KINDS,
    MAGIC,
    PANEL,
    RECORD,
    VERSION,
    Flag,
)

ALIGNMENT = 64


@dataclasses.dataclass
class Operation:
    """One operation; value 0 is the picture, value i + 1 the answer of operation i."""

    kind: str
    inputs: tuple[int, ...]
    units: int = 0
    window: tuple[int, int] = (0, 0)
    strides: tuple[int, int] = (0, 0)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    flags: int = 0
    low: float = -np.inf
    high: float = np.inf
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether a scale, a shift and limits can still follow within it."""
        return np.isinf(self.low) and np.isinf(self.high) and self.kind != "pixels"

    def then(self, after: "Operation") -> None:
        """Take in the gain, shift and limits of a copy that follows."""
        gain, shift = after.arrays.get("gain"), after.arrays.get("shift")
        if gain is not None and shift is not None:
            own = self.arrays.get("shift", np.float32(0)) * gain + shift
            self.arrays["shift"] = np.broadcast_to(own, gain.shape).astype("f4")
            self.arrays["gain"] = self.arrays.get("gain", np.float32(1)) * gain
        self.low, self.high = after.low, after.high


@dataclasses.dataclass(frozen=True)
class Map:
    """A value, and the batch normalisation that is still to be done to it, value * gain + shift."""

    value: int
    gain: np.ndarray | None = None
    shift: np.ndarray | None = None


class Net:
    """A list of operations in the making."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(self, kind: str, *inputs: Map, **fields: Any) -> Map:
        self.operations.append(Operation(kind, tuple(x.value for x in inputs), **fields))
        return Map(len(self.operations))

    def done(self, x: Map, **limits: float) -> Map:
        """The map with its normalisation done, and clipped."""
        if x.gain is None or x.shift is None:
            return self.add("copy", x, **limits) if limits else x
        return self.add("copy", x, arrays={"gain": x.gain, "shift": x.shift}, **limits)


# === Layers ===


def handler_of(table: dict[str, Callable[..., Any]], layer) -> Callable[..., Any]:
    """What a table does with such a layer; `UsageError` where it has nothing."""
    kind = type(layer).__name__
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if kind not in table or not isinstance(layer, keras.layers.Layer):
        refused = f"is a {kind}"
    elif activation != "linear":
        refused = f"has its activation {activation} within it and not behind it"
    elif np.any(np.not_equal(getattr(layer, "dilation_rate", 1), 1)):
        refused = "is dilated"
    elif getattr(layer, "keepdims", False):
        refused = "keeps the axes that it averages over"
    elif kind in ("Dense", "BinaryDense") and len(layer.input.shape) != 2:
        refused = f"is a {kind} of maps"
    elif getattr(layer, "axis", -1) not in (-1, len(layer.output.shape) - 1):
        refused = f"normalises axis {layer.axis}"
    else:
        return table[kind]
    raise _refusal(layer, refused)


def _refusal(layer, refused: str) -> UsageError:
    return UsageError(
        f"packed: layer {layer.name!r} {refused}, which has no packed form; export it to onnx"
    )


def handlers_of(table: dict[str, Callable[..., Any]], net) -> list[tuple[Callable[..., Any], Any]]:
    """(what a table does with it, layer) for all that a Keras net computes, in order; `UsageError`
    where there is nothing, and for a layer that is called several times."""
    calls = Counter(node.operation for nodes in net._nodes_by_depth.values() for node in nodes)
    found = [layer for layer in net.operations if type(layer).__name__ != "InputLayer"]
    for layer in found:
        if calls[layer] > 1:
            raise _refusal(layer, "is called several times")
    return [(handler_of(table, layer), layer) for layer in found]


def gain_and_shift(layer) -> tuple[np.ndarray, np.ndarray]:
    """A batch normalisation as value * gain + shift, whichever of its four vectors it has."""
    mean, variance = (np.asarray(w, np.float32) for w in (layer.moving_mean, layer.moving_variance))
    gamma = np.asarray(layer.gamma, np.float32) if layer.scale else np.ones_like(mean)
    beta = np.asarray(layer.beta, np.float32) if layer.center else np.zeros_like(mean)
    gain = gamma / np.sqrt(variance + np.float32(layer.epsilon))
    return gain, beta - mean * gain


def spatial(layer, size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows of padding before and after, as Keras' `valid` and `same` have it."""
    if layer.padding == "valid":
        return 0, 0
    missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return missing // 2, missing - missing // 2


def same(net: Net, layer, x: Map) -> Map:
    return x


def relu(net: Net, layer, x: Map) -> Map:
    most = np.inf if layer.max_value is None else float(layer.max_value)
    return net.done(x, low=0.0, high=most)


def batch_normalisation(net: Net, layer, x: Map) -> Map:
    x = net.done(x)
    gain, shift = gain_and_shift(layer)
    return dataclasses.replace(x, gain=gain, shift=shift)


def sliding(layer, window, strides) -> dict[str, Any]:
    """The fields of an operation with a sliding window, with Keras' `valid` or `same` padding."""
    sides = layer.input.shape[1:3]
    pads = [spatial(layer, *at) for at in zip(sides, window, strides, strict=True)]
    return {"window": window, "strides": strides, "pads": (*pads[0], *pads[1])}


def panels(kernel: np.ndarray) -> np.ndarray:
    """Weights [rows, columns, c, units] -> [panels of 16 units][rows, columns, c][16], by zeros."""
    *taps, units = kernel.shape
    missing = -units % PANEL
    kernel = np.pad(kernel, [(0, 0)] * 3 + [(0, missing)])
    kernel = kernel.reshape(*taps, -1, PANEL).transpose(3, 0, 1, 2, 4)
    return np.ascontiguousarray(kernel, np.float32)


def affine(gain: np.ndarray | None, shift: np.ndarray | None) -> dict[str, np.ndarray]:
    """Those of the two arrays that there are, and the other by what changes nothing."""
    if gain is None and shift is None:
        return {}
    like = np.asarray(gain if shift is None else shift, np.float32)
    gain = np.ones_like(like) if gain is None else gain
    shift = np.zeros_like(like) if shift is None else shift
    return {"gain": np.asarray(gain, np.float32), "shift": np.asarray(shift, np.float32)}


def convolution(net: Net, layer, x: Map) -> Map:
    kernel, *bias = layer.get_weights()
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    groups = kernel.shape[3] if depthwise else layer.groups  # of a depthwise one, its multiplier
    if groups != 1:
        raise UsageError(f"packed: layer {layer.name!r} has groups, which no binary net has")
    weights = kernel[..., 0].astype("f4") if depthwise else panels(kernel)
    return net.add(
        "depthwise" if depthwise else "conv",
        net.done(x),
        units=0 if depthwise else kernel.shape[3],
        arrays={"weights": weights, **affine(None, bias[0] if bias else None)},
        **sliding(layer, layer.kernel_size, layer.strides),
    )


def zero_padding(net: Net, layer, x: Map) -> Map:
    (top, bottom), (left, right) = layer.padding
    return net.add("pad", net.done(x), pads=(top, bottom, left, right))


def max_pooling(net: Net, layer, x: Map) -> Map:
    return net.add("max_pool", net.done(x), **sliding(layer, layer.pool_size, layer.strides))


def average(net: Net, layer, x: Map) -> Map:
    return net.add("mean", net.done(x))


def flatten(net: Net, layer, x: Map) -> Map:
    flat = net.add("flatten", x)
    if x.gain is None or x.shift is None:
        return flat
    pixels = layer.output.shape[-1] // len(x.gain)
    gain, shift = (np.tile(values, pixels) for values in (x.gain, x.shift))
    return dataclasses.replace(flat, gain=gain, shift=shift)


ONE_PIXEL: dict[str, Any] = {"window": (1, 1), "strides": (1, 1)}


def dense(net: Net, layer, x: Map) -> Map:
    """A dense layer is a 1x1 convolution of one pixel."""
    kernel, *bias = layer.get_weights()
    arrays = {"weights": panels(kernel[None, None]), **affine(None, bias[0] if bias else None)}
    return net.add("conv", net.done(x), units=layer.units, arrays=arrays, **ONE_PIXEL)


def add(net: Net, layer, *terms: Map) -> Map:
    return reduce(lambda x, y: net.add("add", x, y), map(net.done, terms))


def refuse_padded_reals(layer) -> None:
    """`UsageError` where real inputs of a binary layer are padded by 1, which no net does."""
    if layer.pad_value and layer.pad and not layer.binary_inputs:
        raise UsageError(
            f"packed: layer {layer.name!r} pads real inputs by 1, which has no packed form; "
            "export it to onnx"
        )


def binary_convolution(net: Net, layer, x: Map) -> Map:
    refuse_padded_reals(layer)
    square = {
        "window": (layer.kernel_size,) * 2,
        "strides": (layer.strides,) * 2,
        "pads": (layer.pad,) * 4,
    }
    flags = Flag.PAD_ONE if layer.pad_value and layer.pad else 0
    if layer.activation_scale:
        flags |= Flag.SCALE_INPUTS
    return _binary(net, layer, x, np.asarray(layer.kernel), flags, square)


def binary_dense(net: Net, layer, x: Map) -> Map:
    return _binary(net, layer, x, np.asarray(layer.kernel)[None, None], 0, ONE_PIXEL)


def _binary(net: Net, layer, x: Map, kernel: np.ndarray, flags: int, where: dict) -> Map:
    """Signs of inputs and weights, or real inputs convolved with signs of weights."""
    scale = np.asarray(layer.alpha(), np.float32) if layer.scale else None
    bias = np.asarray(layer.bias, np.float32) if layer.use_bias else None
    after = affine(scale, bias) or affine(np.ones(layer.units, np.float32), None)
    arrays = {"weights": pack_bits(kernel.transpose(3, 0, 1, 2)), **after}
    if not layer.binary_inputs:
        return net.add("sign_conv", net.done(x), units=layer.units, arrays=arrays, **where)
    if flags & Flag.SCALE_INPUTS:
        x = net.done(x)
    if x.gain is not None and x.shift is not None:
        arrays |= {"before_gain": x.gain, "before_shift": x.shift}
    x = Map(x.value)
    return net.add("binary_conv", x, units=layer.units, flags=flags, arrays=arrays, **where)


LAYERS: dict[str, Callable[..., Map]] = {
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


# === Making it smaller ===


def fold_copies(operations: list[Operation]) -> list[Operation]:
    """Let a scale, a shift and limits be part of the operation before them, if nobody else reads
    what that one answers."""
    readers = Counter(value for operation in operations for value in operation.inputs)
    stands_for = {0: 0}  # value -> that of the operation which it is part of
    for i, operation in enumerate(operations, start=1):
        stands_for[i] = i
        value = stands_for[operation.inputs[0]]
        alone = readers[operation.inputs[0]] == 1
        if operation.kind == "copy" and alone and value and operations[value - 1].is_open:
            operations[value - 1].then(operation)
            stands_for[i] = value
    return _without(operations, stands_for)


def fold_paddings(operations: list[Operation]) -> list[Operation]:
    """Let what slides over a padded map pad for itself, if nobody else reads that map."""
    readers: dict[int, list[Operation]] = defaultdict(list)
    for operation in operations:
        for value in operation.inputs:
            readers[value].append(operation)
    stands_for = {0: 0}
    for i, operation in enumerate(operations, start=1):
        stands_for[i] = i
        value = operation.inputs[0]
        source = operations[value - 1] if value else None
        if operation.kind == "pad" and source and _pads_itself(operation, readers[i], source):
            reader = readers[i][0]
            top, bottom, left, right = np.add(reader.pads, operation.pads).tolist()
            reader.pads = (top, bottom, left, right)
            stands_for[i] = stands_for[value]
    return _without(operations, stands_for)


def _without(operations: list[Operation], stands_for: dict[int, int]) -> list[Operation]:
    """The operations whose values stand for themselves; who read the others reads what those stand
    for."""
    kept = [value for value, other in stands_for.items() if value == other]
    number = {value: n for n, value in enumerate(kept)}
    for value in kept[1:]:
        operation = operations[value - 1]
        operation.inputs = tuple(number[stands_for[given]] for given in operation.inputs)
    return [operations[value - 1] for value in kept[1:]]


def _pads_itself(pad: Operation, readers: list[Operation], source: Operation) -> bool:
    """Convolutions pad with zeros. Maximum pooling pads with less than every number, which is the
    same where nothing is negative."""
    reader = readers[0]
    like_zeros = reader.kind in ("conv", "depthwise") or (
        reader.kind == "max_pool" and source.low >= 0
    )
    sides = zip(pad.pads, reader.pads, np.repeat(reader.window, 2), strict=True)
    within = all(own + more < window for own, more, window in sides)
    return len(readers) == 1 and like_zeros and within


def leave_bits(operations: list[Operation]) -> None:
    """Let a binary layer answer bits where only another binary layer reads them."""
    readers = Counter(value for operation in operations for value in operation.inputs)
    for reader in operations:
        source = reader.inputs[0]
        if reader.kind != "binary_conv" or reader.flags & Flag.SCALE_INPUTS or not source:
            continue
        writer = operations[source - 1]
        if writer.kind != "binary_conv" or readers[source] > 1:
            continue
        if writer.flags & Flag.SCALE_INPUTS or not writer.is_open:
            continue
        _answer_bits(writer, reader)


def _answer_bits(writer: Operation, reader: Operation) -> None:
    alpha, beta = writer.arrays.pop("gain"), writer.arrays.pop("shift")
    gain = reader.arrays.pop("before_gain", np.float32(1))
    shift = reader.arrays.pop("before_shift", np.float32(0))

    def normalised(dots: np.ndarray) -> np.ndarray:
        return (alpha * dots + beta) * gain + shift

    words = writer.arrays["weights"]
    most = int(np.prod(words.shape[1:])) * 32
    writer.arrays["threshold"], writer.arrays["flip"] = thresholds(normalised, most)


# === The file ===


def write(artifact: Artifact, directory: Path) -> None:
    """Write the classifier layer by layer; `UsageError` for a layer that no binary net has."""
    (directory / FILE).write_bytes(to_bytes(artifact, operations_of(artifact)))


def operations_of(artifact: Artifact) -> list[Operation]:
    """The classifier as operations: pixels in, scores out."""
    net, model = Net(), artifact.model
    values = {model.input.name: _normalised(net, artifact)}
    for handler, layer in handlers_of(LAYERS, model):
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        found = [values[tensor.name] for tensor in inputs]
        values[layer.output.name] = handler(net, layer, *found)
    logits = net.done(values[model.output.name])
    scale = np.array([1 / artifact.manifest.temperature], np.float32)
    net.add("softmax", logits, arrays={"gain": scale})
    operations = fold_paddings(fold_copies(net.operations))
    leave_bits(operations)
    return operations


def _normalised(net: Net, artifact: Artifact) -> Map:
    """The pixels as the net wants them: (x - mean) * scale, in its order of colours."""
    spec = artifact.preprocess.layer()
    arrays = {
        "before_gain": np.asarray(spec.scale, np.float32),
        "before_shift": np.asarray(spec.mean, np.float32),
    }
    return net.add("pixels", Map(0), flags=Flag.BGR if spec.order == "bgr" else 0, arrays=arrays)


def to_bytes(artifact: Artifact, operations: list[Operation]) -> bytes:
    """The file: a header, the operations, the arrays, the labels."""
    spec: Any = artifact.preprocess
    body = bytearray(HEADER.size + RECORD.size * len(operations))

    def put(data: bytes) -> int:
        body.extend(bytes(-len(body) % ALIGNMENT))
        start = len(body)
        body.extend(data)
        return start

    records = [
        RECORD.pack(
            KINDS.index(operation.kind),
            *(operation.inputs * 2)[:2],
            operation.units,
            *operation.window,
            *operation.strides,
            *operation.pads,
            operation.flags,
            operation.low,
            operation.high,
            *(_put_array(put, operation.arrays.get(name)) for name in ARRAYS),
        )
        for operation in operations
    ]
    text = b"".join(label.replace("\0", "").encode() + b"\0" for label in artifact.labels)
    labels = put(text)
    body.extend(bytes(-len(body) % ALIGNMENT))
    sizes = (len(body), *spec.shape, len(artifact.labels), len(operations), labels, len(text))
    fitting = (FITS.index(spec.fit), INTERPOLATIONS.index(spec.interpolation), spec.background)
    body[HEADER.size : HEADER.size + RECORD.size * len(records)] = b"".join(records)
    body[: HEADER.size] = HEADER.pack(MAGIC, VERSION, 0, *sizes, *fitting, spec.crop)
    body[12:16] = struct.pack("<I", zlib.crc32(body[16:]))
    return bytes(body)


def _put_array(put: Callable[[bytes], int], array: np.ndarray | None) -> int:
    if array is None:
        return 0
    return put(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
