"""AlexNet and its successor ZFNet: five convolutions, three dense layers, ReLU, dropout.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
2012. Cut in two to fit two graphics cards: the second, fourth and fifth convolution see only the
maps of their own card (two groups). Local response normalisation, then pooling that overlaps.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014,
arXiv:1404.5997. One column, with the widths of torchvision.

Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", 2013, arXiv:1311.2901.
Pictures of what the first layers see led to a smaller first kernel and stride.

Differs from the papers: at sizes other than the paper's the last map is averaged to 6 x 6, so that
the dense layers stay the same. `alexnet` takes 227 pixels, since 224 do not give the paper's 55.
`alexnet_single`, as in torchvision: no local response normalisation, dropout before the hidden
dense layers instead of after them, 224 pixels padded by 2. `zfnet` normalises with AlexNet's
constants; the paper gives none.
"""

from striate.lazy import keras
from striate.models import pytorchcv, torchvision
from striate.models.blocks import (
    HE,
    adaptive_average_pool,
    conv,
    drop,
    logits,
    max_pool,
    stage_out,
)
from striate.registry import Accuracy, register_family


def lrn(x, *, alpha: float = 1e-4, name: str):
    """Local response normalisation with the constants of AlexNet."""
    from striate.layers import LocalResponseNormalization

    return LocalResponseNormalization(size=5, alpha=alpha, beta=0.75, k=2.0, name=f"{name}_lrn")(x)


def normal(start: float = 0.0) -> dict:
    """The paper's start: kernels of deviation 0.01, biases of 0 or 1."""
    return {
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01),
        "bias_initializer": keras.initializers.Constant(start),
    }


def dense_layers(x, num_classes: int, *, fc_units: int, dropout: float):
    """A 6 x 6 map, two dense layers with dropout after each, and the classifier."""
    x = adaptive_average_pool(x, 6, name="adaptive_pool")
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(fc_units, name="fc1", **normal(1.0))(x)
    x = keras.layers.ReLU(name="fc1_relu")(x)
    x = drop(x, dropout, name="fc1")
    x = keras.layers.Dense(fc_units, name="fc2", **normal(1.0))(x)
    x = keras.layers.ReLU(name="features")(x)
    return logits(x, num_classes, dropout=dropout, **normal())


