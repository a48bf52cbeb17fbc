"""Network in Network and Deeply-Supervised Nets, for CIFAR.

Lin, Chen, Yan, "Network In Network", 2013, arXiv:1312.4400. Behind each convolution come two 1x1
convolutions, a small perceptron that slides over the map; the last gives a map for each class, and
its mean is the class's score, in place of dense layers.

Lee, Xie, Gallagher, Zhang, Tu, "Deeply-Supervised Nets", 2014, arXiv:1409.5185. The same body
trained with a classifier on each hidden convolution, all of which are left out afterwards.

Differs from the papers: nothing that is known; widths and kernels, which the text leaves out, are
those of the authors' released configurations.
"""

from typing import Any

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import HE, conv, drop, pool_and_classify, stage_out
from striate.registry import Accuracy, TrainingHeads, register_family

# Kernel of the first convolution, its width, the widths of the 1x1 convolutions behind it; the
# last 1x1 convolution of the third stage has the width of the classes.
STAGES = ((5, 192, (160, 96)), (5, 192, (192, 192)), (3, 192, (192,)))


def pool_between(x, kind: str, *, pad: bool, name: str):
    """3x3 windows of stride 2 that overhang right and bottom, as in Caffe: 32, 16, 8.

    pad: they overhang on every side and zeros beyond the border count, as in torch.
    """
    pools = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}
    if kind not in pools:
        raise UsageError(f"nin: expected pools of max or average, got {kind!r}")
    if pad:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return pools[kind](3, strides=2, padding="valid" if pad else "same", name=name)(x)


def class_maps(x, num_classes: int):
    """A map for each class (1x1 convolution, ReLU), averaged to its logit."""
    x = keras.layers.Conv2D(num_classes, 1, kernel_initializer=HE, name="logits_conv")(x)
    x = keras.layers.ReLU(name="logits_relu")(x)
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)


def companion(x, num_classes: int, *, stage: int):
    """Logits from a hidden convolution before its ReLU."""
    name = f"logits_companion{stage}"
    x = keras.layers.Flatten(name=f"{name}_flatten")(x)
    return keras.layers.Dense(num_classes, dtype="float32", name=name)(x)


def nin_body(
    inputs,
    *,
    num_classes: int,
    pools: tuple[str, str],
    dropout: float,
    classifier: str,
    pad_pools: bool = False,
    training_heads: bool = False,
):
    """(output, outputs of the companion classifiers)."""
    if classifier not in ("conv", "linear"):
        raise UsageError(f"nin: expected classifier conv or linear, got {classifier!r}")
    x = inputs
    companions = []
    for i, (kernel, width, inner) in enumerate(STAGES, start=1):
        if i > 1:
            x = pool_between(x, pools[i - 2], pad=pad_pools, name=f"stage{i}_pool")
            x = drop(x, dropout, name=f"stage{i}_block0")
        x = conv(x, width, kernel, bias=True, name=f"stage{i}_block1")
        if training_heads:
            companions.append(companion(x, num_classes, stage=i))
        x = keras.layers.ReLU(name=f"stage{i}_block1_relu")(x)
        for j, inner_width in enumerate(inner, start=2):
            x = conv(x, inner_width, 1, bias=True, name=f"stage{i}_block{j}")
            x = keras.layers.ReLU(name=f"stage{i}_block{j}_relu")(x)
        x = stage_out(x, i)
    if classifier == "conv":
        return class_maps(x, num_classes), companions
    return pool_and_classify(x, num_classes), companions


def nin(
    inputs,
    *,
    num_classes: int,
    pools: tuple[str, str] = ("max", "average"),
    dropout: float = 0.5,
    classifier: str = "conv",
    pad_pools: bool = False,
):
    """Three perceptron convolutions with a pooling between each two.

    pools: max or average, of the first and the second. dropout: after each.
    classifier: `conv` is the paper's, whose logits cannot be negative; `linear` is a dense layer on
    the pooled features, which learns a new task more easily. pad_pools: poolings pad every side
    with zeros that count, as in pytorchcv, where Caffe's windows overhang right and bottom.
    """
    return nin_body(
        inputs,
        num_classes=num_classes,
        pools=pools,
        dropout=dropout,
        classifier=classifier,
        pad_pools=pad_pools,
    )[0]


def dsn(
    inputs,
    *,
    num_classes: int,
    dropout: float = 0.5,
    classifier: str = "conv",
    training_heads: bool = False,
):
    """The body of Network in Network with two max poolings.

    dropout, classifier: as for `nin`.
    training_heads: the model has three more outputs, the companion classifiers on the hidden
    convolutions before their ReLU, each with a squared hinge loss that counts 0.1 (1 - t), t being
    the share of the training that is done, and weights of so many inputs that they learn at a
    thousandth of the rate, as in the authors' code: [logits, logits_companion1, logits_companion2,
    logits_companion3].
    """
    output, companions = nin_body(
        inputs,
        num_classes=num_classes,
        pools=("max", "max"),
        dropout=dropout,
        classifier=classifier,
        training_heads=training_heads,
    )
    return [output, *companions] if training_heads else output


# === Weights of pytorchcv ===


def pytorchcv_names(**_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's Network in Network."""
    depths = [1 + len(inner) for _, _, inner in STAGES]
    return {
        **pytorchcv.units(depths, {"conv": "conv"}),
        "logits_conv": "output.final_conv.conv",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, preprocess="cifar", options={"pad_pools": True})

# === Nets ===

COMMON: dict[str, Any] = {
    "family": "nin",
    "input_shape": (32, 32, 3),
    "classes": 10,
    "min_size": 4,
    "first_conv": "stage1_block1_conv",
    "cam_layer": "stage3_out",
    "pyramid": ("stage1_out", "stage2_out", "stage3_out"),
    "preprocess": "torch",
    "finetune_options": {"classifier": "linear"},
    "exceptions": {
        "features": "the paper's classifier averages class maps, not features; "
        "`classifier='linear'` has a `features` layer",
    },
}

register_family(
    nin,
    **COMMON,
    year=2013,
    paper="1312.4400",
    title="Network In Network",
    layouts=(PYTORCHCV,),
    variants={
        "nin_cifar": (
            {},
            {
                "trainable": 966_986,
                "total": 966_986,
                "accuracy": Accuracy("CIFAR-10", 91.19, "the paper, augmented"),
            },
        ),
    },
)

register_family(
    dsn,
    **COMMON,
    year=2014,
    paper="1409.5185",
    title="Deeply-Supervised Nets",
    training_heads=TrainingHeads(0.1, "squared_hinge", fades=True, rate=1e-3),
    variants={
        "dsn_cifar": (
            {},
            {
                "trainable": 966_986,
                "total": 966_986,
                "accuracy": Accuracy("CIFAR-10", 92.03, "the paper, augmented"),
            },
        ),
    },
)
