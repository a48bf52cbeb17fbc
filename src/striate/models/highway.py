"""Highway networks. Srivastava, Greff, Schmidhuber, "Highway Networks", 2015, arXiv:1505.00387, and
"Training Very Deep Networks", 2015, arXiv:1507.06228.

A layer learns with a gate T how much of it to use: H(x) T(x) + x (1 - T(x)). The gates start nearly
closed, so that the signal passes through many layers unchanged and learning can begin.

The nets are those of the authors' repository.
"""

from striate.lazy import keras
from striate.models.blocks import drop, logits, max_pool, stage_out
from striate.registry import Accuracy, register_family


def conv_relu(x, filters: int, kernel: int, *, padding: str = "same", name: str):
    """A plain convolution, which may change the number of channels."""
    x = keras.layers.Conv2D(filters, kernel, padding=padding, name=f"{name}_conv")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def highway_layer(x, *, gate_bias: float, name: str):
    """H(x) T(x) + x (1 - T(x)), H and T convolutions of 3x3."""
    filters = x.shape[-1]
    h = conv_relu(x, filters, 3, name=name)
    t = keras.layers.Conv2D(
        filters,
        3,
        padding="same",
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(gate_bias),
        name=f"{name}_gate",
    )(x)
    # x + T (H - x) is the same with one product less.
    change = keras.layers.Subtract(name=f"{name}_change")([h, x])
    change = keras.layers.Multiply(name=f"{name}_let_through")([t, change])
    return keras.layers.Add(name=f"{name}_add")([x, change])


def highway_cifar(
    inputs,
    *,
    num_classes: int,
    gate_bias: float = -2.0,
    widths: tuple[int, int, int] = (32, 80, 128),
    dropout: float = 0.2,
):
    """Three stages: a plain convolution, then four or five highway layers of its width.

    gate_bias: of the gates at the start. widths: of the stages. dropout: of the input and after
    every stage.
    """
    x = drop(inputs, dropout, name="stem")
    for i, (width, layers) in enumerate(zip(widths, (4, 5, 5), strict=True), start=1):
        x = conv_relu(x, width, 3, name="stem" if i == 1 else f"stage{i}_block1")
        for j in range(2, layers + 2):
            x = highway_layer(x, gate_bias=gate_bias, name=f"stage{i}_block{j}")
        x = stage_out(x, i)
        if i < 3:
            x = max_pool(x, 2, stride=2, name=f"stage{i}_pool")
            x = drop(x, dropout, name=f"stage{i}_block{layers + 1}")
    x = conv_relu(x, 100, 1, name="top")
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return logits(x, num_classes, dropout=dropout)


def highway_mnist(
    inputs, *, num_classes: int, gate_bias: float = -1.0, width: int = 32, dropout: float = 1.0
):
    """A plain 5x5 convolution and three stages of two or three highway layers.

    gate_bias: of the gates at the start. width: of all layers. dropout: times the rates of the
    authors, which grow from 0.2 at the input to 0.5 before the classifier.
    """
    x = drop(inputs, 0.2 * dropout, name="stem")
    x = conv_relu(x, width, 5, padding="valid", name="stem")
    for i, (layers, rate) in enumerate(((2, 0.3), (3, 0.4), (3, 0.0)), start=1):
        for j in range(1, layers + 1):
            x = highway_layer(x, gate_bias=gate_bias, name=f"stage{i}_block{j}")
        x = stage_out(x, i)
        x = max_pool(x, 3 if i < 3 else 2, stride=2, ceil_mode=True, name=f"stage{i}_pool")
        x = drop(x, rate * dropout, name=f"stage{i}_block{layers}")
    x = keras.layers.Flatten(name="features")(x)
    return logits(x, num_classes, dropout=0.5 * dropout)


PAPER = {
    "family": "highway",
    "year": 2015,
    "first_conv": "stem_conv",
    "pyramid": ("stage1_out", "stage2_out", "stage3_out"),
    "preprocess": "unit",
}

register_family(
    highway_mnist,
    **PAPER,
    paper="1505.00387",
    title="Highway Networks",
    input_shape=(28, 28, 1),
    classes=10,
    min_size=14,
    cam_layer="stage3_out",
    variants={"highway10_mnist": ({}, {"trainable": 151_690, "total": 151_690})},
)

register_family(
    highway_cifar,
    **PAPER,
    paper="1507.06228",
    title="Training Very Deep Networks",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=4,
    cam_layer="top_relu",
    variants={
        "highway19_cifar": (
            {},
            {
                "trainable": 2_256_838,
                "total": 2_256_838,
                "accuracy": Accuracy("CIFAR-10", 92.28, "the paper, 19 layers"),
            },
        )
    },
)
