"""Binary nets: all layers but the first and the last compute with +1 and -1.

Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net: ImageNet Classification Using Binary Convolutional
Neural Networks", 2016, arXiv:1603.05279.

BWN, the binary-weight nets: a kernel becomes its signs times one scale a filter, 32 times smaller;
convolution, batch normalisation and ReLU follow one another as ever. XNOR nets take the signs of
the inputs too, so that 32 products are one XOR and a count of bits. A sign right after pooling
would throw away nearly everything (most maxima are positive), so the order is batch normalisation,
sign, convolution, pooling.

A binary net learns best from its real twin: train `create_model(name, real=True)`, which has the
same layers with real kernels and inputs clipped to -1..1 for signs, then give its file as
`weights=` to the binary one. Kernels are centred and clipped after each step, as in the authors'
code.

Differs from the paper: the scale K of the inputs is the option `activation_scale`, since the
authors' own code leaves it out. The 1x1 shortcuts of ResNet-18 stay real (they are 1.5 % of its
weights), and its XNOR net has a shortcut around every two convolutions, from sum to sum. The other
nets carry the method over: to the net that the paper's predecessors use on CIFAR-10, to a small one
for 28 x 28 pixels, and to the 1x1 convolutions of MobileNet, where nearly all of its work is.
"""

from typing import NamedTuple

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import blocks
from striate.models.blocks import (
    HE,
    adaptive_average_pool,
    conv_bn,
    logits,
    max_pool,
    pool_and_classify,
    stage_out,
)
from striate.models.blocks import conv as real_conv
from striate.models.mobilenet import V1_STAGES, bn_relu
from striate.models.mobilenet import stem as mobilenet_stem
from striate.registry import Accuracy, register_family


class Kind(NamedTuple):
    """How the inner layers of one net are binary."""

    binary_inputs: bool  # XNOR, else BWN
    real: bool  # the twin to train first
    activation_scale: bool


def kind_of(*, binary_inputs: bool, real: bool, activation_scale: bool) -> Kind:
    """The three options together; `UsageError` where they contradict one another."""
    if activation_scale and (real or not binary_inputs):
        raise UsageError(
            "activation_scale is the scale of binary inputs: expected it for an XNOR net that is "
            f"not real, got it for a {'real' if real else 'BWN'} one"
        )
    return Kind(binary_inputs, real, activation_scale)


def batch_norm(x, kind: Kind, *, name: str):
    """Batch normalisation as in the authors' code, which has a larger epsilon before signs."""
    return blocks.batch_norm(x, epsilon=1e-4 if kind.binary_inputs else 1e-5, name=name)


def clip_inputs(x, *, name: str):
    """What stands for the sign in a real twin: its straight-through gradient as a function."""
    return keras.layers.Activation("hard_tanh", name=f"{name}_clip")(x)


def conv(
    x, filters: int, kernel: int, *, kind: Kind, stride: int = 1, bias: bool = False, name: str
):
    """A square convolution padded by kernel // 2: binary, or as the real twin has it."""
    if kind.real:
        x = clip_inputs(x, name=name) if kind.binary_inputs else x
        return real_conv(x, filters, kernel, stride=stride, bias=bias, name=name)
    from striate.layers import BinaryConv2D, CentredKernel

    return BinaryConv2D(
        filters,
        kernel,
        strides=stride,
        pad=kernel // 2,
        binary_inputs=kind.binary_inputs,
        activation_scale=kind.activation_scale,
        use_bias=bias,
        kernel_initializer=HE,
        kernel_constraint=CentredKernel(),
        name=f"{name}_conv",
    )(x)


def dense(x, units: int, *, kind: Kind, name: str):
    """A dense layer with bias: binary, or as the real twin has it."""
    if kind.real:
        x = clip_inputs(x, name=name) if kind.binary_inputs else x
        return keras.layers.Dense(units, kernel_initializer=HE, name=name)(x)
    from striate.layers import BinaryDense, CentredKernel

    return BinaryDense(
        units,
        binary_inputs=kind.binary_inputs,
        use_bias=True,
        kernel_initializer=HE,
        kernel_constraint=CentredKernel(),
        name=name,
    )(x)


def relu(x, *, name: str):
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def block(x, width: int, kernel: int, *, kind: Kind, bias: bool = True, name: str):
    """XNOR: batch normalisation, sign, convolution. BWN: convolution, normalisation, ReLU."""
    if kind.binary_inputs:
        x = batch_norm(x, kind, name=name)
        return conv(x, width, kernel, kind=kind, bias=bias, name=name)
    x = conv(x, width, kernel, kind=kind, bias=bias, name=name)
    return relu(batch_norm(x, kind, name=name), name=name)


