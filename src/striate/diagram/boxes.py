"""From a net's graph to the blocks that a picture of it shows, and the steps inside each.

A block is told by the names of its layers: `stem_*`, `stage{i}_block{j}_*`, `stage{i}_pool`. Layers
without a choice of their own (normalisation, activation, padding) are no steps.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from striate.costs import calls_of

# The block that a layer belongs to, by its name; the second takes the stem apart.
BLOCK = re.compile(r"stage\d+_(block\d+|pool)|stem|logits")
PARTS = re.compile(r"stage\d+_(block\d+|pool)|stem_\d+|stem|logits")
MANY = 16  # steps of a stem that is better shown in parts
MANY_PATHS = 12  # that begin a block; of more only the steps are told
LONG, CROWDED = 8, 120  # blocks in a row, and steps in all, beyond which equal blocks are one

TIMES = "\N{MULTIPLICATION SIGN}"
MERGES = {"Add": "+", "Subtract": "\N{MINUS SIGN}", "Multiply": TIMES, "Concatenate": "concat"}
MERGES |= {"Average": "mean", "FractalJoin": "join", "WeightedSum": "weighted +"}
MERGES |= {"ShakeShake": "shake", "HighwayGate": "gate"}
NAMES = {"BatchNormalization": "BN", "LocalResponseNormalization": "LRN", "Dropout": "dropout"}
UNNAMED = re.compile(
    r"InputLayer|Identity|ZeroPadding|Cropping|Flatten|Reshape|Permute|Slice|Draw|Further"
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that a block does: a convolution, a pooling, a join of paths.

    kind: conv, point (1x1), depth, dense, pool, merge or other. sources: the numbers of the steps
    of the block whose output it reads, -1 for the block's input. output: its shape, without the
    pictures' axis. times: one after the other.
    """

    label: str
    kind: str
    sources: tuple[int, ...]
    output: tuple[int, ...] = dataclasses.field(compare=False)
    times: int = 1


@dataclasses.dataclass(frozen=True)
class Box:
    """A block, or `count` equal ones in a row.

    quiet: what it does besides its steps. outputs: the shapes that the first and the last of them
    give. parameters: that train, of all of them. reads: the boxes whose output it takes, the
    nearest first; back: how many boxes before it each of them stands.
    """

    name: str
    last_name: str
    steps: tuple[Step, ...]
    quiet: tuple[str, ...]
    outputs: tuple[tuple[int, ...], tuple[int, ...]]
    parameters: int
    reads: tuple[str, ...]
    back: tuple[int, ...]
    count: int = 1

    @property
    def row(self) -> str:
        """The row of the picture that it stands in: the input, the stem, a stage, or the head."""
        found = re.match(r"input|stem|stage\d+", self.name)
        return found[0] if found else "head"

    @property
    def looks(self) -> tuple:
        """What is equal in boxes that can be drawn as one."""
        return (self.row, self.steps, self.quiet, self.outputs[0][:-1], self.back)


# === From the graph to boxes ===


def boxes(model: Any) -> list[Box]:
    """The blocks of a Keras model in order; where many in a row are equal, one each."""
    # What has no channels steers a layer and is no part of the picture.
    calls = [
        (layer, [x for x in inputs if len(x.shape) > 1], output)
        for layer, inputs, output in calls_of(model)
        if len(output.shape) > 1
    ]
    grouped = _grouped(calls, BLOCK)
    if len(_steps(grouped.get("stem", []))) > MANY:
        grouped = _grouped(calls, PARTS)
    found = _boxes(grouped)
    longest = max(Counter(box.row for box in found).values())
    crowded = sum(len(box.steps) for box in found) > CROWDED
    return _folded(found) if longest > LONG or crowded else found


def _grouped(calls, block: re.Pattern) -> dict[str, list]:
    """The calls of each block. What does no step of its own belongs to the block before it."""
    names = [found[0] if (found := block.match(layer.name)) else "" for layer, _, _ in calls]
    busy = {
        name for name, (layer, _, y) in zip(names, calls, strict=True) if name and _label(layer, y)
    }
    groups: dict[str, list] = {}
    home: dict[int, str] = {}
    for name, (layer, inputs, output) in zip(names, calls, strict=True):
        before = home[id(inputs[0])] if inputs else ""
        if name not in busy and not _label(layer, output) and before not in ("", "input"):
            name = before
        home[id(output)] = name = name or layer.name
        groups.setdefault(name, []).append((layer, inputs, output))
    return {name: groups[name] for name in _in_order(list(groups))}


