"""What a built net costs, layer by layer: shapes, parameters, work, memory, what its units see.

Work is counted as in `striate.arithmetic`: multiply-adds of convolutions and dense layers alone.
Memory is that of float32 numbers, of one picture. Nothing here needs a net's values: build it
inside `registry.without_values`.
"""

import csv
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any

from striate.arithmetic import widen
from striate.errors import UsageError
from striate.lazy import keras

Sight = tuple[int, Any, Any]  # size, jump, and start of the first unit's, along one axis
Field = tuple[Sight, ...] | None  # None: all of the input
Window = tuple[int, Any, int]  # kernel, stride, dilation along one axis

# Layers that only give their input another name, at least when they answer.
RENAME = {"Identity", "Flatten", "Reshape", "Dropout"}
# Layers that may write their output over their input, where nothing else reads that.
OVERWRITE = {"ReLU", "LeakyReLU", "PReLU", "ELU", "Activation", "Rescaling"}
OVERWRITE |= {"ScaledTanh", "StochasticDepth"}
# Layers each of whose outputs sees every place of the map; so do those that leave no map.
SEE_ALL = {"BaseGlobalPooling", "Reshape", "Permute", "GroupNormalization"}
# Layers that pad nothing at the beginning; of transposed ones that is not told.
PAD_THE_END = {"CeilPooling2D", "BaseConvTranspose"}
# Our own layers whose windows no attribute tells, along the last axes.
WINDOWS: dict[str, Callable[[Any], list[Window]]] = {
    "CircularConv2D": lambda layer: [(3, 1, 1)] * 2,
    "CircularChain2D": lambda layer: [(2 * layer.depth + 1, 1, 1)] * 2,
    "TrainableSubsampling": lambda layer: [(layer.size, layer.size, 1)] * 2,
    "HardwiredChannels": lambda layer: [(2, 1, 1), (7, 1, 1), (7, 1, 1)],
}
# Our own layers whose kernels do not work once at every place of the output: layer, input, output.
MACS: dict[str, Callable[[Any, Any, Any], int]] = {
    "LocallyConnected2D": lambda layer, x, y: prod(layer.kernel.shape),
    "SpatiallySeparableConv2D": lambda layer, x, y: (
        y.shape[1] * (prod(layer.column.shape) * x.shape[2] + prod(layer.row.shape) * y.shape[2])
    ),
}