def dense_layers(x, units: tuple[int, ...], num_classes: int, *, side: int, kind: Kind):
    """A map averaged to side x side, hidden dense layers, and a real classifier."""
    x = adaptive_average_pool(x, side, name="adaptive_pool")
    for n, width in enumerate(units, start=1):
        x = batch_norm(x, kind, name=f"fc{n}") if kind.binary_inputs else x
        x = keras.layers.Flatten(name="flatten")(x) if n == 1 else x
        x = dense(x, width, kind=kind, name=f"fc{n}")
        if not kind.binary_inputs:
            x = batch_norm(x, kind, name=f"fc{n}")
            x = relu(x, name=f"fc{n}") if n < len(units) else x
    x = batch_norm(x, kind, name="top") if kind.binary_inputs else x
    x = keras.layers.ReLU(name="features")(x)
    return logits(x, num_classes)


# === AlexNet ===


def alexnet(
    inputs,
    *,
    num_classes: int,
    binary_inputs: bool,
    real: bool = False,
    activation_scale: bool = False,
    fc_units: int = 4096,
):
    """AlexNet in one column, with batch normalisation for its local response normalisation.

    real: the twin to train first, see above. activation_scale: the paper's K, of XNOR nets.
    fc_units: width of the two hidden dense layers.
    """
    kind = kind_of(binary_inputs=binary_inputs, real=real, activation_scale=activation_scale)
    x = keras.layers.Conv2D(96, 11, strides=4, kernel_initializer=HE, name="stem_conv")(inputs)
    x = blocks.bn_relu(x, name="stem")
    x = max_pool(x, 3, stride=2, name="stem_pool")
    x = block(x, 256, 5, kind=kind, name="stage1_block1")
    x = stage_out(x, 1)
    x = max_pool(x, 3, stride=2, name="stage1_pool")
    for j, width in enumerate((384, 384, 256), start=1):
        x = block(x, width, 3, kind=kind, name=f"stage2_block{j}")
    x = stage_out(x, 2)
    x = max_pool(x, 3, stride=2, name="stage2_pool")
    return dense_layers(x, (fc_units, fc_units), num_classes, side=6, kind=kind)


# === ResNet-18 ===


def residual(x, width: int, *, stride: int, kind: Kind, name: str):
    """Two 3x3 convolutions around which a shortcut goes; a real 1x1 where the shape changes."""
    y = x
    for n, step in ((1, stride), (2, 1)):
        part = f"{name}_{n}"
        y = batch_norm(y, kind, name=part) if kind.binary_inputs else y
        y = conv(y, width, 3, stride=step, kind=kind, name=part)
        y = y if kind.binary_inputs else batch_norm(y, kind, name=part)
        y = relu(y, name=part) if n == 1 and not kind.binary_inputs else y
    if stride > 1 or x.shape[-1] != width:
        x = conv_bn(x, width, 1, stride=stride, relu=False, name=f"{name}_shortcut")
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y if kind.binary_inputs else relu(y, name=name)


def resnet18(
    inputs,
    *,
    num_classes: int,
    binary_inputs: bool,
    real: bool = False,
    activation_scale: bool = False,
    width: int = 64,
):
    """ResNet-18; the XNOR net normalises before its convolutions instead of after them.

    real: the twin to train first, see above. activation_scale: the paper's K, of XNOR nets.
    width: of the first stage.
    """
    kind = kind_of(binary_inputs=binary_inputs, real=real, activation_scale=activation_scale)
    x = real_conv(inputs, width, 7, stride=2, name="stem")
    x = relu(x if binary_inputs else batch_norm(x, kind, name="stem"), name="stem")
    x = max_pool(x, 3, stride=2, pad=1, name="stem_pool")
    for i in range(1, 5):
        for j in (1, 2):
            stride = 2 if i > 1 and j == 1 else 1
            x = residual(x, width, stride=stride, kind=kind, name=f"stage{i}_block{j}")
        x = stage_out(x, i)
        width *= 2
    x = relu(batch_norm(x, kind, name="top"), name="top") if binary_inputs else x
    return pool_and_classify(x, num_classes)


# === Small nets ===


def small(
    inputs,
    *,
    num_classes: int,
    binary_inputs: bool,
    fc_units: tuple[int, ...] = (),
    real: bool = False,
    activation_scale: bool = False,
    width: int = 64,
):
    """Three stages of two 3x3 convolutions, the very first one real; 2x2 pooling after each stage.

    real: the twin to train first, see above. activation_scale: the paper's K, of XNOR nets.
    fc_units: widths of hidden dense layers on a 4 x 4 map; without any, the map is averaged.
    width: of the first stage.
    """
    kind = kind_of(binary_inputs=binary_inputs, real=real, activation_scale=activation_scale)
    x = conv_bn(inputs, width, 3, bias=True, name="stem")
    for i in range(1, 4):
        for j in (1, 2) if i > 1 else (1,):
            x = block(x, width, 3, kind=kind, name=f"stage{i}_block{j}")
        x = stage_out(x, i)
        x = keras.layers.MaxPooling2D(2, name=f"stage{i}_pool")(x)
        width *= 2
    if fc_units:
        return dense_layers(x, fc_units, num_classes, side=4, kind=kind)
    x = relu(batch_norm(x, kind, name="top"), name="top") if binary_inputs else x
    return pool_and_classify(x, num_classes)


# === MobileNet ===


