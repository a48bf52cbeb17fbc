"""Random boxes that hide a part of a picture [N, H, W, C], or of all frames of a clip alike."""

from typing import Any

import keras
import numpy as np
from keras import ops

from striate.train.augment.change import Change

TRIES = 10  # boxes that are drawn until one fits; the reference tries 100, but 10 miss rarely


class RandomCutout(Change):
    """A square of `side` pixels about any pixel, cut at the border, is filled with `level`.

    DeVries and Taylor 2017, arXiv:1708.04552. level: what the net sees as 0, as in the paper.
    """

    def __init__(self, side: int, level: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side, self.level = side, level

    def changed(self, x):
        rows, columns = x.shape[-3:-1]
        top = self.integer(x, 0, rows) - self.side // 2
        left = self.integer(x, 0, columns) - self.side // 2
        hidden = in_box(x, top, left, self.side, self.side)
        return ops.where(hidden, ops.cast(self.level, x.dtype), x)


class RandomErasing(Change):
    """With a chance, a box is filled with noise, each of its levels drawn evenly from 0 to 255.

    Zhong et al. 2017, arXiv:1708.04896, algorithm 1: of area s = U(0.02, 0.4) of the picture and
    ratio r = U(0.3, 1/0.3), the box is sqrt(s r) high and sqrt(s / r) wide, drawn anew until it
    fits.
    """

    AREA, RATIO = (0.02, 0.4), (0.3, 1 / 0.3)

    def __init__(self, chance: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chance = chance

    def changed(self, x):
        top, left, height, width = self._box(x)
        hidden = in_box(x, top, left, height, width) & (self.uniform(x) < self.chance)
        noise = keras.random.uniform(ops.shape(x), 0, 255, x.dtype, self.generator)
        return ops.where(hidden, noise, x)

    def _box(self, x) -> tuple:
        """(top, left, height, width) in whole pixels; of no height where nothing fitted."""
        rows, columns = x.shape[-3:-1]
        found = ops.zeros_like(self.uniform(x))
        height, width = found, found
        for _ in range(TRIES):
            area = self.uniform(x, *self.AREA) * rows * columns
            ratio = self.uniform(x, *self.RATIO)
            tall, wide = ops.round(ops.sqrt(area * ratio)), ops.round(ops.sqrt(area / ratio))
            fits = (height == 0) & (tall < rows) & (wide < columns)
            height, width = ops.where(fits, tall, height), ops.where(fits, wide, width)
        top = ops.floor(self.uniform(x) * (rows - height + 1))
        left = ops.floor(self.uniform(x) * (columns - width + 1))
        return top, left, height, width


def in_box(x, top, left, height, width):
    """Which pixels of x, [N, H, W, 1] or [N, 1, H, W, 1], lie in the boxes, [N, 1, ..., 1] each."""
    rows = np.arange(x.shape[-3])[:, None, None]
    columns = np.arange(x.shape[-2])[None, :, None]
    rows, columns = (ops.cast(place, top.dtype) for place in (rows, columns))
    in_rows = (rows >= top) & (rows < top + height)
    return in_rows & (columns >= left) & (columns < left + width)
