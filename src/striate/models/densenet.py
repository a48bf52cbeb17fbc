"""Densely connected networks. Huang, Liu, van der Maaten, Weinberger, "Densely Connected
Convolutional Networks", 2016, arXiv:1608.06993.

Each layer sees the maps of all layers before it and adds k of its own (the growth rate k), so that
nothing is learnt twice and the gradient reaches every layer directly. Plain DenseNets keep their
channels in the transition between two blocks; DenseNet-BC has a bottleneck of 4k channels in every
layer (B) and halves the channels in the transition (C).

Differs from the paper: nothing that is known. The authors' released code gives every stem 2k
channels; the paper gives 16 to the plain nets for CIFAR, and so does this (`stem_channels`).
"""

import re

from striate.lazy import keras
from striate.models import pytorchcv, torchvision
from striate.models.blocks import bn_relu, conv, drop, max_pool, pool_and_classify, stage_out
from striate.pretrained import Layout, Weights
from striate.registry import Accuracy, register_family


def dense_layer(x, growth_rate: int, *, bottleneck: bool, dropout: float, name: str):
    """x and behind it the `growth_rate` new channels that a 3x3 convolution makes of it."""
    y = x
    if bottleneck:
        y = bn_relu(y, name=f"{name}_1")
        y = conv(y, 4 * growth_rate, 1, name=f"{name}_1")
        y = drop(y, dropout, name=f"{name}_1")
    y = bn_relu(y, name=f"{name}_2")
    y = conv(y, growth_rate, 3, name=f"{name}_2")
    y = drop(y, dropout, name=f"{name}_2")
    return keras.layers.Concatenate(name=f"{name}_concat")([x, y])


def transition(x, *, compression: float, dropout: float, stage: int):
    """The way into a stage: a 1x1 convolution to `compression` times the channels, then pooling."""
    name = f"stage{stage}_block0"
    x = bn_relu(x, name=name)
    x = conv(x, int(compression * x.shape[-1]), 1, name=name)
    x = drop(x, dropout, name=name)
    return keras.layers.AveragePooling2D(2, name=f"stage{stage}_pool")(x)


def imagenet_stem(x, channels: int):
    """7x7 convolution and 3x3 max pooling, stride 2 each."""
    x = conv(x, channels, 7, stride=2, name="stem")
    x = bn_relu(x, name="stem")
    return max_pool(x, 3, stride=2, pad=1, name="stem_pool")


def cifar_stem(x, channels: int):
    """One 3x3 convolution at full resolution."""
    return conv(x, channels, 3, name="stem")


def densenet(
    inputs,
    *,
    num_classes: int,
    stem,
    growth_rate: int,
    bottleneck: bool,
    compression: float,
    depths: tuple[int, ...] = (6, 12, 24, 16),
    stem_channels: int = 64,
    dropout: float = 0.0,
):
    """Dense blocks with a transition between each two; the last ends in BatchNorm and ReLU.

    depths: dense layers in each block. stem_channels: of the first convolution.
    dropout: after every convolution but the first; the paper's 0.2 is for training without
    augmentation.
    """
    x = stem(inputs, stem_channels)
    for i, depth in enumerate(depths, start=1):
        if i > 1:
            x = transition(x, compression=compression, dropout=dropout, stage=i)
        for j in range(1, depth + 1):
            name = f"stage{i}_block{j}"
            x = dense_layer(x, growth_rate, bottleneck=bottleneck, dropout=dropout, name=name)
        if i == len(depths):
            x = bn_relu(x, name="top")
        x = stage_out(x, i)
    return pool_and_classify(x, num_classes)


# === Weights of torchvision ===


def torchvision_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of torchvision's DenseNets."""
    names = {"stem_conv": "features.conv0", "stem_bn": "features.norm0"}
    names |= {"top_bn": "features.norm5", "logits": "classifier"}
    for i, depth in enumerate(depths, start=1):
        names[f"stage{i}_block0_bn"] = f"features.transition{i - 1}.norm"
        names[f"stage{i}_block0_conv"] = f"features.transition{i - 1}.conv"
        for j in range(1, depth + 1):
            ours, theirs = f"stage{i}_block{j}", f"features.denseblock{i}.denselayer{j}"
            for n in (1, 2):
                names[f"{ours}_{n}_bn"] = f"{theirs}.norm{n}"
                names[f"{ours}_{n}_conv"] = f"{theirs}.conv{n}"
    return names


def old_torchvision_names(**config) -> dict[str, str]:
    """The same in its published files, which number the parts of a layer behind a dot."""
    return {
        ours: re.sub(r"(denselayer\d+\.\w+)(\d)$", r"\1.\2", theirs)
        for ours, theirs in torchvision_names(**config).items()
    }


TORCHVISION = torchvision.layout(torchvision_names)
OLD_TORCHVISION = torchvision.layout(old_torchvision_names)

# === Weights of keras.applications ===

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/densenet/"