def _in_order(names: list[str]) -> list[str]:
    """The blocks of a stage by their numbers; Keras may have those that lie side by side mixed."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        stage, block, _ = name.partition("_block")
        if block:
            places.setdefault(stage, []).append(i)
    ordered = list(names)
    for of_stage in places.values():
        blocks = sorted((names[i] for i in of_stage), key=lambda name: int(name.split("_block")[1]))
        for i, name in zip(of_stage, blocks, strict=True):
            ordered[i] = name
    return ordered


def _boxes(grouped: Mapping[str, Sequence]) -> list[Box]:
    names = list(grouped)
    number = {name: i for i, name in enumerate(names)}
    home = {id(y): number[name] for name, calls in grouped.items() for _, _, y in calls}
    counted: set[int] = set()
    found = []
    for i, (name, calls) in enumerate(grouped.items()):
        layers = {id(layer): layer for layer, _, _ in calls if id(layer) not in counted}
        counted |= layers.keys()
        read = {home[id(x)] for _, inputs, _ in calls for x in inputs} - {i}
        before = sorted(read, reverse=True)
        steps = _steps(calls)
        output = _output(steps) or tuple(calls[-1][2].shape[1:])
        found.append(
            Box(
                name=name,
                last_name=name,
                steps=steps,
                quiet=_quiet(calls),
                outputs=(output, output),
                parameters=sum(
                    prod(weight.shape)
                    for layer in layers.values()  # or functions of keras.ops, which have no weights
                    for weight in getattr(layer, "trainable_weights", ())
                ),
                reads=tuple(names[j] for j in before),
                back=tuple(i - j for j in before),
            )
        )
    return found


def _output(steps: Sequence[Step]) -> tuple[int, ...]:
    """The largest of the shapes that a block gives to others."""
    read = {i for step in steps for i in step.sources}
    given = [step.output for i, step in enumerate(steps) if i not in read]
    return max(given, key=prod, default=())


def _folded(found: Sequence[Box]) -> list[Box]:
    """Equal neighbours as one box."""
    folded = []
    for _, equal in itertools.groupby(found, key=lambda box: box.looks):
        run = list(equal)
        folded.append(
            dataclasses.replace(
                run[0],
                last_name=run[-1].name,
                outputs=(run[0].outputs[0], run[-1].outputs[1]),
                parameters=sum(box.parameters for box in run),
                count=len(run),
            )
        )
    return folded


def _steps(calls) -> tuple[Step, ...]:
    """The steps of a block, with the silent layers between them left out."""
    steps: list[Step] = []
    sources: dict[int, list[int]] = {}  # tensor -> the steps that it comes from
    for layer, inputs, output in calls:
        read = [i for x in inputs for i in sources.get(id(x), [-1])]
        sources[id(output)] = read = list(dict.fromkeys(read))
        told = _label(layer, output)
        shape = tuple(output.shape[1:])
        if told:
            sources[id(output)] = [len(steps)]
            steps.append(Step(*told, tuple(read), shape))
        elif len(read) == 1 and read[0] >= 0 and len(shape) > 1:  # as a crop leaves it
            steps[read[0]] = dataclasses.replace(steps[read[0]], output=shape)
    return _renumbered(_repeated(steps))


def _repeated(steps: Sequence[Step]) -> dict[int, Step]:
    """Without the steps that only do once more what the step before them did."""
    readers = Counter(i for step in steps for i in step.sources)
    kept: dict[int, Step] = {}
    place = {-1: -1}
    for i, step in enumerate(steps):
        j = place[step.sources[0]]
        alone = len(step.sources) == 1 and readers[step.sources[0]] == 1
        if alone and j >= 0 and (kept[j].label, kept[j].kind) == (step.label, step.kind):
            place[i] = j
            kept[j] = dataclasses.replace(kept[j], times=kept[j].times + 1, output=step.output)
        else:
            place[i] = i
            kept[i] = dataclasses.replace(step, sources=tuple(place[s] for s in step.sources))
    return kept


def _renumbered(steps: Mapping[int, Step]) -> tuple[Step, ...]:
    """Path after path, in the order in which they are joined; Keras has them layer by layer.

    Of too many paths to draw only the kinds of their steps are left, which read nothing.
    """
    order: dict[int, int] = {-1: -1}

    def visit(i: int) -> None:
        if i not in order:
            for source in steps[i].sources:
                visit(source)
            order[i] = len(order) - 1

    read = {j for step in steps.values() for j in step.sources}
    for i in steps:
        if i not in read:
            visit(i)
    moved = sorted(steps, key=order.__getitem__)
    if sum(steps[i].sources == (-1,) for i in moved) > MANY_PATHS:
        counts = Counter(
            (steps[i].label, steps[i].kind) for i in moved for _ in range(steps[i].times)
        )
        last = steps[moved[-1]].output
        return tuple(Step(*told, (), last, times) for told, times in counts.items())
    return tuple(
        dataclasses.replace(steps[i], sources=tuple(order[j] for j in steps[i].sources))
        for i in moved
    )


def _quiet(calls) -> tuple[str, ...]:
    """The layers that are no steps, each kind once."""
    names = []
    for layer, _, output in calls:
        kind = type(layer).__name__
        if _label(layer, output) or UNNAMED.match(kind) or "_se_" in layer.name:
            continue
        activation = getattr(getattr(layer, "activation", None), "__name__", "")
        name = (
            activation.replace("relu", "ReLU")
            or NAMES.get(kind)
            or (kind if kind.endswith("LU") else _words(kind))
        )
        names.append(name)
    return tuple(dict.fromkeys(names))


def _label(layer, output) -> tuple[str, str] | None:
    """(words, kind) of a layer that is drawn; None for one that is not."""
    kind, filters = type(layer).__name__, output.shape[-1]
    if "_se_" in layer.name:  # squeeze and excitation: one step of four layers
        return ("squeeze, excite", "other") if kind == "Multiply" else None
    if kind in MERGES:
        return MERGES[kind], "merge"
    if kind.startswith("Global"):
        return f"global {'mean' if 'Average' in kind else 'max'}", "pool"
    if hasattr(layer, "pool_size"):
        return f"{'mean' if 'Average' in kind else 'max'} {_window(layer, 'pool_size')}", "pool"
    if kind == "Dense":
        return f"dense {filters:,}", "dense"
    if kind == "DepthwiseConv2D":
        return f"depthwise {_window(layer)}", "depth"
    if hasattr(layer, "kernel_size") and hasattr(layer, "strides"):
        word = {"SeparableConv2D": "sep ", "DiracConv2D": "Dirac "}.get(kind, "")
        word = "up " if "Transpose" in kind else word
        groups = f" in {layer.groups} groups" if getattr(layer, "groups", 1) > 1 else ""
        point = set(_tuple(layer.kernel_size)) == {1} and not word
        drawn = "depth" if kind == "SeparableConv2D" else "point" if point else "conv"
        return f"{word}{_window(layer)}, {filters}{groups}", drawn
    if kind.endswith(("Normalization", "LU")) or not getattr(layer, "weights", ()):
        return None
    return f"{_words(kind)}, {filters}", "pool" if "Pool" in kind or "Sub" in kind else "conv"


def _window(layer, attribute: str = "kernel_size") -> str:
    """3x3/2 for a window of 3 and a stride of 2; the dilation where there is one."""
    kernel, strides = _tuple(getattr(layer, attribute)), _tuple(layer.strides)
    kernel = kernel * 2 if len(kernel) == 1 else kernel
    stride = f"/{max(strides)}" if max(strides) > 1 else ""
    dilation = max(_tuple(getattr(layer, "dilation_rate", 1)))
    return TIMES.join(map(str, kernel)) + stride + (f" every {dilation}" if dilation > 1 else "")


def _tuple(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _words(kind: str) -> str:
    """LearnedGroupConv -> learned group conv."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.removesuffix("2D")).lower()
