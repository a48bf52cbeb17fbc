"""SparseNet. Zhu, Deng, Maire, Deng, Mori, Tan, "Sparsely Aggregated Convolutional Networks", 2018,
arXiv:1801.05895.

A layer of DenseNet sees all layers before it, and most of its weights look at what is long past.
Here it sees those at distances 1, 2, 4, 8 and so on: a few, and yet every two layers are near.

Stem, widths of transitions and counts are those of the authors' torch code (Lyken17/SparseNet).
"""

from striate.lazy import keras
from striate.models.blocks import bn_relu, conv, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family


def exponential(outputs: list, *, name: str):
    """The outputs at distances 1, 2, 4, 8, ... from the end, concatenated."""
    seen = [outputs[-(2**i)] for i in range(len(outputs).bit_length())]
    return keras.layers.Concatenate(name=f"{name}_concat")(seen) if len(seen) > 1 else seen[0]


def sparsenet(
    inputs,
    *,
    num_classes: int,
    depth: int,
    growth: int,
    bottleneck: bool,
    layers: int | None = None,
    dropout: float = 0.0,
):
    """Three blocks of layers that see a few of the layers before, transitions between the blocks.

    layers: of each block, by default what the depth leaves for it. dropout: before the classifier.
    """
    layers = layers or (depth - 4) // (6 if bottleneck else 3)
    x = conv(inputs, growth, 3, name="stem")
    for i in (1, 2, 3):
        outputs = [x]
        for j in range(1, layers + 1):
            name = f"stage{i}_block{j}"
            if bottleneck:
                x = conv(bn_relu(x, name=f"{name}_in"), 4 * growth, 1, name=f"{name}_in")
            x = conv(bn_relu(x, name=name), growth, 3, name=name)
            outputs.append(x)
            x = exponential(outputs, name=name)
        x = stage_out(x, i)
        if i < 3:
            name = f"stage{i}_block{layers + 1}_transition"
            width = x.shape[-1] // 2 if bottleneck else x.shape[-1]
            x = conv(bn_relu(x, name=name), width, 1, name=name)
            x = keras.layers.AveragePooling2D(2, name=f"stage{i}_pool")(x)
    x = bn_relu(x, name="top")
    return pool_and_classify(x, num_classes, dropout=dropout)


register_family(
    sparsenet,
    family="sparsenet",
    year=2018,
    paper="1801.05895",
    title="Sparsely Aggregated Convolutional Networks",
    input_shape=(32, 32, 3),
    classes=100,
    min_size=4,
    first_conv="stem_conv",
    cam_layer="top_relu",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    reduced={"layers": 5},
    variants={
        "sparsenet40_24_cifar": (
            {"depth": 40, "growth": 24, "bottleneck": False},
            {
                "trainable": 735_676,
                "total": 742_732,
                "accuracy": Accuracy("CIFAR-100", 75.35, "the authors' repository"),
            },
        ),
        "sparsenet100_36_cifar": (
            {"depth": 100, "growth": 36, "bottleneck": False},
            {
                "trainable": 5_574_520,
                "total": 5_609_296,
                "accuracy": Accuracy("CIFAR-100", 79.50, "the authors' repository"),
            },
        ),
        "sparsenet_bc100_24_cifar": (
            {"depth": 100, "growth": 24, "bottleneck": True},
            {
                "trainable": 1_448_716,
                "total": 1_467_148,
                "accuracy": Accuracy("CIFAR-100", 77.88, "the authors' repository"),
            },
        ),
    },
)
