"""VGG. Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
2014, arXiv:1409.1556.

Nothing but 3x3 convolutions and 2x2 pooling: two of them see as far as a 5x5, three as a 7x7, with
fewer weights and more nonlinearities. `_bn` adds a batch normalisation to every convolution, as
torchvision's nets do; `_lrn` has the paper's local response normalisation after the first
convolution, which did not help, and `_c` convolves 1x1 where VGG-16 has a third 3x3.

At sizes other than 224 the last map is averaged to 7 x 7, as in torchvision, so that the dense
layers and their weights stay the same; `adaptive_pool=False` takes the map as it is, as
keras.applications does.
"""

from striate.lazy import keras
from striate.models import timm, torchvision
from striate.models.alexnet import lrn as normalise
from striate.models.alexnet import normal
from striate.models.blocks import (
    adaptive_average_pool,
    conv,
    conv_bn,
    drop,
    logits,
    stage_out,
)
from striate.pretrained import Layout, Weights
from striate.registry import Accuracy, register_family

WIDTHS = (64, 128, 256, 512, 512)


def vgg(
    inputs,
    *,
    num_classes: int,
    depths: tuple[int, ...],
    batch_norm: bool,
    lrn: bool = False,
    third_kernel: int = 3,
    adaptive_pool: bool = True,
    fc_units: int = 4096,
    dropout: float = 0.5,
):
    """Five stages of 3x3 convolutions, each ending in 2x2 max pooling, and three dense layers.

    lrn: local response normalisation after the first convolution (the paper's A-LRN).
    third_kernel: of the third convolution of a stage, 1 in the paper's configuration C.
    adaptive_pool: average the last map to 7 x 7 whatever the input's size.
    fc_units: width of the two hidden dense layers; dropout: after each of them.

    Dense layers begin as the paper's do, convolutions as He et al. 2015 found for nets as deep:
    the paper trained its shallowest net first, to begin the others with.
    """
    x = inputs
    for i, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), start=1):
        for j in range(1, depth + 1):
            name = f"stage{i}_block{j}"
            kernel = third_kernel if j == 3 else 3
            if batch_norm:
                x = conv_bn(x, width, kernel, bias=True, name=name)
            else:
                x = conv(x, width, kernel, bias=True, name=name)
                x = keras.layers.ReLU(name=f"{name}_relu")(x)
            if lrn and i == j == 1:
                x = normalise(x, name=name)
        x = stage_out(x, i)
        x = keras.layers.MaxPooling2D(2, name=f"stage{i}_pool")(x)
    if adaptive_pool:
        x = adaptive_average_pool(x, 7, name="adaptive_pool")
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(fc_units, name="fc1", **normal())(x)
    x = keras.layers.ReLU(name="fc1_relu")(x)
    x = drop(x, dropout, name="fc1")
    x = keras.layers.Dense(fc_units, name="fc2", **normal())(x)
    x = keras.layers.ReLU(name="features")(x)
    return logits(x, num_classes, dropout=dropout, **normal())


# === Weights of torchvision ===


def torchvision_names(*, depths: tuple[int, ...], batch_norm: bool, **_) -> dict[str, str]:
    """Our layer -> the module of torchvision's VGGs, which counts ReLUs and poolings too."""
    names = {"fc1": "classifier.0", "fc2": "classifier.3", "logits": "classifier.6"}
    place = 0
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            names[f"stage{i}_block{j}_conv"] = f"features.{place}"
            if batch_norm:
                names[f"stage{i}_block{j}_bn"] = f"features.{place + 1}"
            place += 3 if batch_norm else 2
        place += 1
    return names


TORCHVISION = torchvision.layout(torchvision_names)

# === Weights of timm ===


def timm_names(**config) -> dict[str, str]:
    """Our layer -> the module of timm's VGGs, whose hidden dense layers are convolutions."""
    dense = {"fc1": "pre_logits.fc1", "fc2": "pre_logits.fc2", "logits": "head.fc"}
    return {**torchvision_names(**config), **dense}


TIMM = timm.layout(timm_names)

# === Weights of keras.applications ===

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"


def keras_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' VGG-16 and -19."""
    names = {
        f"stage{i}_block{j}_conv": f"block{i}_conv{j}"
        for i, depth in enumerate(depths, start=1)
        for j in range(1, depth + 1)
    }
    return {**names, "fc1": "fc1", "fc2": "fc2", "logits": "predictions"}


