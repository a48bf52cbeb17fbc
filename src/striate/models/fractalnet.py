"""FractalNet. Larsson, Maire, Shakhnarovich, "FractalNet: Ultra-Deep Neural Networks without
Residuals", 2016, arXiv:1605.07648.

A block repeats one rule: beside a column of convolutions runs a shallower one of half as many, and
where both end they are averaged. Deep and shallow paths learn from each other without residuals;
training drops some (local drop-path) or all but one column (global), so that each stands alone.

Differs from the paper: its 38.6 million parameters are not those of the authors' released script,
which is built here.
"""

from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import conv_bn, drop, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family


def fractal(
    x,
    width: int,
    kept,
    *,
    columns: int,
    drop_path: float,
    dropout: float,
    pool_joined: bool,
    name: str,
):
    """2^(columns - 1) levels: column j convolves at every 2^j-th, columns that end there join.

    The last level pools each column before they join, or what they join to.
    """
    from striate.layers import FractalJoin

    paths = [x] * columns
    levels = 2 ** (columns - 1)
    for level in range(1, levels + 1):
        ending = [j for j in range(columns) if level % 2**j == 0]
        for j in ending:
            column = f"{name}{level}_column{j}"
            y = conv_bn(paths[j], width, 3, name=column)
            y = drop(y, dropout, name=column)
            if level == levels and not pool_joined:
                y = keras.layers.MaxPooling2D(2, name=f"{column}_pool")(y)
            paths[j] = y
        if len(ending) > 1:
            join = FractalJoin(drop_path, name=f"{name}{level}_join")
            joined = join([*[paths[j] for j in ending], kept])
            for j in ending:
                paths[j] = joined
    return keras.layers.MaxPooling2D(2, name=f"{name}_pool")(paths[0]) if pool_joined else paths[0]


def fractalnet(
    inputs,
    *,
    num_classes: int,
    columns: int,
    width: int = 64,
    drop_path: float = 0.15,
    global_share: float = 0.5,
    dropout: float = 0.4,
    pool_joined: bool = False,
):
    """Five fractal blocks, each ending in 2x2 max pooling.

    width: of the first block; the others have 2, 4, 8 and 8 times as much. drop_path: the chance
    that a join drops an input. global_share: of the pictures that keep to one column. dropout:
    in the last block; it grows evenly from 0 in the first. pool_joined: blocks pool behind their
    last join, as in pytorchcv, and not before it.
    """
    from striate.layers import DrawColumn

    kept = DrawColumn(columns, global_share, name="stem_column")(inputs)
    x = inputs
    for i, times in enumerate((1, 2, 4, 8, 8), start=1):
        x = fractal(
            x,
            width * times,
            kept,
            columns=columns,
            drop_path=drop_path,
            dropout=dropout * (i - 1) / 4,
            pool_joined=pool_joined,
            name=f"stage{i}_block",
        )
        x = stage_out(x, i)
    return pool_and_classify(x, num_classes)


# === Weights of pytorchcv ===


def pytorchcv_names(*, columns: int, **_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's net."""
    parts = {}
    for i in range(1, 6):
        for level in range(1, 2 ** (columns - 1) + 1):
            ours, theirs = f"stage{i}_block{level}", f"features.unit{i}.block.blocks.block{level}"
            parts |= {f"{ours}_column{j}": f"{theirs}.subblock{j + 1}" for j in range(columns)}
    return {**pytorchcv.conv_bn(parts), "logits": "output"}


PYTORCHCV = pytorchcv.layout(pytorchcv_names, preprocess="cifar", options={"pool_joined": True})

# === Nets ===

register_family(
    fractalnet,
    family="fractalnet",
    year=2016,
    paper="1605.07648",
    title="FractalNet: Ultra-Deep Neural Networks without Residuals",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=32,
    first_conv="stage1_block1_column0_conv",
    cam_layer="stage5_out",
    pyramid=tuple(f"stage{i}_out" for i in range(1, 6)),
    preprocess="torch",
    differs="the paper claims 38.6 million parameters; the authors' script gives these",
    reduced={"width": 8},
    layouts=(PYTORCHCV,),
    variants={
        "fractalnet21_cifar": (
            {"columns": 3},
            {
                "trainable": 33_724_618,
                "total": 33_745_226,
                "accuracy": Accuracy("CIFAR-10", 95.40, "the paper, Table 1"),
            },
        ),
    },
)