def mobilenet(
    inputs,
    *,
    num_classes: int,
    binary_inputs: bool,
    real: bool = False,
    activation_scale: bool = False,
    alpha: float = 1.0,
):
    """MobileNet, version 1, whose 1x1 convolutions are binary; the depthwise ones stay real.

    real: the twin to train first, see above. activation_scale: the paper's K, of XNOR nets.
    alpha: every width is so many times the paper's.
    """
    kind = kind_of(binary_inputs=binary_inputs, real=real, activation_scale=activation_scale)
    if int(32 * alpha) < 1:
        raise UsageError(f"xnornet: expected alpha of at least 1/32, got {alpha!r}")
    x = mobilenet_stem(inputs, int(32 * alpha), momentum=0.99)
    for i, widths in enumerate(V1_STAGES, start=1):
        for j, width in enumerate(widths, start=1):
            name = f"stage{i}_block{j}"
            stride = 2 if i > 1 and j == 1 else 1
            x = keras.layers.DepthwiseConv2D(
                3,
                strides=stride,
                padding="same",
                use_bias=False,
                depthwise_initializer=HE,
                name=f"{name}_dw_conv",
            )(x)
            x = bn_relu(x, momentum=0.99, relu=not binary_inputs, name=f"{name}_dw")
            x = conv(x, int(width * alpha), 1, kind=kind, name=f"{name}_pw")
            x = bn_relu(x, momentum=0.99, name=f"{name}_pw")
        x = stage_out(x, i)
    return pool_and_classify(x, num_classes)


# === Nets ===

PAPER = {
    "family": "xnornet",
    "year": 2016,
    "paper": "1603.05279",
    "title": "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks",
    "first_conv": "stem_conv",
    "preprocess": "torch",
}
IMAGENET = {**PAPER, "classes": 1000}
SMALL = {**PAPER, "classes": 10}


def bwn(trainable: int, total: int, **facts) -> tuple[dict, dict]:
    """A net with binary weights."""
    return {"binary_inputs": False}, {"trainable": trainable, "total": total, **facts}


def xnor(trainable: int, total: int, **facts) -> tuple[dict, dict]:
    """A net with binary weights and inputs."""
    return {"binary_inputs": True}, {"trainable": trainable, "total": total, **facts}


def published(top1: float, top5: float, source: str = "the paper, Table 2") -> Accuracy:
    return Accuracy("ImageNet", top1, source, top5=top5)


register_family(
    alexnet,
    **IMAGENET,
    input_shape=(227, 227, 3),
    min_size=67,
    cam_layer="stage2_out",
    pyramid=("stage1_out", "stage2_out"),
    reduced={"fc_units": 64},
    variants={
        "bwn_alexnet": bwn(62_397_480, 62_416_616, accuracy=published(56.8, 79.4)),
        "xnor_alexnet": xnor(62_397_672, 62_417_000, accuracy=published(44.2, 69.2)),
    },
)

register_family(
    resnet18,
    **IMAGENET,
    input_shape=(224, 224, 3),
    min_size=17,
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    differs="the 1x1 shortcuts stay real",
    reduced={"width": 16},
    variants={
        "bwn_resnet18": bwn(
            11_689_512, 11_699_112, accuracy=published(60.8, 83.0), cam_layer="stage4_out"
        ),
        "xnor_resnet18": xnor(
            11_689_512, 11_699_112, accuracy=published(51.2, 73.2), cam_layer="top_relu"
        ),
    },
)

MOBILENET = {**IMAGENET, "preprocess": "tf"}

register_family(
    mobilenet,
    **MOBILENET,
    input_shape=(224, 224, 3),
    min_size=17,
    cam_layer="stage5_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out", "stage5_out"),
    differs="not in the paper: the 1x1 convolutions of arXiv:1704.04861",
    reduced={"alpha": 0.25},
    variants={
        "bwn_mobilenet_v1": bwn(4_231_976, 4_253_864),
        "xnor_mobilenet_v1": xnor(4_231_976, 4_253_864),
    },
)


def vgg(net: tuple[dict, dict], **config) -> tuple[dict, dict]:
    """A small net of plain stages."""
    kind, facts = net
    return {**kind, **config}, facts


CIFAR = {"width": 128, "fc_units": (1024, 1024)}

register_family(
    small,
    **SMALL,
    input_shape=(32, 32, 3),
    min_size=8,
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    differs="the first and the last layer are real, those of arXiv:1602.02830 are not",
    reduced={"fc_units": (64, 64)},
    variants={
        "bwn_vgg_cifar": vgg(bwn(14_033_546, 14_041_226), **CIFAR),
        "xnor_vgg_cifar": vgg(xnor(14_033_802, 14_041_738), **CIFAR),
    },
)

register_family(
    small,
    **SMALL,
    input_shape=(28, 28, 1),
    min_size=8,
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    differs="not in the paper: a small net for its method",
    variants={
        "bwn_vgg_mnist": bwn(1_148_618, 1_150_410, cam_layer="stage3_out"),
        "xnor_vgg_mnist": xnor(1_148_746, 1_150_666, cam_layer="top_relu"),
    },
)
