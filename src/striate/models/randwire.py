"""Randomly wired networks. Xie, Kirillov, Girshick, He, "Exploring Randomly Wired Neural Networks
for Image Recognition", 2019, arXiv:1904.01569.

A classical random graph draws the wiring of each stage: its edges run from the lower to the higher
number, and every node sums what comes in, each input with a learnt weight, and convolves it. Nets
so drawn do as well as those that people designed.

The number of parameters depends on the graphs, and they on `seed`.
"""

import random
from collections.abc import Callable

from striate.errors import UsageError
from striate.lazy import keras
from striate.models.blocks import HE, batch_norm, conv_bn, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family

Edges = set[tuple[int, int]]


# === Random graphs of n nodes, as edges (lower, higher) ===


def watts_strogatz(n: int, dice: random.Random, k: int = 4, p: float = 0.75) -> Edges:
    """A ring whose nodes know their k nearest; each edge is rewired with probability p."""
    edges = {tuple(sorted((i, (i + d) % n))) for d in range(1, k // 2 + 1) for i in range(n)}
    for d in range(1, k // 2 + 1):
        for i in range(n):
            old = tuple(sorted((i, (i + d) % n)))
            free = [j for j in range(n) if j != i and tuple(sorted((i, j))) not in edges]
            if free and dice.random() < p:
                edges.discard(old)
                edges.add(tuple(sorted((i, dice.choice(free)))))
    return edges


def erdos_renyi(n: int, dice: random.Random, p: float = 0.2) -> Edges:
    """Every pair of nodes is joined with probability p."""
    return {(i, j) for i in range(n) for j in range(i + 1, n) if dice.random() < p}


def barabasi_albert(n: int, dice: random.Random, m: int = 5) -> Edges:
    """m nodes to begin with; each new one joins m others, the more easily the more edges they have.

    The first new node joins all of the first m.
    """
    edges = {(i, m) for i in range(m)}
    ends = [*range(m), *[m] * m]  # every node once for each of its edges
    for new in range(m + 1, n):
        friends: set[int] = set()
        while len(friends) < m:
            friends.add(dice.choice(ends))
        edges |= {(friend, new) for friend in friends}
        ends += [*sorted(friends), *[new] * m]
    return edges


GENERATORS: dict[str, tuple[Callable[..., Edges], int]] = {  # and the least number of nodes
    "WS": (watts_strogatz, 5),
    "ER": (erdos_renyi, 2),
    "BA": (barabasi_albert, 6),
}


def connected(n: int, edges: Edges) -> bool:
    """Whether every node can be reached from the first, whatever the direction of the edges."""
    reached, new = {0}, [0]
    while new:
        here = new.pop()
        for edge in edges:
            if here in edge:
                there = edge[0] + edge[1] - here
                if there not in reached:
                    reached.add(there)
                    new.append(there)
    return len(reached) == n


def draw(graph: str, n: int, dice: random.Random) -> Edges:
    """A connected random graph; unconnected ones are thrown away, as in the paper."""
    if graph not in GENERATORS:
        raise UsageError(f"randwire: expected graph {', '.join(GENERATORS)}, got {graph!r}")
    generator, least = GENERATORS[graph]
    if n < least:
        raise UsageError(f"randwire: expected at least {least} nodes for {graph}, got {n}")
    while True:
        edges = generator(n, dice)
        if connected(n, edges):
            return edges


# === The net ===


def node(inputs: list, width: int, *, stride: int, name: str):
    """Weighted sum, ReLU, separable 3x3 convolution, batch normalisation."""
    from striate.layers import WeightedSum

    x = WeightedSum(name=f"{name}_sum")(inputs) if len(inputs) > 1 else inputs[0]
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    if stride > 1:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = keras.layers.SeparableConv2D(
        width,
        3,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        depthwise_initializer=HE,
        pointwise_initializer=HE,
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, name=name)


def wired_stage(x, width: int, *, nodes: int, edges: Edges, name: str):
    """Nodes without inputs see x at half its resolution; the mean of those without outputs."""
    outputs: list = []
    for n in range(nodes):
        sources = sorted(a for a, b in edges if b == n)
        seen = [outputs[source] for source in sources] or [x]
        stride = 1 if sources else 2
        outputs.append(node(seen, width, stride=stride, name=f"{name}_block{n + 1}"))
    used = {a for a, _ in edges}
    ends = [output for n, output in enumerate(outputs) if n not in used]
    if len(ends) == 1:
        return ends[0]
    return keras.layers.Average(name=f"{name}_block{nodes + 1}_mean")(ends)


def randwire(
    inputs,
    *,
    num_classes: int,
    channels: int,
    regular: bool,
    graph: str = "WS",
    seed: int = 0,
    nodes: int = 32,
    dropout: float = 0.0,
):
    """Two strided convolutions, or one and a stage of half the nodes; three stages; 1280 channels.

    graph: WS (Watts and Strogatz, 4 neighbours, 0.75), ER (Erdos and Renyi, 0.2) or BA (Barabasi
    and Albert, 5); seed: of its dice; nodes: of a stage. dropout: before the classifier.
    """
    dice = random.Random(seed)
    x = conv_bn(inputs, channels // 2, 3, stride=2, relu=False, name="stem")
    if regular:
        plan = [(nodes // 2, 1), (nodes, 2), (nodes, 4), (nodes, 8)]
    else:
        x = keras.layers.ReLU(name="stem_2_in")(x)
        x = conv_bn(x, channels, 3, stride=2, relu=False, name="stem_2")
        plan = [(nodes, 1), (nodes, 2), (nodes, 4)]
    for i, (count, factor) in enumerate(plan, start=1):
        edges = draw(graph, count, dice)
        x = wired_stage(x, factor * channels, nodes=count, edges=edges, name=f"stage{i}")
        x = stage_out(x, i)
    x = keras.layers.ReLU(name="top_in")(x)
    x = conv_bn(x, 1280, 1, name="top")
    return pool_and_classify(x, num_classes, dropout=dropout)


register_family(
    randwire,
    family="randwire",
    year=2019,
    paper="1904.01569",
    title="Exploring Randomly Wired Neural Networks for Image Recognition",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="top_relu",
    preprocess="torch",
    reduced={"nodes": 12},
    exceptions={"count": "depends on the random graphs; ours are of seed 0"},
    variants={
        "randwire_ws_small": (
            {"channels": 78, "regular": False},
            {
                "trainable": 5_640_454,
                "total": 5_678_192,
                "pyramid": ("stage1_out", "stage2_out", "stage3_out"),
                "accuracy": Accuracy("ImageNet", 74.7, "the paper, Table 2"),
                "differs": "counted for the graphs of seed 0; the paper's have 5.6 M",
            },
        ),
        "randwire_ws_regular": (
            {"channels": 109, "regular": True},
            {
                "trainable": 32_822_332,
                "total": 32_926_152,
                "pyramid": ("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
                "accuracy": Accuracy("ImageNet", 79.0, "the paper, Table 3"),
                "differs": "counted for the graphs of seed 0; the paper's have 31.9 M",
            },
        ),
    },
)
