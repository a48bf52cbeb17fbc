"""RandAugment: some operations out of 14, of one strength. Cubuk et al. 2019, arXiv:1909.13719.

The operations are those of PIL that the paper names, at the strengths of AutoAugment (Cubuk et al.
2018, arXiv:1805.09501, table 6), so that 10 of 10 is: turn by 30 degrees, shear by 0.3, shift by
0.45 of the side, blend by 0.9 either way, 4 bits, solarise everything. Here magnitude 0 changes
nothing; in the authors' own code the blends are not symmetric, and their least magnitude is black.
"""

import math
from typing import Any

import numpy as np
from keras import ops

from striate.train.augment.change import Change
from striate.train.augment.moves import warped

OPERATIONS = (
    "identity",
    "auto_contrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as PIL and ITU-R 601 have it


class RandAugment(Change):
    """For each picture or clip, `count` operations one after the other, each of `OPERATIONS`.

    magnitude: of all of them, 0 to 10. fill, level: of the moves, as in `moves`.
    """

    def __init__(self, count: int, magnitude: float, fill: str, level: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count, self.magnitude = count, magnitude
        self.fill, self.level = fill, level

    def changed(self, x):
        if self.magnitude == 0:  # two of the operations have no strength that could be 0
            return x
        frames = x.shape[1] if len(x.shape) == 5 else 1
        shape, pictures = x.shape, ops.reshape(x, (-1, *x.shape[-3:]))
        for _ in range(self.count):
            chosen = self.integer(x, 0, len(OPERATIONS))
            sign = ops.cast(2 * self.integer(x, 0, 2) - 1, x.dtype)
            chosen, sign = (
                ops.repeat(ops.reshape(a, (-1, 1, 1, 1)), frames, axis=0) for a in (chosen, sign)
            )
            strength = sign * (self.magnitude / 10)
            pictures = applied(pictures, chosen, strength, fill=self.fill, level=self.level)
        return ops.reshape(pictures, (-1, *shape[1:]))


def applied(x, chosen, strength, *, fill: str, level: Any):
    """Pictures [N, H, W, C] after one operation each.

    chosen: its place in `OPERATIONS`, int [N, 1, 1, 1]; strength: from -1 to 1, [N, 1, 1, 1]; what
    has no direction takes it without its sign.
    """

    def where(name: str, new, old):
        return ops.where(chosen == OPERATIONS.index(name), new, old)

    x = _moved(x, where, strength, fill, level)
    x = _blended(x, where, strength)
    return _relevelled(x, where, ops.abs(strength))


def _moved(x, where, strength, fill: str, level: Any):
    """All five moves are one warp; the identity for pictures that something else happens to."""
    zero = ops.zeros_like(strength)
    angle = where("rotate", math.radians(30) * strength, zero)
    row_by_column = where("shear_y", 0.3 * strength, -ops.sin(angle))
    column_by_row = where("shear_x", 0.3 * strength, ops.sin(angle))
    numbers = (
        ops.cos(angle),
        row_by_column,
        column_by_row,
        ops.cos(angle),
        where("translate_y", 0.45 * x.shape[1] * strength, zero),
        where("translate_x", 0.45 * x.shape[2] * strength, zero),
    )
    return warped(x, *(number[..., 0] for number in numbers), fill=fill, level=level)


def _blended(x, where, strength):
    """What PIL's ImageEnhance does: away from a duller picture, or towards it."""
    grey = grey_of(x)
    duller = where("color", grey, x)
    duller = where("contrast", ops.round(ops.mean(grey, axis=(1, 2), keepdims=True)), duller)
    duller = where("brightness", ops.zeros_like(x), duller)
    duller = where("sharpness", smooth(x), duller)
    return ops.clip(duller + (1 + 0.9 * strength) * (x - duller), 0, 255)


def _relevelled(x, where, strength):
    """What takes levels for other levels, and needs whole ones."""
    levels = ops.round(x)
    step = 2.0 ** ops.round(4 * strength)
    new = where("posterize", ops.floor(levels / step) * step, x)
    inverted = ops.where(levels >= 256 * (1 - strength), 255 - levels, levels)
    new = where("solarize", inverted, new)
    new = where("auto_contrast", stretched(levels), new)
    return where("equalize", equalized(levels), new)


def grey_of(x):
    """[N, H, W, 1]; the luminance of colours."""
    if x.shape[-1] == 1:
        return x
    return ops.sum(x * ops.convert_to_tensor(GREY, x.dtype), axis=-1, keepdims=True)


def smooth(x):
    """The mean of a pixel, which counts five times, and its neighbours; borders stay."""
    kernel = np.ones((3, 3, 1, 1), "float32")
    kernel[1, 1] = 5
    kernel = np.repeat(kernel / kernel.sum(), x.shape[-1], axis=2)
    inner = ops.depthwise_conv(x, ops.convert_to_tensor(kernel, x.dtype), padding="valid")
    border = np.ones((1, *x.shape[1:3], 1), bool)
    border[:, 1:-1, 1:-1] = False
    return ops.where(border, x, ops.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0))))


def stretched(levels):
    """Each channel from its own lowest and highest level to 0 and 255."""
    low = ops.min(levels, axis=(1, 2), keepdims=True)
    spread = ops.max(levels, axis=(1, 2), keepdims=True) - low
    return ops.where(spread > 0, (levels - low) * 255 / ops.maximum(spread, 1), levels)


def equalized(levels):
    """Each channel's whole levels spread so that each range of them is about as frequent."""
    n, _, _, channels = ops.shape(levels)
    histogram = ops.arange(n)[:, None, None, None] * channels + ops.arange(channels)
    cells = histogram * 256 + ops.cast(levels, "int32")
    ones = ops.ones_like(ops.reshape(cells, (-1,)))
    counts = ops.segment_sum(ones, ops.reshape(cells, (-1,)), num_segments=n * channels * 256)
    counts = ops.reshape(counts, (-1, 256))
    places = ops.arange(256)
    last = ops.max(ops.where(counts > 0, places, 0), axis=1, keepdims=True)
    most = ops.take_along_axis(counts, last, axis=1)
    step = (ops.sum(counts, axis=1, keepdims=True) - most) // 255
    below = ops.cumsum(counts, axis=1) - counts
    table = ops.minimum((below + step // 2) // ops.maximum(step, 1), 255)
    table = ops.where(step > 0, table, places)
    return ops.cast(ops.take(ops.reshape(table, (-1,)), cells), levels.dtype)
