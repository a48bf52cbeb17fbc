"""SimpNet. Hasanpour, Rouhani, Fayyaz, Sabokrou, Adeli, "Towards Principled Design of Deep
Convolutional Networks: Introducing SimpNet", 2018, arXiv:1802.06205.

Thirteen 3x3 convolutions, plain and evenly wide, against nets with many times their parameters.
Pooling is followed by dropout at once ("SAF pooling"), so that the features that won are not all
relied on; the last pooling takes the maximum of each map.

The nets are those of the authors' repository: convolutions keep their bias before batch
normalisation, and dropout rises a little with depth.
"""

from striate.lazy import keras
from striate.models.blocks import conv_bn, drop, logits, stage_out
from striate.registry import Accuracy, register_family


def simpnet(inputs, *, num_classes: int, widths: tuple[tuple[int, ...], ...], dropout: float = 1.0):
    """Stages of 3x3 convolutions with 2x2 SAF pooling between them.

    dropout: times the authors' rates, 0.2 in the first two stages and 0.3 from then on.
    """
    x = inputs
    for i, stage in enumerate(widths, start=1):
        last = i == len(widths)
        for j, width in enumerate(stage, start=1):
            name = f"stage{i}_block{j}"
            x = conv_bn(x, width, 3, bias=True, name=name)
            if j < len(stage):
                x = drop(x, (0.3 if last else 0.2) * dropout, name=name)
        x = stage_out(x, i)
        if not last:
            x = keras.layers.MaxPooling2D(2, name=f"stage{i}_pool")(x)
            x = drop(x, (0.2 if i == 1 else 0.3) * dropout, name=f"stage{i}_block{len(stage)}")
    x = keras.layers.GlobalMaxPooling2D(name="features")(x)
    return logits(x, num_classes, dropout=0.3 * dropout)


def variant(
    widths: tuple[tuple[int, ...], ...], trainable: int, total: int, top1: float
) -> tuple[dict, dict]:
    accuracy = Accuracy("CIFAR-10", top1, "Coderx7/SimpNet")
    return {"widths": widths}, {"trainable": trainable, "total": total, "accuracy": accuracy}


register_family(
    simpnet,
    family="simpnet",
    year=2018,
    paper="1802.06205",
    title="Towards Principled Design of Deep Convolutional Networks: Introducing SimpNet",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=4,
    first_conv="stage1_block1_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="unit",
    exceptions={"gradient": "a bias before batch normalisation has the gradient 0"},
    variants={
        "simpnet_5m_cifar": variant(
            ((66, 128, 128, 128, 192), (192, 192, 192, 192, 288), (288, 355, 432)),
            5_478_223,
            5_483_769,
            95.69,
        ),
        "simpnet_8m_cifar": variant(
            ((128, 182, 182, 182, 182), (182, 182, 182, 182, 430), (430, 455, 600)),
            8_902_729,
            8_909_727,
            96.12,
        ),
    },
)
