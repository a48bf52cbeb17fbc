"""mixup and CutMix: a picture becomes two at once, and its label too.

Zhang et al. 2017, arXiv:1710.09412: x = s x1 + (1 - s) x2, and the same for the one-hot labels,
with the share s from Beta(alpha, alpha). Yun et al. 2019, arXiv:1905.04899: a box of x2 covers
1 - s of x1, before it is cut at the border, and the labels count as their pixels do after it.
(`keras.layers.CutMix` weighs by the box as it was before it was rounded to pixels.)

The other picture is the next one of the batch: batches are drawn at random, so it is any other.
"""

import math
from typing import Any

from keras import ops

from striate.train.augment.change import Change
from striate.train.augment.erase import in_box


class Mix(Change):
    """Examples [N, ..., C] -> (mixed with the one before each, share of its own [N, 1, ..., 1]).

    mixup, cutmix: alpha, or 0 for none of it; of both, each example gets one or the other. chance:
    that an example is mixed at all. Vectors and voxels know no boxes. As it is, with a share of 1,
    where it is called without training=True.
    """

    def __init__(self, mixup: float, cutmix: float, chance: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mixup, self.cutmix, self.chance = mixup, cutmix, chance

    def call(self, x, training=False):
        x = ops.cast(x, self.compute_dtype)
        if not training:
            return x, ops.ones(self.one_each(x), x.dtype)
        mixed, share = self._mixed(x)
        is_mixed = self.uniform(x) < self.chance
        return ops.where(is_mixed, mixed, x), ops.where(is_mixed, share, 1.0)

    def compute_output_shape(self, input_shape):
        return input_shape, (input_shape[0], *(1,) * (len(input_shape) - 1))

    def _mixed(self, x) -> tuple:
        if not self.cutmix:
            return mixed_up(x, self._share(x, self.mixup))
        boxed = self._boxed(x)
        if not self.mixup:
            return boxed
        blended = mixed_up(x, self._share(x, self.mixup))
        is_boxed = self.integer(x, 0, 2) == 1
        return tuple(ops.where(is_boxed, a, b) for a, b in zip(boxed, blended, strict=True))

    def _boxed(self, x) -> tuple:
        row, column = (self.integer(x, 0, side) for side in x.shape[-3:-1])
        return cut_in(x, self._share(x, self.cutmix), row, column)

    def _share(self, x, alpha: float):
        return symmetric_beta(alpha, self.uniform(x), self.uniform(x))


def mixed_up(x, share):
    """(s x1 + (1 - s) x2, s) of examples [N, ..., C] and of those before them."""
    return share * x + (1 - share) * before(x), share


def cut_in(x, share, row, column):
    """(x1 with a box of x2, the share of its pixels that are x1's) of pictures or clips.

    The box has 1 - share of the area, in the picture's proportions, about the pixel (row, column).
    """
    rows, columns = x.shape[-3:-1]
    side = ops.sqrt(1 - share)
    half_height, half_width = (ops.cast(n * side, "int32") // 2 for n in (rows, columns))
    top, bottom = (ops.clip(row + s * half_height, 0, rows) for s in (-1, 1))
    left, right = (ops.clip(column + s * half_width, 0, columns) for s in (-1, 1))
    height, width = bottom - top, right - left
    boxed = ops.where(in_box(x, top, left, height, width), before(x), x)
    return boxed, 1 - ops.cast(height * width, x.dtype) / (rows * columns)


def before(x):
    """In each place of a batch what stands in the place before it."""
    return ops.roll(x, 1, axis=0)


def symmetric_beta(alpha: float, one, other):
    """Numbers of Beta(alpha, alpha) from two even ones between 0 and 1.

    Bailey 1994: t = sqrt(2a (u^(-1/a) - 1)) cos(2 pi v) has Student's distribution with 2a degrees
    of freedom, and 1/2 + t / (2 sqrt(2a + t^2)) is Beta(a, a). Here without the quotients that
    overflow. (`keras.random.beta` cannot be compiled by XLA under TensorFlow.)
    """
    radius = ops.power(one, 1 / alpha)
    cosine = ops.cos(2 * math.pi * other)
    far = 1 - radius
    number = 0.5 + 0.5 * cosine * ops.sqrt(far / (radius + cosine * cosine * far + 1e-30))
    return ops.clip(number, 0, 1)
