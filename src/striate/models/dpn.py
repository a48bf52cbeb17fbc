"""Dual path networks. Chen, Li, Xiao, Jin, Yan, Feng, "Dual Path Networks", 2017,
arXiv:1707.01629.

A residual path, whose channels are added to and so reused, and a densely connected path, whose
channels grow and so hold what is new, run side by side; each block reads both, and its grouped
bottleneck (as in ResNeXt) writes to both.

Differs from the paper: nothing that is known; widths are those of the authors' released code. Early
releases of timm ended the net in ELU instead of ReLU (`last_activation`).
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import timm
from striate.models.blocks import bn_relu, conv, max_pool, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family

EPSILON = 1e-3


def bn_relu_conv(x, filters: int, kernel: int, *, stride: int = 1, groups: int = 1, name: str):
    """Batch normalisation and ReLU before the convolution."""
    x = bn_relu(x, epsilon=EPSILON, name=name)
    return conv(x, filters, kernel, stride=stride, groups=groups, name=name)


def part(x, residual_width: int, *, name: str):
    """The first channels for the residual path, the others for the dense path."""
    from striate.layers import SliceChannels

    residual = SliceChannels(0, residual_width, name=f"{name}_to_residual")(x)
    dense = SliceChannels(residual_width, x.shape[-1], name=f"{name}_to_dense")(x)
    return residual, dense


def dual_path_block(
    paths: tuple,
    residual_width: int,
    *,
    increment: int,
    bottleneck: int,
    groups: int,
    stride: int,
    name: str,
):
    """(residual, dense) -> (residual with something added, dense with `increment` channels more).

    The first block of a stage, which gets its input as one path, first brings both to their width.
    """
    x = paths[0]
    if len(paths) == 2:
        x = keras.layers.Concatenate(name=f"{name}_concat")(list(paths))
        residual, dense = paths
    else:
        width = residual_width + 2 * increment
        shortcut = bn_relu_conv(x, width, 1, stride=stride, name=f"{name}_shortcut")
        residual, dense = part(shortcut, residual_width, name=f"{name}_shortcut")
    y = bn_relu_conv(x, bottleneck, 1, name=f"{name}_1")
    y = bn_relu_conv(y, bottleneck, 3, stride=stride, groups=groups, name=f"{name}_2")
    y = bn_relu_conv(y, residual_width + increment, 1, name=f"{name}_3")
    added, new = part(y, residual_width, name=f"{name}_3")
    residual = keras.layers.Add(name=f"{name}_add")([residual, added])
    dense = keras.layers.Concatenate(name=f"{name}_grow")([dense, new])
    return residual, dense


def stem(x, channels: int, kernel: int):
    """A convolution and a max pooling, stride 2 each."""
    x = conv(x, channels, kernel, stride=2, name="stem")
    x = bn_relu(x, epsilon=EPSILON, name="stem")
    return max_pool(x, 3, stride=2, pad=1, name="stem_pool")


def dpn(
    inputs,
    *,
    num_classes: int,
    first: tuple[int, int],
    width: int,
    bottleneck: int,
    groups: int,
    increments: tuple[int, ...],
    depths: tuple[int, ...] = (3, 4, 20, 3),
    last_activation: str = "relu",
    dropout: float = 0.0,
):
    """Stages of dual path blocks; every stage but the first halves the resolution.

    depths: blocks in each stage. last_activation: relu or elu, of the last map.
    dropout: before the classifier.
    """
    if last_activation not in ("relu", "elu"):
        raise UsageError(f"dpn: expected last_activation relu or elu, got {last_activation!r}")
    x = stem(inputs, *first)
    for i, (depth, increment) in enumerate(zip(depths, increments, strict=True), start=1):
        paths: tuple = (x,)
        for j in range(1, depth + 1):
            paths = dual_path_block(
                paths,
                width,
                increment=increment,
                bottleneck=bottleneck,
                groups=groups,
                stride=2 if i > 1 and j == 1 else 1,
                name=f"stage{i}_block{j}",
            )
        x = keras.layers.Concatenate(name=f"stage{i}_block{depth}_join")(list(paths))
        if i == len(depths):
            x = keras.layers.BatchNormalization(epsilon=EPSILON, momentum=0.9, name="top_bn")(x)
            x = keras.layers.Activation(last_activation, name=f"top_{last_activation}")(x)
        x = stage_out(x, i)
        width *= 2
        bottleneck *= 2
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of timm ===


def timm_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of timm's nets."""
    blocks = {"stem": "conv1_1", "top": "conv5_bn_ac"}
    for i, depth in enumerate(depths, start=1):
        blocks[f"stage{i}_block1_shortcut"] = f"conv{i + 1}_1.c1x1_w_s{1 if i == 1 else 2}"
        for j in range(1, depth + 1):
            for ours, theirs in (("1", "c1x1_a"), ("2", "c3x3_b"), ("3", "c1x1_c")):
                blocks[f"stage{i}_block{j}_{ours}"] = f"conv{i + 1}_{j}.{theirs}"
    names = {
        f"{ours}_{kind}": f"features.{theirs}.{kind}"
        for ours, theirs in blocks.items()
        for kind in ("conv", "bn")
    }
    return {**names, "logits": "classifier"}


TIMM = timm.layout(timm_names, preprocess="dpn")

# === Nets ===


def net(
    first: tuple[int, int],
    width: int,
    bottleneck: int,
    groups: int,
    increments: tuple[int, ...],
    depths: tuple[int, ...],
    trainable: int,
    total: int,
    accuracy: tuple[float, float] | None = None,
) -> tuple[dict, dict]:
    """One net: first convolution (channels, kernel), then the first stage's widths."""
    config = {"first": first, "width": width, "bottleneck": bottleneck, "groups": groups}
    facts = {"trainable": trainable, "total": total}
    if accuracy:
        facts["accuracy"] = Accuracy("ImageNet", accuracy[0], "the paper", accuracy[1])
    return {**config, "increments": increments, "depths": depths}, facts


register_family(
    dpn,
    family="dpn",
    year=2017,
    paper="1707.01629",
    title="Dual Path Networks",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="stage4_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    preprocess="torch",
    layouts=(TIMM,),
    reduced={"depths": (2, 1, 1, 2)},
    variants={
        "dpn68": net((10, 3), 64, 128, 32, (16, 32, 32, 64), (3, 4, 12, 3), 12_611_602, 12_676_718),
        "dpn92": net(
            (64, 7),
            256,
            96,
            32,
            (16, 32, 24, 128),
            (3, 4, 20, 3),
            37_668_392,
            37_793_608,
            (79.3, 94.6),
        ),
        "dpn98": net(
            (96, 7),
            256,
            160,
            40,
            (16, 32, 32, 128),
            (3, 6, 20, 3),
            61_570_728,
            61_735_624,
            (79.8, 94.8),
        ),
        "dpn131": net(
            (128, 7),
            256,
            160,
            40,
            (16, 32, 32, 128),
            (4, 8, 28, 3),
            79_254_504,
            79_477_864,
            (80.07, 94.88),
        ),
    },
)