def conv_relu(
    x, filters: int, kernel: int, *, groups: int = 1, start: float = 0.0, name: str, **at
):
    """A convolution that starts as the paper's do, and ReLU."""
    x = keras.layers.Conv2D(
        filters, kernel, groups=groups, name=f"{name}_conv", **normal(start), **at
    )(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def alexnet(
    inputs,
    *,
    num_classes: int,
    groups: int,
    fc_units: int = 4096,
    dropout: float = 0.5,
    lrn_alpha: float = 1e-4,
):
    """CONV1 to FC8 of the paper; `groups` of the second, fourth and fifth convolution.

    fc_units: width of the two hidden dense layers; dropout: after each of them. lrn_alpha: of the
    local response normalisation, which sums over its five channels; torch and Caffe average.
    """
    x = conv_relu(inputs, 96, 11, strides=4, name="stem")
    x = lrn(x, alpha=lrn_alpha, name="stem")
    x = max_pool(x, 3, stride=2, name="stem_pool")
    same = {"padding": "same"}
    x = conv_relu(x, 256, 5, groups=groups, start=1.0, name="stage1_block1", **same)
    x = stage_out(x, 1)
    x = lrn(x, alpha=lrn_alpha, name="stage1_block1")
    x = max_pool(x, 3, stride=2, name="stage1_pool")
    x = conv_relu(x, 384, 3, name="stage2_block1", **same)
    x = conv_relu(x, 384, 3, groups=groups, start=1.0, name="stage2_block2", **same)
    x = conv_relu(x, 256, 3, groups=groups, start=1.0, name="stage2_block3", **same)
    x = stage_out(x, 2)
    x = max_pool(x, 3, stride=2, name="stage2_pool")
    return dense_layers(x, num_classes, fc_units=fc_units, dropout=dropout)


def zfnet(
    inputs,
    *,
    num_classes: int,
    fc_units: int = 4096,
    dropout: float = 0.5,
    lrn_alpha: float = 1e-4,
    lrn_first: bool = False,
):
    """The layers of Figure 3; pooling before normalisation, windows that overhang count.

    fc_units: width of the two hidden dense layers; dropout: after each of them. lrn_alpha: of the
    local response normalisation, as for `alexnet`; lrn_first: it comes before the pooling.
    """

    def pooled(x, *, name: str, pool: str):
        if lrn_first:
            x = lrn(x, alpha=lrn_alpha, name=name)
        x = max_pool(x, 3, stride=2, ceil_mode=True, name=pool)
        return x if lrn_first else lrn(x, alpha=lrn_alpha, name=name)

    x = keras.layers.ZeroPadding2D(1, name="stem_pad")(inputs)
    x = conv_relu(x, 96, 7, strides=2, name="stem")
    x = pooled(x, name="stem", pool="stem_pool")
    x = conv_relu(x, 256, 5, strides=2, name="stage1_block1")
    x = stage_out(x, 1)
    x = pooled(x, name="stage1_block1", pool="stage1_pool")
    for j, width in enumerate((384, 384, 256), start=1):
        x = conv_relu(x, width, 3, padding="same", name=f"stage2_block{j}")
    x = stage_out(x, 2)
    x = max_pool(x, 3, stride=2, ceil_mode=True, name="stage2_pool")
    return dense_layers(x, num_classes, fc_units=fc_units, dropout=dropout)


def alexnet_single(
    inputs,
    *,
    num_classes: int,
    stages: tuple[tuple[int, ...], ...],
    fc_units: int = 4096,
    dropout: float = 0.5,
):
    """A large strided convolution, then two stages of small ones, then the dense layers.

    fc_units: width of the two hidden dense layers; dropout: before each of them.
    """
    x = keras.layers.ZeroPadding2D(2, name="stem_pad")(inputs)
    x = keras.layers.Conv2D(64, 11, strides=4, kernel_initializer=HE, name="stem_conv")(x)
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = max_pool(x, 3, stride=2, name="stem_pool")
    for i, widths in enumerate(stages, start=1):
        kernel = 5 if i == 1 else 3
        for j, width in enumerate(widths, start=1):
            x = conv(x, width, kernel, bias=True, name=f"stage{i}_block{j}")
            x = keras.layers.ReLU(name=f"stage{i}_block{j}_relu")(x)
        x = stage_out(x, i)
        x = max_pool(x, 3, stride=2, name=f"stage{i}_pool")
    x = adaptive_average_pool(x, 6, name="adaptive_pool")
    x = keras.layers.Flatten(name="flatten")(x)
    for layer in (1, 2):
        x = drop(x, dropout, name=f"fc{layer}")
        x = keras.layers.Dense(fc_units, name=f"fc{layer}", **normal())(x)
        x = keras.layers.ReLU(name="fc1_relu" if layer == 1 else "features")(x)
    return logits(x, num_classes, **normal())


# === Weights of torchvision and pytorchcv ===


def torchvision_names(**_) -> dict[str, str]:
    """Our layer -> the module of torchvision's AlexNet."""
    return {
        "stem_conv": "features.0",
        "stage1_block1_conv": "features.3",
        "stage2_block1_conv": "features.6",
        "stage2_block2_conv": "features.8",
        "stage2_block3_conv": "features.10",
        "fc1": "classifier.1",
        "fc2": "classifier.4",
        "logits": "classifier.6",
    }


TORCHVISION = torchvision.layout(torchvision_names)


def pytorchcv_names(**_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's AlexNet and ZFNet; its first stage is our stem."""
    blocks = ("stem", "stage1_block1", "stage2_block1", "stage2_block2", "stage2_block3")
    units = ("stage1.unit1", "stage2.unit1", "stage3.unit1", "stage3.unit2", "stage3.unit3")
    convolutions = {
        f"{ours}_conv": f"features.{theirs}.conv"
        for ours, theirs in zip(blocks, units, strict=True)
    }
    return {
        **convolutions,
        "fc1": "output.fc1.fc",
        "fc2": "output.fc2.fc",
        "logits": "output.fc3",
    }


# Its normalisation averages over five channels.
PYTORCHCV = pytorchcv.layout(pytorchcv_names, options={"lrn_alpha": 1e-4 / 5})
PYTORCHCV_ZFNET = pytorchcv.layout(
    pytorchcv_names, options={"lrn_alpha": 1e-4 / 5, "lrn_first": True}
)

# === Nets ===

IMAGENET = {
    "family": "alexnet",
    "classes": 1000,
    "first_conv": "stem_conv",
    "cam_layer": "stage2_out",
    "pyramid": ("stage1_out", "stage2_out"),
    "preprocess": "torch",
    "reduced": {"fc_units": 64},
}

register_family(
    alexnet,
    **IMAGENET,
    year=2012,
    paper="Krizhevsky, Sutskever, Hinton, NIPS 2012",
    title="ImageNet Classification with Deep Convolutional Neural Networks",
    input_shape=(227, 227, 3),
    min_size=67,
    layouts=(PYTORCHCV,),
    variants={
        "alexnet": (
            {"groups": 2},
            {
                "trainable": 60_965_224,
                "total": 60_965_224,
                "accuracy": Accuracy("ImageNet", 59.3, "the paper, Table 2", top5=81.8),
            },
        ),
        "alexnet_ungrouped": (
            {"groups": 1},
            {
                "trainable": 62_378_344,
                "total": 62_378_344,
                "differs": "every convolution sees all maps",
            },
        ),
    },
)

register_family(
    zfnet,
    **IMAGENET,
    year=2013,
    paper="1311.2901",
    title="Visualizing and Understanding Convolutional Networks",
    input_shape=(224, 224, 3),
    min_size=47,
    layouts=(PYTORCHCV_ZFNET,),
    differs="normalised with AlexNet's constants; the paper gives none",
    variants={
        "zfnet": (
            {},
            {
                "trainable": 62_357_608,
                "total": 62_357_608,
                "accuracy": Accuracy("ImageNet", 61.6, "the paper, Table 2", top5=83.5),
            },
        ),
    },
)

register_family(
    alexnet_single,
    **IMAGENET,
    year=2014,
    paper="1404.5997",
    title="One weird trick for parallelizing convolutional neural networks",
    input_shape=(224, 224, 3),
    min_size=63,
    layouts=(TORCHVISION,),
    variants={
        "alexnet_single": (
            {"stages": ((192,), (384, 256, 256))},
            {
                "trainable": 61_100_840,
                "total": 61_100_840,
                "accuracy": Accuracy("ImageNet", 56.522, "torchvision IMAGENET1K_V1", top5=79.066),
                "differs": "no local response normalisation; dropout before the dense layers",
                "weights": torchvision.imagenet("alexnet-owt-7be5be79.pth", TORCHVISION),
            },
        ),
    },
)
