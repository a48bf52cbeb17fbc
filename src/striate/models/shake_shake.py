"""Shake-Shake. Gastaldi, "Shake-Shake regularization", 2017, arXiv:1705.07485.

A residual net with two residuals a block. Training mixes the two at random, and lets the gradient
back through another random mix, so that neither can lean on the other; inference takes their mean.
Trained for 1800 epochs with a cosine schedule.

Where the shape changes, the shortcut joins two 1x1 convolutions of half the channels each, one of
every other pixel and one of the pixels between them, as in the authors' code.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import batch_norm, conv, conv_bn, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family


def residual(x, width: int, *, stride: int, name: str):
    """ReLU, 3x3, ReLU, 3x3, batch normalisation after each convolution."""
    y = keras.layers.ReLU(name=f"{name}_relu")(x)
    y = conv_bn(y, width, 3, stride=stride, name=f"{name}_1")
    return conv_bn(y, width, 3, relu=False, name=f"{name}_2")


def shortcut(x, width: int, *, stride: int, name: str):
    """Two 1x1 convolutions of pixels `stride` apart, the second shifted right and down by one."""
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    shifted = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), name=f"{name}_pad")(x)
    shifted = keras.layers.Cropping2D(((0, 1), (0, 1)), name=f"{name}_crop")(shifted)
    halves = []
    for path, pixels in enumerate((x, shifted), start=1):
        half = keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_pick{path}")(pixels)
        halves.append(conv(half, width // 2, 1, name=f"{name}_{path}"))
    x = keras.layers.Concatenate(name=f"{name}_concat")(halves)
    return batch_norm(x, name=name)


def shake_shake(
    inputs,
    *,
    num_classes: int,
    width: int = 32,
    blocks: int = 4,
    forward: str = "shake",
    backward: str = "shake",
    per_picture: bool = True,
    activated_sums: bool = False,
):
    """Three stages of blocks with two residuals each, of 1, 2 and 4 times `width` channels.

    width: 32, 64, 96 or 112 in the paper; blocks: of each stage.
    forward: `shake` or `even`; backward: `shake`, `even` or `keep` (the forward draw); per_picture:
    a draw for every picture, or one for the batch. The paper's best is shake-shake per picture.
    activated_sums: the ReLU before the residuals comes before the shortcut too, as in pytorchcv.
    """
    from striate.layers import ShakeShake

    if width % 2:
        raise UsageError(f"shake_shake: expected an even width, got {width}")
    if forward not in ("shake", "even") or backward not in ("shake", "even", "keep"):
        raise UsageError(
            "shake_shake: expected forward shake or even, and backward shake, even or keep, "
            f"got {forward!r} and {backward!r}"
        )
    x = conv_bn(inputs, 16, 3, relu=activated_sums, name="stem")
    for i in (1, 2, 3):
        for j in range(1, blocks + 1):
            stride = 2 if i > 1 and j == 1 else 1
            name = f"stage{i}_block{j}"
            pair = [residual(x, width, stride=stride, name=f"{name}_{side}") for side in "ab"]
            y = ShakeShake(forward, backward, per_picture, name=f"{name}_shake")(pair)
            if j == 1:
                x = shortcut(x, width, stride=stride, name=f"{name}_shortcut")
            x = keras.layers.Add(name=f"{name}_add")([x, y])
            if activated_sums:
                x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = stage_out(x, i)
        width *= 2
    x = keras.layers.ReLU(name="top_relu")(x)
    return pool_and_classify(x, num_classes)


# === Weights of pytorchcv ===


def pytorchcv_names(**_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets."""
    parts = {
        f"{side}_{n}": f"branch{branch}.conv{n}"
        for branch, side in enumerate("ab", start=1)
        for n in (1, 2)
    }
    shortcut = {f"shortcut_{n}_conv": f"identity_branch.conv{n}" for n in (1, 2)}
    shortcut["shortcut_bn"] = "identity_branch.bn"
    return {
        **pytorchcv.conv_bn({"stem": "features.init_block"}),
        **pytorchcv.units((4, 4, 4), {**pytorchcv.conv_bn(parts), **shortcut}),
        "logits": "output",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, preprocess="cifar", options={"activated_sums": True})

# === Nets ===


def variant(width: int, trainable: int, total: int, error: float) -> tuple[dict, dict]:
    """26 layers: four blocks a stage."""
    accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "the paper, Table 1")
    return {"width": width}, {"trainable": trainable, "total": total, "accuracy": accuracy}


register_family(
    shake_shake,
    family="shake_shake",
    year=2017,
    paper="1705.07485",
    title="Shake-Shake regularization",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=5,
    first_conv="stem_conv",
    cam_layer="top_relu",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    reduced={"width": 8, "blocks": 2},
    layouts=(PYTORCHCV,),
    variants={
        "shake_shake26_2x32d_cifar": variant(32, 2_923_162, 2_930_810, 3.55),
        "shake_shake26_2x96d_cifar": variant(96, 26_192_922, 26_215_802, 2.86),
    },
)