def keras_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' DenseNets."""
    names = {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn"}
    names |= {"top_bn": "bn", "logits": "predictions"}
    for i, depth in enumerate(depths, start=1):
        names[f"stage{i}_block0_bn"] = f"pool{i}_bn"
        names[f"stage{i}_block0_conv"] = f"pool{i}_conv"
        for j in range(1, depth + 1):
            for n in (1, 2):
                names[f"stage{i}_block{j}_{n}_bn"] = f"conv{i + 1}_block{j}_{n - 1}_bn"
                names[f"stage{i}_block{j}_{n}_conv"] = f"conv{i + 1}_block{j}_{n}_conv"
    return names


def old_keras_names(**config) -> dict[str, str]:
    """The same in files of Keras 2, such as the published ones."""
    stem = {"stem_conv": "conv1/conv", "stem_bn": "conv1/bn"}
    return {**keras_names(**config), **stem, "logits": "fc1000"}


KERAS, OLD_KERAS = (
    Layout("keras.applications", names=names, preprocess="torch", epsilon=1.001e-5)
    for names in (keras_names, old_keras_names)
)
LAYOUTS = (TORCHVISION, OLD_TORCHVISION, KERAS, OLD_KERAS)


def keras_weights(name: str, md5: str) -> tuple[Weights]:
    """The published weights of one net."""
    weights = Weights(
        "imagenet",
        url=f"{KERAS_URL}{name}_weights_tf_dim_ordering_tf_kernels.h5",
        hash=f"md5:{md5}",
        preprocess="torch",
        licence="BSD-3-Clause, Gao Huang et al. (weights), Apache-2.0 (keras.applications)",
    )
    return (weights,)


# === Weights of pytorchcv ===


def pytorchcv_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's DenseNet-BC for CIFAR; its plain ones compress too."""
    stages = range(2, len(depths) + 1)
    transitions = {f"stage{i}_block0": f"features.stage{i}.trans{i}.conv" for i in stages}
    return {
        "stem_conv": "features.init_block",
        **pytorchcv.units(depths, pytorchcv.conv_bn({"1": "conv1", "2": "conv2"})),
        **pytorchcv.conv_bn(transitions),
        "top_bn": "features.post_activ.bn",
        "logits": "output",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, preprocess="cifar")

# === Nets ===


def imagenet(
    growth_rate: int,
    depths: tuple[int, ...],
    trainable: int,
    total: int,
    top1: float,
    top5: float,
    weights: tuple[Weights],
) -> tuple[dict, dict]:
    """One DenseNet-BC of the paper's Table 1, or DenseNet-161 of the authors' repository."""
    config = {"growth_rate": growth_rate, "depths": depths, "stem_channels": 2 * growth_rate}
    accuracy = Accuracy("ImageNet", top1, "torchvision IMAGENET1K_V1", top5=top5)
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy, "weights": weights}
    return {"stem": imagenet_stem, "bottleneck": True, "compression": 0.5, **config}, facts


register_family(
    densenet,
    family="densenet",
    year=2016,
    paper="1608.06993",
    title="Densely Connected Convolutional Networks",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=29,
    first_conv="stem_conv",
    cam_layer="stage4_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    preprocess="torch",
    reduced={"depths": (2, 2, 2, 2)},
    layouts=LAYOUTS,
    variants={
        "densenet121": imagenet(
            32,
            (6, 12, 24, 16),
            7_978_856,
            8_062_504,
            74.43,
            91.97,
            keras_weights("densenet121", "9d60b8095a5708f2dcce2bca79d332c7"),
        ),
        "densenet161": imagenet(
            48,
            (6, 12, 36, 24),
            28_681_000,
            28_900_936,
            77.14,
            93.56,
            torchvision.imagenet("densenet161-8d451a50.pth", OLD_TORCHVISION),
        ),
        "densenet169": imagenet(
            32,
            (6, 12, 32, 32),
            14_149_480,
            14_307_880,
            75.60,
            92.81,
            keras_weights("densenet169", "d699b8f76981ab1b30698df4c175e90b"),
        ),
        "densenet201": imagenet(
            32,
            (6, 12, 48, 32),
            20_013_928,
            20_242_984,
            76.90,
            93.37,
            keras_weights("densenet201", "1ceb130c1ea1b78c3bf6114dbdfd8807"),
        ),
    },
)


def cifar(
    depth: int, growth_rate: int, trainable: int, total: int, error: float, *, bc: bool = False
) -> tuple[dict, dict]:
    """`depth` layers: three blocks, the stem, two transitions and the classifier (Section 3)."""
    layers = (depth - 4) // 3 // (2 if bc else 1)
    config = {"growth_rate": growth_rate, "depths": (layers,) * 3, "bottleneck": bc}
    config |= {"compression": 0.5, "stem_channels": 2 * growth_rate} if bc else {}
    accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "the paper, Table 2, augmented")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy}
    return {"stem": cifar_stem, "compression": 1.0, "stem_channels": 16, **config}, facts


register_family(
    densenet,
    family="densenet",
    year=2016,
    paper="1608.06993",
    title="Densely Connected Convolutional Networks",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=4,
    first_conv="stem_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    reduced={"depths": (2, 2, 2)},
    layouts=(PYTORCHCV,),
    variants={
        "densenet40_12_cifar": cifar(40, 12, 1_019_722, 1_037_818, 5.24),
        "densenet100_12_cifar": cifar(100, 12, 6_979_642, 7_096_858, 4.10),
        "densenet100_24_cifar": cifar(100, 24, 27_249_082, 27_480_346, 3.74),
        "densenet_bc100_12_cifar": cifar(100, 12, 769_162, 793_150, 4.51, bc=True),
        "densenet_bc250_24_cifar": cifar(250, 24, 15_324_406, 15_582_382, 3.62, bc=True),
        "densenet_bc190_40_cifar": cifar(190, 40, 25_624_430, 25_881_390, 3.46, bc=True),
    },
)
