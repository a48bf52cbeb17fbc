"""Stochastic depth. Huang, Sun, Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth",
2016, arXiv:1603.09382.

A CIFAR ResNet from which every training step leaves blocks out at random, the later ones more
often: training is shorter and a net of 1202 layers no longer overfits. Inference takes all blocks,
each residual times the chance that it had in training.

Differs from the authors' code: where the shape changes, the shortcut takes every other pixel, as in
the paper of ResNet, and does not average four.
"""

from striate.models.resnet import basic, cifar_stem, resnet
from striate.registry import Accuracy, register_family


def variant(depth: int, trainable: int, total: int, error: float) -> tuple[dict, dict]:
    """6n + 2 layers; the last block survives half of the steps."""
    config = {"stem": cifar_stem, "block": basic, "width": 16, "depths": ((depth - 2) // 6,) * 3}
    accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "arXiv:1608.06993, Table 2")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy}
    return {**config, "shortcut": "A", "survival": 0.5}, facts


register_family(
    resnet,
    family="resnet",
    year=2016,
    paper="1603.09382",
    title="Deep Networks with Stochastic Depth",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=5,
    first_conv="stem_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    differs="the shortcut subsamples, as in the paper of ResNet; the authors' code averages",
    reduced={"depths": (3, 3, 3)},
    variants={
        "stochastic_depth110_cifar": variant(110, 1_727_962, 1_736_058, 5.23),
        "stochastic_depth1202_cifar": variant(1202, 19_421_274, 19_510_906, 4.91),
    },
)
