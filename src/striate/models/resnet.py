"""Residual networks. He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015,
arXiv:1512.03385.

A block learns a residual F(x) and returns F(x) + x, so that a hundred layers train as easily as
twenty. Where the block changes the shape of x, the shortcut is one of the paper's options:
A (subsample, fill with zero channels), B (a 1x1 convolution there, identity elsewhere) or C (a 1x1
convolution everywhere).

Differs from the paper: the stride of a down-sampling bottleneck sits in its 3x3 convolution
("v1.5", as in torchvision); `stride_on_1x1=True` puts it back into the first 1x1.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import pytorchcv, torchvision
from striate.models.blocks import conv_bn, max_pool, pool_and_classify, stage_out
from striate.pretrained import Layout, Weights
from striate.registry import Accuracy, register_family


def project(x, filters: int, *, stride: int, option: str, name: str):
    """x in the shape of the residual, by the paper's option A, B or C."""
    fits = stride == 1 and x.shape[-1] == filters
    if option == "C" or (option == "B" and not fits):
        return conv_bn(x, filters, 1, stride=stride, relu=False, name=f"{name}_shortcut")
    if fits:
        return x
    from striate.layers import PadChannels

    missing = filters - x.shape[-1]
    x = keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_subsample")(x)
    return PadChannels(missing // 2, missing - missing // 2, name=f"{name}_zeros")(x)


def basic(x, width: int, *, stride: int, stride_on_1x1: bool = False, name: str):
    """The residual of two 3x3 convolutions (ResNet-18, -34 and those for CIFAR)."""
    if stride_on_1x1:
        raise UsageError("stride_on_1x1 moves the stride of a bottleneck; this net has none")
    y = conv_bn(x, width, 3, stride=stride, name=f"{name}_1")
    return conv_bn(y, width, 3, relu=False, name=f"{name}_2")


def bottleneck(x, width: int, *, stride: int, stride_on_1x1: bool = False, name: str):
    """The residual of 1x1 down, 3x3, 1x1 up to four times the width (ResNet-50 and deeper)."""
    first, second = (stride, 1) if stride_on_1x1 else (1, stride)
    y = conv_bn(x, width, 1, stride=first, name=f"{name}_1")
    y = conv_bn(y, width, 3, stride=second, name=f"{name}_2")
    return conv_bn(y, 4 * width, 1, relu=False, name=f"{name}_3")


def imagenet_stem(x):
    """7x7 convolution and 3x3 max pooling, stride 2 each."""
    x = conv_bn(x, 64, 7, stride=2, name="stem")
    return max_pool(x, 3, stride=2, pad=1, name="stem_pool")


def cifar_stem(x):
    """One 3x3 convolution at full resolution."""
    return conv_bn(x, 16, 3, name="stem")


def leave_out(x, chance: float, *, name: str):
    """A residual that is left out of a training step with that chance (stochastic depth)."""
    from striate.layers import StochasticDepth

    return StochasticDepth(1.0 - chance, name=f"{name}_survival")(x)


def resnet(
    inputs,
    *,
    num_classes: int,
    stem,
    block,
    width: int,
    depths: tuple[int, ...] = (2, 2, 2, 2),
    shortcut: str = "B",
    plain: bool = False,
    stride_on_1x1: bool = False,
    survival: float = 1.0,
    dropout: float = 0.0,
):
    """Stages of residual blocks; every stage but the first halves the resolution and doubles width.

    depths: blocks of each stage.
    shortcut: A, B or C; plain: no shortcuts at all, the paper's counter-example.
    stride_on_1x1: down-sampling bottlenecks stride in their first convolution, as in the paper.
    survival: how often the last block takes part in a training step (stochastic depth); earlier
    ones do so more often, the first nearly always. dropout: before the classifier.
    """
    if shortcut not in ("A", "B", "C"):
        raise UsageError(f"resnet: expected shortcut A, B or C, got {shortcut!r}")
    if survival == 0:
        raise UsageError("resnet: expected survival above 0 and up to 1, got 0")
    x = stem(inputs)
    block_number = 0
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            block_number += 1
            stride = 2 if i > 1 and j == 1 else 1
            name = f"stage{i}_block{j}"
            y = block(x, width, stride=stride, stride_on_1x1=stride_on_1x1, name=name)
            if survival < 1.0:
                y = leave_out(y, block_number / sum(depths) * (1.0 - survival), name=name)
            if not plain:
                x = project(x, y.shape[-1], stride=stride, option=shortcut, name=name)
                y = keras.layers.Add(name=f"{name}_add")([x, y])
            x = keras.layers.ReLU(name=f"{name}_relu")(y)
        x = stage_out(x, i)
        width *= 2
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of torchvision and timm ===


def torch_names(*, depths: tuple[int, ...], block=bottleneck, **_) -> dict[str, str]:
    """Our layer -> the module of torchvision's nets, and of timm's of the same names."""
    convolutions = 2 if block is basic else 3
    names = {"stem_conv": "conv1", "stem_bn": "bn1", "logits": "fc"}
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            ours, theirs = f"stage{i}_block{j}", f"layer{i}.{j - 1}"
            for n in range(1, convolutions + 1):
                names[f"{ours}_{n}_conv"] = f"{theirs}.conv{n}"
                names[f"{ours}_{n}_bn"] = f"{theirs}.bn{n}"
            names[f"{ours}_shortcut_conv"] = f"{theirs}.downsample.0"
            names[f"{ours}_shortcut_bn"] = f"{theirs}.downsample.1"
    return names


TORCHVISION = torchvision.layout(torch_names)

# === Weights of keras.applications ===

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"


def keras_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' ResNet-50, -101 and -152."""
    blocks = {"stem": "conv1"}
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            for ours, theirs in (("1", "1"), ("2", "2"), ("3", "3"), ("shortcut", "0")):
                blocks[f"stage{i}_block{j}_{ours}"] = f"conv{i + 1}_block{j}_{theirs}"
    names = {
        f"{ours}_{kind}": f"{theirs}_{kind}"
        for ours, theirs in blocks.items()
        for kind in ("conv", "bn")
    }
    return {**names, "logits": "predictions"}


# Its convolutions have biases, which the batch normalisation after each takes into its mean.
KERAS = Layout(
    "keras.applications",
    names=keras_names,
    preprocess="caffe",
    options={"stride_on_1x1": True},
    epsilon=1.001e-5,
)


def keras_weights(name: str, md5: str) -> dict:
    """The published weights and the layout of one bottleneck net."""
    imagenet = Weights(
        "imagenet",
        url=f"{KERAS_URL}{name}_weights_tf_dim_ordering_tf_kernels.h5",
        hash=f"md5:{md5}",
        preprocess="caffe",
        options={"stride_on_1x1": True},
        licence="MIT, Kaiming He (weights), Apache-2.0 (keras.applications)",
    )
    return {"weights": (imagenet,), "layouts": (TORCHVISION, KERAS)}


# === Weights of pytorchcv ===


def pytorchcv_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets for CIFAR."""
    parts = {"1": "body.conv1", "2": "body.conv2", "shortcut": "identity_conv"}
    return {
        **pytorchcv.conv_bn({"stem": "features.init_block"}),
        **pytorchcv.units(depths, pytorchcv.conv_bn(parts)),
        "logits": "output",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, preprocess="cifar", options={"shortcut": "B"})

# === Nets ===


def imagenet(
    block, depths: tuple[int, ...], trainable: int, total: int, top1: float, top5: float, **facts
) -> tuple[dict, dict]:
    accuracy = Accuracy("ImageNet", top1, "torchvision IMAGENET1K_V1", top5=top5)
    config = {"stem": imagenet_stem, "block": block, "width": 64, "depths": depths}
    if block is bottleneck:
        facts["differs"] = "the stride of a bottleneck sits in its 3x3 convolution"
    return config, {"trainable": trainable, "total": total, "accuracy": accuracy, **facts}


register_family(
    resnet,
    family="resnet",
    year=2015,
    paper="1512.03385",
    title="Deep Residual Learning for Image Recognition",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="stage4_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    preprocess="torch",
    layouts=(TORCHVISION,),
    reduced={"depths": (1, 2, 1, 1)},
    variants={
        "resnet18": imagenet(
            basic,
            (2, 2, 2, 2),
            11_689_512,
            11_699_112,
            69.76,
            89.08,
            weights=torchvision.imagenet("resnet18-f37072fd.pth", TORCHVISION),
        ),
        "resnet34": imagenet(
            basic,
            (3, 4, 6, 3),
            21_797_672,
            21_814_696,
            73.31,
            91.42,
            weights=torchvision.imagenet("resnet34-b627a593.pth", TORCHVISION),
        ),
        "resnet50": imagenet(
            bottleneck,
            (3, 4, 6, 3),
            25_557_032,
            25_610_152,
            76.13,
            92.86,
            **keras_weights("resnet50", "2cb95161c43110f7111970584f804107"),
        ),
        "resnet101": imagenet(
            bottleneck,
            (3, 4, 23, 3),
            44_549_160,
            44_654_504,
            77.37,
            93.55,
            **keras_weights("resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5"),
        ),
        "resnet152": imagenet(
            bottleneck,
            (3, 8, 36, 3),
            60_192_808,
            60_344_232,
            78.31,
            94.05,
            **keras_weights("resnet152", "100835be76be38e30d865e96f2aaae62"),
        ),
        "resnet200": (
            {"stem": imagenet_stem, "block": bottleneck, "width": 64, "depths": (3, 24, 36, 3)},
            {
                "trainable": 64_673_832,
                "total": 64_849_832,
                "accuracy": Accuracy(
                    "ImageNet", 78.2, "arXiv:1603.05027, Table 5, 320 pixels", top5=94.0
                ),
                "differs": "of 1603.05027; the stride of a bottleneck sits in its 3x3 convolution",
            },
        ),
    },
)


def cifar(depth: int, trainable: int, total: int, error: float) -> tuple[dict, dict]:
    """6n + 2 layers: n blocks in each of three stages (Section 4.2 of the paper)."""
    blocks = (depth - 2) // 6
    config = {"stem": cifar_stem, "block": basic, "width": 16, "depths": (blocks,) * 3}
    accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "the paper, Table 6")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy}
    return {**config, "shortcut": "A"}, facts


register_family(
    resnet,
    family="resnet",
    year=2015,
    paper="1512.03385",
    title="Deep Residual Learning for Image Recognition",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=5,
    first_conv="stem_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    reduced={"depths": (2, 2, 2)},
    layouts=(PYTORCHCV,),
    variants={
        "resnet20_cifar": cifar(20, 269_722, 271_098, 8.75),
        "resnet32_cifar": cifar(32, 464_154, 466_426, 7.51),
        "resnet44_cifar": cifar(44, 658_586, 661_754, 7.17),
        "resnet56_cifar": cifar(56, 853_018, 857_082, 6.97),
        "resnet110_cifar": cifar(110, 1_727_962, 1_736_058, 6.43),
        "resnet1202_cifar": cifar(1202, 19_421_274, 19_510_906, 7.93),
    },
)