@dataclasses.dataclass(frozen=True)
class LayerCosts:
    """One call of one layer.

    output: its shape without the pictures' axis. parameters: with the statistics of batch
    normalisation; of a layer that is called several times, at the first call. activations: numbers
    of its output, 0 where they are written over the input or are the input under another name.
    receptive_field: sides in input pixels of what one output can see, None for the whole input;
    jump: how many input pixels lie between two neighbours, start: where the field of the first one
    begins, below 0 in the padding; None where there are none.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    activations: int
    receptive_field: tuple[int, ...] | None
    jump: tuple[int | float, ...] | None
    start: tuple[int | float, ...] | None


@dataclasses.dataclass(frozen=True)
class Totals:
    """A whole net, for one picture.

    activations: all numbers that its layers make and that training keeps; live: the most of them
    that are needed at one moment of answering. receptive_field, jump: of the last map.
    """

    macs: int
    activations: int
    live: int
    receptive_field: tuple[int, ...] | None = None
    jump: tuple[int | float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Costs:
    """A whole net and its layers, in the order in which they run."""

    layers: tuple[LayerCosts, ...]
    live: int

    def totals(self, last_map: str = "") -> Totals:
        """The sums, and what a unit of the layer of that name sees."""
        seen = {row.name: (row.receptive_field, row.jump) for row in self.layers}
        return Totals(
            sum(row.macs for row in self.layers),
            sum(row.activations for row in self.layers),
            self.live,
            *seen.get(last_map, (None, None)),
        )


def count(model: Any) -> Costs:
    """The costs of a functional or Sequential Keras model, which needs no values.

    Raises `UsageError` for a model of another kind, with sides that are not known or with a model
    inside it.
    """
    calls = list(calls_of(model))
    overwritten = _overwritten(model, calls)
    fields: dict[int, Field] = {}
    stored: dict[int, int] = {}  # tensor -> the tensor whose memory it is in
    seen: set[int] = set()
    rows = []
    for layer, inputs, output in calls:
        field = fields[id(output)] = _field(layer, inputs, output, fields)
        shared = bool(_kinds(layer) & RENAME) or id(output) in overwritten
        stored[id(output)] = stored[id(inputs[0])] if shared else id(output)
        rows.append(
            LayerCosts(
                name=layer.name,
                kind=type(layer).__name__,
                output=tuple(output.shape[1:]),
                parameters=0 if id(layer) in seen else _parameters(layer),
                macs=_macs(layer, inputs, output),
                activations=0 if shared else prod(output.shape[1:]),
                receptive_field=None if field is None else tuple(size for size, _, _ in field),
                jump=None if field is None else tuple(_plain(jump) for _, jump, _ in field),
                start=None if field is None else tuple(_plain(start) for *_, start in field),
            )
        )
        seen.add(id(layer))
    return Costs(tuple(rows), _most_alive(model, calls, stored))


@cache
def shipped() -> Mapping[str, Totals]:
    """The totals of every registered net as the paper has it: `models/costs.csv`, without Keras."""
    path = Path(__file__).with_name("models") / "costs.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return {row.pop("name"): _totals(row) for row in csv.DictReader(file)}


def _totals(row: dict[str, str]) -> Totals:
    field, jump = (
        tuple(map(int, row[name].split("x"))) if row[name] else None
        for name in ("receptive_field", "jump")
    )
    return Totals(int(row["macs"]), int(row["activations"]), int(row["live"]), field, jump)


# === The graph ===


def calls_of(model) -> Iterator[tuple[Any, list, Any]]:
    """Every call of a layer, in the order in which Keras runs them: layer, inputs, output.

    `model.layers` names a layer that is called twice but once; only the nodes know the calls. The
    outputs of one call beyond its first are calls of a `Further`. Errors as of `count`.
    """
    nodes = _nodes_by_depth(model)
    for depth in sorted(nodes, reverse=True):
        for node in nodes[depth]:
            _check_call(model, node)
            first, *others = node.outputs
            yield node.operation, node.input_tensors, first
            for other in others:
                yield Further(node.operation.name), node.input_tensors, other


@dataclasses.dataclass(frozen=True, eq=False)
class Further:
    """Stands for a layer where it gives more than one output, all of its work at the first."""

    name: str


def _nodes_by_depth(model) -> Mapping[int, list]:
    is_chain = isinstance(model, keras.Sequential)
    graph: Any = getattr(model, "_functional", None) if is_chain else model
    if not hasattr(graph, "_nodes_by_depth"):
        raise UsageError(
            f"expected a functional or Sequential Keras model whose input has a shape, got "
            f"{getattr(model, 'name', model)!r:.60}, a {type(model).__name__}"
        )
    return graph._nodes_by_depth


def _check_call(model, node) -> None:
    if isinstance(node.operation, keras.Model):
        raise UsageError(
            f"{model.name}: expected layers alone, got the model {node.operation.name!r} inside "
            "it; look at that by itself, or at the artifact of striate.adopt, which lays it open"
        )
    for output in node.outputs:
        if None in output.shape[1:]:
            raise UsageError(
                f"{model.name}: expected an input of known sides, {node.operation.name!r} gives "
                f"{tuple(output.shape)}"
            )


def _kinds(layer) -> set[str]:
    return {kind.__name__ for kind in type(layer).__mro__}


def _sides(tensor) -> tuple[int, ...]:
    """The sides of a map [N, ..., channels]; () for a vector."""
    return tuple(tensor.shape[1:-1])


# === Parameters and work ===


def _parameters(layer) -> int:
    return sum(prod(weight.shape) for weight in getattr(layer, "weights", ()))


def _macs(layer, inputs, output) -> int:
    """Each weight of a kernel works once at every place of the output map.

    In a transposed convolution it is every place of the input.
    """
    if type(layer).__name__ in MACS:
        return MACS[type(layer).__name__](layer, inputs[0], output)
    weights = getattr(layer, "weights", ())
    kernels = sum(prod(w.shape) for w in weights if w.name.endswith("kernel"))
    swept = inputs[0] if kernels and "BaseConvTranspose" in _kinds(layer) else output
    return kernels * prod(_sides(swept))


# === What a unit sees ===


def _field(layer, inputs, output, fields: Mapping[int, Field]) -> Field:
    """The receptive field of a layer's outputs; where paths meet, the widest along each axis.

    Paths that are shifted against each other see together a little more than the wider one.
    """
    if not inputs:
        return tuple((1, 1, 0) for _ in _sides(output)) or None
    # A tensor without channels steers its layer and is no picture.
    read = [fields[id(x)] for x in inputs if len(x.shape) > 1]
    seen = [field for field in read if field is not None]
    windows = _windows(layer, inputs[0], output)
    if windows is None or len(seen) < len(read) or len({len(field) for field in seen}) != 1:
        return None
    befores = _padding_before(layer, inputs[0], output, windows)
    return tuple(
        _through(_widest(axis), window, before)
        for axis, window, before in zip(zip(*seen, strict=True), windows, befores, strict=True)
    )


def _widest(sights: Iterable[Sight]) -> Sight:
    """Where paths meet: the widest of them, and of those as wide the first in the input."""
    sights = list(sights)
    size, _, start = max(sights, key=lambda sight: (sight[0], -sight[2]))
    return size, max(jump for _, jump, _ in sights), start


def _through(sight: Sight, window: Window, before: int) -> Sight:
    """What is seen through one more window, whose layer pads so much before the map."""
    size, jump, start = sight
    return *widen(size, jump, *window), start - before * jump


def _padding_before(layer, x, y, windows: list[Window]) -> list[int]:
    """By how much a layer pads its input x at the beginning of each axis; below 0 where it crops.

    As much as its windows need for so large an output, the smaller half of it at the beginning.
    """
    kinds, rank = _kinds(layer), len(windows)
    for kind, sides, sign in (("ZeroPadding", "padding", 1), ("Cropping", "cropping", -1)):
        if type(layer).__name__.startswith(kind):
            each = getattr(layer, sides)
            each = each if isinstance(each[0], tuple) else (each,)
            return [0] * (rank - len(each)) + [sign * before for before, _ in each]
    if kinds & PAD_THE_END or len(_sides(y)) != rank:
        return [0] * rank
    return [
        max(0, (after - 1) * stride + (kernel - 1) * dilation + 1 - before) // 2
        if kernel > 1
        else 0
        for (kernel, stride, dilation), before, after in zip(
            windows, _sides(x), _sides(y), strict=True
        )
    ]


def _windows(layer, x, y) -> list[Window] | None:
    """What a layer sees of its input x along each axis; None where it is all."""
    kinds, name, rank = _kinds(layer), type(layer).__name__, len(_sides(x))
    if kinds & SEE_ALL or (rank and not _sides(y)):
        return None
    if name in WINDOWS:
        windows = WINDOWS[name](layer)
    elif "BaseConvTranspose" in kinds:
        steps = zip(layer.kernel_size, layer.strides, strict=True)
        windows = [(ceil(kernel / stride), Fraction(1, stride), 1) for kernel, stride in steps]
    elif name.startswith("Adaptive"):
        windows = [_part(*sides) for sides in zip(_sides(x), _sides(y), strict=True)]
    elif name.startswith("UpSampling"):
        windows = [(1, Fraction(1, factor), 1) for factor in layer.size]
    else:
        windows = _sliding(layer, rank)
    return [(1, 1, 1)] * (rank - len(windows)) + windows


def _part(side: int, parts: int) -> Window:
    """The widest of so many parts of a side, which may overlap, and how far they lie apart."""
    widest = max(-(-(i + 1) * side // parts) - i * side // parts for i in range(parts))
    return widest, Fraction(side, parts), 1


def _sliding(layer, rank: int) -> list[Window]:
    """The windows of a convolution or a pooling, by the attributes that such layers have."""
    stride = getattr(layer, "strides", getattr(layer, "stride", None))
    kernel = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if kernel is None and stride is not None:
        kernel = getattr(layer, "size", None)
    if kernel is None:
        return []
    dilation = getattr(layer, "dilation_rate", 1)
    each = (n if isinstance(n, tuple) else (n,) * rank for n in (kernel, stride or 1, dilation))
    return list(zip(*each, strict=True))


def _plain(jump):
    """A fraction as a whole number where it is one."""
    return int(jump) if jump == int(jump) else float(jump)


# === Memory ===


def _overwritten(model, calls) -> set[int]:
    """The outputs that can be written over their input: no other layer reads that by any name."""
    origin: dict[int, int] = {}
    readers = Counter(id(x) for x in model.outputs)
    for layer, inputs, output in calls:
        renames = bool(_kinds(layer) & RENAME)
        origin[id(output)] = origin[id(inputs[0])] if renames else id(output)
        if not renames:
            readers.update(origin[id(x)] for x in inputs)
    return {
        id(output)
        for layer, inputs, output in calls
        if _kinds(layer) & OVERWRITE and readers[origin[id(inputs[0])]] == 1
    }


def _most_alive(model, calls, stored: Mapping[int, int]) -> int:
    """The most numbers held at one moment, when each is let go after its last reader."""
    kept = {stored[id(x)] for x in model.outputs}
    waiting = Counter(stored[id(x)] for _, inputs, _ in calls for x in inputs)
    sizes: dict[int, int] = {}
    most = live = 0
    for _, inputs, output in calls:
        if stored[id(output)] == id(output):
            sizes[id(output)] = prod(output.shape[1:])
            live += sizes[id(output)]
            most = max(most, live)
        for x in inputs:
            waiting[stored[id(x)]] -= 1
            if not waiting[stored[id(x)]] and stored[id(x)] not in kept:
                live -= sizes[stored[id(x)]]
    return most