KERAS = Layout("keras.applications", names=keras_names, preprocess="caffe", top=("fc1", "fc2"))


def keras_weights(name: str, md5: str) -> dict:
    """The published weights and the layout of a net without batch normalisation."""
    imagenet = Weights(
        "imagenet",
        url=f"{KERAS_URL}{name}/{name}_weights_tf_dim_ordering_tf_kernels.h5",
        hash=f"md5:{md5}",
        preprocess="caffe",
        licence="CC BY, Visual Geometry Group, Oxford",
    )
    return {"weights": (imagenet,), "layouts": (TORCHVISION, TIMM, KERAS)}


def torchvision_weights(file: str) -> dict:
    """The published weights and the layout of a net that keras.applications does not have."""
    return {
        "weights": torchvision.imagenet(file, TORCHVISION),
        "layouts": (TORCHVISION, TIMM),
    }


# === Nets ===


def variant(
    depths: tuple[int, ...], bn: bool, trainable: int, total: int, top1: float, top5=None, **facts
) -> tuple[dict, dict]:
    accuracy = Accuracy("ImageNet", top1, "torchvision IMAGENET1K_V1", top5=top5)
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy, **facts}
    if bn:
        facts["differs"] = "batch normalisation after every convolution, as in torchvision"
        facts["exceptions"] = {
            "gradient": "a convolution's bias before batch normalisation has the gradient 0"
        }
    return {"depths": depths, "batch_norm": bn}, facts


def published(config: dict, trainable: int, top1: float, top5: float) -> tuple[dict, dict]:
    """A net of the paper that torchvision does not have."""
    accuracy = Accuracy("ImageNet", top1, "the paper, Table 3", top5=top5)
    return config, {"trainable": trainable, "total": trainable, "accuracy": accuracy}


A = (1, 1, 2, 2, 2)
B = (2, 2, 2, 2, 2)
D = (2, 2, 3, 3, 3)
E = (2, 2, 4, 4, 4)

register_family(
    vgg,
    family="vgg",
    year=2014,
    paper="1409.1556",
    title="Very Deep Convolutional Networks for Large-Scale Image Recognition",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=32,
    first_conv="stage1_block1_conv",
    cam_layer="stage5_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out", "stage5_out"),
    preprocess="torch",
    reduced={"fc_units": 64},
    variants={
        "vgg11": variant(
            A,
            False,
            132_863_336,
            132_863_336,
            69.02,
            88.63,
            **torchvision_weights("vgg11-8a719046.pth"),
        ),
        "vgg13": variant(
            B,
            False,
            133_047_848,
            133_047_848,
            69.93,
            89.25,
            **torchvision_weights("vgg13-19584684.pth"),
        ),
        "vgg16": variant(
            D,
            False,
            138_357_544,
            138_357_544,
            71.59,
            90.38,
            **keras_weights("vgg16", "64373286793e3c8b2b4e3219cbf3544b"),
        ),
        "vgg19": variant(
            E,
            False,
            143_667_240,
            143_667_240,
            72.38,
            90.88,
            **keras_weights("vgg19", "cbe5617147190e668d6c5d5026f83318"),
        ),
        "vgg11_lrn": published(
            {"depths": A, "batch_norm": False, "lrn": True}, 132_863_336, 70.3, 89.5
        ),
        "vgg16_c": published(
            {"depths": D, "batch_norm": False, "third_kernel": 1}, 133_638_952, 72.7, 91.2
        ),
        "vgg11_bn": variant(
            A,
            True,
            132_868_840,
            132_874_344,
            70.37,
            **torchvision_weights("vgg11_bn-6002323d.pth"),
        ),
        "vgg13_bn": variant(
            B,
            True,
            133_053_736,
            133_059_624,
            71.59,
            **torchvision_weights("vgg13_bn-abd245e5.pth"),
        ),
        "vgg16_bn": variant(
            D,
            True,
            138_365_992,
            138_374_440,
            73.36,
            **torchvision_weights("vgg16_bn-6c64b313.pth"),
        ),
        "vgg19_bn": variant(
            E,
            True,
            143_678_248,
            143_689_256,
            74.22,
            **torchvision_weights("vgg19_bn-c79401a0.pth"),
        ),
    },
)
