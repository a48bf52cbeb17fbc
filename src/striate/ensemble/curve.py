"""A curve of low loss between two trained nets, and the straight line that crosses a barrier.

Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode Connectivity, and Fast
Ensembling of DNNs", 2018, arXiv:1802.10026. With the ends w1, w2 and one bend b, all weights of the
net, t from 0 to 1:

    bezier   (1 - t)^2 w1 + 2 t (1 - t) b + t^2 w2
    chain    2 (t b + (1/2 - t) w1) to t = 1/2, then 2 ((t - 1/2) w2 + (1 - t) b)

The bend begins in the middle of the straight line and follows the gradient of the expected loss at
t ~ U(0, 1), one t a batch.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from striate.artifact import Source
from striate.data import Dataset, Examples
from striate.ensemble.members import open_members
from striate.ensemble.statistics import measure_statistics
from striate.ensemble.weights import check_same_net, learnt_from
from striate.errors import UsageError, check_whole, did_you_mean
from striate.files import whole
from striate.lazy import keras
from striate.train import judge
from striate.train.build import own_randomness
from striate.train.checkpoint import arrays_of, assign
from striate.train.graphs import jit, logits_of, prediction_graph
from striate.train.optimize import cross_entropy


def line(t: Any) -> tuple[Any, Any, Any]:
    """The shares of (w1, bend, w2) at t on the straight line."""
    return 1 - t, 0.0 * t, t


def bezier(t: Any) -> tuple[Any, Any, Any]:
    """Those of the quadratic Bezier curve."""
    return (1 - t) ** 2, 2 * t * (1 - t), t**2


def chain(t: Any) -> tuple[Any, Any, Any]:
    """Those of the polygonal chain with one bend; for keras.ops too."""
    first = 0.5 * (abs(1 - 2 * t) + (1 - 2 * t))
    second = 0.5 * (abs(2 * t - 1) + (2 * t - 1))
    return first, 1 - first - second, second


KINDS: dict[str, Callable[[Any], tuple[Any, Any, Any]]] = {"bezier": bezier, "chain": chain}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """What lies between two nets.

    kind: of `KINDS`; t: float [points], 0 to 1; ends: (path, path).
    line, curve: of the straight line and of the curve, each name -> float [points]: `train_loss`,
    `train_accuracy` and, where pictures were held out, `val_loss` and `val_accuracy`.
    bend: the trained weights, one array a trainable variable of the net.
    """

    kind: str
    ends: tuple[str, str]
    t: np.ndarray
    line: dict[str, np.ndarray]
    curve: dict[str, np.ndarray]
    bend: list[np.ndarray]

    def __repr__(self) -> str:
        """In a line: what stands between the nets on both ways."""
        line, curve = self.barrier(self.line), self.barrier(self.curve)
        return f"<Curve {self.kind}, {len(self.t)} points: barrier {line:.4f} -> {curve:.4f} nats>"

    def barrier(self, way: dict[str, np.ndarray]) -> float:
        """How far the training loss along a way rises above the worse of its ends, in nats."""
        loss = way["train_loss"]
        return float(loss.max() - max(loss[0], loss[-1]))

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON holds them; the bend is left out."""
        ways = {"line": self.line, "curve": self.curve}
        return {
            "kind": self.kind,
            "ends": list(self.ends),
            "t": self.t.tolist(),
            **{name: {k: v.tolist() for k, v in way.items()} for name, way in ways.items()},
            "barrier": {name: self.barrier(way) for name, way in ways.items()},
        }

    def draw(self, path: Path) -> Path:
        """Write loss and accuracy along both ways as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for way, values, colour in (
                ("straight line", self.line, "C3"),
                (self.kind, self.curve, "C0"),
            ):
                for split, style in (("train", "-"), ("val", "--")):
                    if f"{split}_{what}" in values:
                        found = values[f"{split}_{what}"]
                        label = f"{way}, {'training' if split == 'train' else 'held out'}"
                        axes.plot(self.t, found, style, color=colour, label=label)
            axes.set(xlabel="t", ylabel=what, xlim=(0, 1))
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
        )
        with whole(path) as fresh:
            figure.savefig(fresh, dpi=120)
        return path


@own_randomness()
def connect(
    first: Source,
    second: Source,
    data: str | os.PathLike | Dataset,
    *,
    kind: str = "bezier",
    epochs: int = 30,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    batch_size: int = 64,
    points: int = 21,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Curve:
    """Train a curve between two artifacts of one net, and measure it beside the straight line.

    data: what both were trained on, split as the first was: its training pictures are learnt from,
    what it held out is only measured. kind: `bezier` or `chain`. learning_rate: of SGD, down half a
    cosine to 0. points: values of t that are measured; at each, batch normalisation gets its
    statistics anew. on_progress: called with (epochs and points done, all of them).

    Raises `UsageError` where the two cannot be compared weight by weight.
    """
    if kind not in KINDS:
        raise UsageError(
            f"expected a curve out of {', '.join(KINDS)}, got {kind!r}.{did_you_mean(kind, KINDS)}"
        )
    check_whole("points", points, 3)
    check_whole("epochs", epochs)
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed)
    if not isinstance(learning_rate, Real) or not 0 < learning_rate < math.inf:
        raise UsageError(f"expected a learning rate above 0, got {learning_rate!r}")
    if not isinstance(momentum, Real) or not 0 <= momentum < 1:
        raise UsageError(f"expected a momentum from 0 to less than 1, got {momentum!r}")
    members = open_members([first, second])
    check_same_net(members)
    keras.utils.set_random_seed(seed)
    net = members[0].model
    variables = net.trainable_variables
    train, held_out = learnt_from(members[0], data)
    ends = [arrays_of(member.model.trainable_variables) for member in members]
    total = epochs + 2 * points
    bend = _train_bend(
        net,
        ends,
        train,
        KINDS[kind],
        rate=(learning_rate, momentum),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        on_epoch=lambda done: on_progress(done, total),
    )
    graph = prediction_graph(net, train.preprocess)
    t = np.linspace(0, 1, points)
    found: dict[str, list[dict[str, float]]] = {"line": [], "curve": []}
    for name, shares in (("line", line), ("curve", KINDS[kind])):
        for at in t:
            assign(variables, _between(shares(at), ends, bend))
            found[name].append(_measured(net, graph, train, held_out))
            on_progress(epochs + sum(map(len, found.values())), total)
    line_rows, curve_rows = (
        {key: np.array([row[key] for row in rows]) for key in rows[0]} for rows in found.values()
    )
    paths = (str(members[0].path), str(members[1].path))
    return Curve(kind, paths, t, line_rows, curve_rows, bend)


def _between(shares: Any, ends: list[list[Any]], bend: list[Any]) -> list[Any]:
    """The weights at a point of a curve."""
    a, b, c = shares
    return [a * x + b * y + c * z for x, y, z in zip(ends[0], bend, ends[1], strict=True)]


def _measured(net: Any, graph: Any, train: Examples, held_out: Examples | None) -> dict[str, float]:
    """Loss and accuracy of a net by its prediction graph, its statistics measured anew."""
    measure_statistics(net, train)
    found = {}
    for name, examples in (("train", train), ("val", held_out)):
        if examples is not None:
            logits = logits_of(graph, examples, 256)
            found[f"{name}_loss"] = judge.cross_entropy(logits, examples.labels)
            found[f"{name}_accuracy"] = judge.accuracy(logits, examples.labels)
    return found


def _train_bend(
    net: Any,
    ends: list[list[np.ndarray]],
    train: Examples,
    shares: Callable[[Any], tuple[Any, Any, Any]],
    *,
    rate: tuple[float, float],
    epochs: int,
    batch_size: int,
    seed: int,
    on_epoch: Callable[[int], None],
) -> list[np.ndarray]:
    """The bend after its training, as arrays."""
    curve = _bent(net, ends, train.preprocess.layer(), shares, seed)
    size = min(batch_size, len(train))
    steps = max(1, len(train) // size)
    schedule = keras.optimizers.schedules.CosineDecay(rate[0], max(1, epochs * steps))
    curve.compile(
        optimizer=keras.optimizers.SGD(schedule, momentum=rate[1], nesterov=True),
        loss=cross_entropy(0.0),
        jit_compile=jit(),
    )
    random = np.random.default_rng(seed)
    for epoch in range(epochs):
        order = random.permutation(len(train))[: steps * size].reshape(steps, size)
        curve.fit(train.stream(order), steps_per_epoch=steps, shuffle=False, verbose=0)
        on_epoch(epoch + 1)
    return arrays_of(curve.bend)


def _bent(
    net: Any, ends: list[list[np.ndarray]], normalise: Any, shares: Callable, seed: int
) -> Any:
    """The Keras model whose trainable weights are the bend; pixels -> logits at a random t."""
    variables, others = net.trainable_variables, net.non_trainable_variables
    for variable in variables:
        variable.trainable = False  # not the layers: their batch normalisation would stand still

    class Bent(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.normalise = net, normalise
            self.random = keras.random.SeedGenerator(seed)
            self.bend = [self.add_weight(shape=a.shape, name="bend") for a in ends[0]]
            assign(self.bend, [(a + b) / 2 for a, b in zip(*ends, strict=True)])

        def call(self, images: Any, training: bool | None = None) -> Any:
            t = keras.random.uniform((), seed=self.random)
            weights = _between(shares(t), ends, self.bend)
            mapping = [*zip(variables, weights, strict=True)]
            mapping += [(other, keras.ops.convert_to_tensor(other)) for other in others]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                logits = self.net(self.normalise(images), training=training)
            for other in others:  # what a step changes, such as the state of a dropout
                other.assign(scope.get_current_value(other))
            return logits

    return Bent()
