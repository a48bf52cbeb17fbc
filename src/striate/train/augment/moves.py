"""Random moves of pictures [N, H, W, C] and clips [N, T, H, W, C]: mirrors, crops, turns, shifts.

All the frames of a clip move alike. `fill` says what stands beyond a border, as numpy.pad calls it:

    nearest  a a a | a b c | c c c        wrap      a b c | a b c | a b c
    reflect  c b a | a b c | c b a        constant  k k k | a b c | k k k   (k: `level`)
"""

import math
from typing import Any

import numpy as np
from keras import ops

from striate.train.augment.change import Change


class RandomMirror(Change):
    """Along an axis of the batch, every second time."""

    def __init__(self, axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def changed(self, x):
        return ops.where(self.integer(x, 0, 2) == 1, ops.flip(x, axis=self.axis), x)


class RandomCrop(Change):
    """A window of the picture's own size, cut out of the picture with a border of `padding` pixels.

    What all nets for CIFAR train with: 4 pixels of zeros there, from Lee et al. 2014 (Deeply-
    Supervised Nets, arXiv:1409.5185) on.
    """

    def __init__(self, padding: int, fill: str, level: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding, self.fill, self.level = padding, fill, level

    def changed(self, x):
        down, right = (self.integer(x, -self.padding, self.padding + 1) for _ in range(2))
        return of_frames(shifted, x, down, right, fill=self.fill, level=self.level)


class RandomResizedCrop(Change):
    """A box of the picture, enlarged to the picture's size.

    scale: the box's share of the area, from the first to the second; ratio: its width by its
    height, drawn evenly on a logarithmic scale. A box that is too long is cut. Szegedy et al. 2014,
    arXiv:1409.4842, section 6: 8 % to all of the area, 3/4 to 4/3.
    """

    def __init__(self, scale: tuple, ratio: tuple, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.ratio = scale, ratio

    def changed(self, x):
        rows, columns = x.shape[-3:-1]
        area = self.uniform(x, *self.scale) * rows * columns
        ratio = ops.exp(self.uniform(x, *(math.log(r) for r in self.ratio)))
        height = ops.clip(ops.round(ops.sqrt(area / ratio)), 1, rows)
        width = ops.clip(ops.round(ops.sqrt(area * ratio)), 1, columns)
        top = ops.floor(self.uniform(x) * (rows - height + 1))
        left = ops.floor(self.uniform(x) * (columns - width + 1))
        return of_frames(enlarged, x, top, left, height, width)


class RandomWarp(Change):
    """Shifted, zoomed and turned about the middle, in one resampling, so blurred only once.

    translate: by up to this share of each side; zoom: out or in by up to this share; rotate: by up
    to so many degrees either way.
    """

    def __init__(
        self, translate: float, zoom: float, rotate: float, fill: str, level: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.translate, self.zoom, self.rotate = translate, zoom, rotate
        self.fill, self.level = fill, level

    def changed(self, x):
        rows, columns = x.shape[-3:-1]
        size = 1 + self.uniform(x, -self.zoom, self.zoom)
        angle = math.radians(self.rotate) * self.uniform(x, -1, 1)
        down = self.uniform(x, -self.translate, self.translate) * rows
        right = self.uniform(x, -self.translate, self.translate) * columns
        sine, cosine = size * ops.sin(angle), size * ops.cos(angle)
        matrix = (cosine, -sine, sine, cosine)
        return of_frames(warped, x, *matrix, down, right, fill=self.fill, level=self.level)


# === The moves themselves ===


def of_frames(move, x, *numbers, **options):
    """A move of pictures, on pictures or on every frame of clips; numbers: [N, 1, ..., 1] each."""
    frames = x.shape[1] if len(x.shape) == 5 else 1
    numbers = [ops.repeat(ops.reshape(a, (-1, 1, 1)), frames, axis=0) for a in numbers]
    moved = move(ops.reshape(x, (-1, *x.shape[-3:])), *numbers, **options)
    return ops.reshape(moved, (-1, *x.shape[1:]))


def shifted(x, down, right, *, fill: str, level: Any):
    """Pictures [N, H, W, C] that show what lies `down` and `right`, whole pixels [N, 1, 1]."""
    rows, columns = _grid(x, "int32")
    return pixels_at(x, rows + down, columns + right, fill, level)


def enlarged(x, top, left, height, width):
    """Boxes of pictures [N, H, W, C] at the pictures' size, bilinearly; whole pixels [N, 1, 1]."""
    rows, columns = _grid(x, x.dtype)
    down = (rows + 0.5) * height / x.shape[1] - 0.5
    right = (columns + 0.5) * width / x.shape[2] - 0.5
    down, right = ops.clip(down, 0, height - 1), ops.clip(right, 0, width - 1)
    return sampled(x, top + down, left + right, "nearest", 0.0)


def warped(x, a, b, c, d, down, right, *, fill: str, level: Any):
    """Pictures [N, H, W, C] whose pixel p, from the middle, shows [[a, b], [c, d]] p + shift.

    All numbers [N, 1, 1]; places are (row, column); the shift is (down, right), in pixels.
    """
    rows, columns = _grid(x, x.dtype)
    middle_row, middle_column = (x.shape[1] - 1) / 2, (x.shape[2] - 1) / 2
    rows, columns = rows - middle_row, columns - middle_column
    seen_rows = a * rows + b * columns + (down + middle_row)
    seen_columns = c * rows + d * columns + (right + middle_column)
    return sampled(x, seen_rows, seen_columns, fill, level)


def sampled(x, rows, columns, fill: str, level: Any):
    """Pictures [N, H, W, C] at any places, float [N, H', W'], bilinearly."""
    first_row, first_column = ops.floor(rows), ops.floor(columns)
    below, beside = rows - first_row, columns - first_column
    first_row, first_column = ops.cast(first_row, "int32"), ops.cast(first_column, "int32")

    def corner(down: int, right: int):
        weight = (below if down else 1 - below) * (beside if right else 1 - beside)
        at = pixels_at(x, first_row + down, first_column + right, fill, level)
        return ops.expand_dims(weight, -1) * at

    return corner(0, 0) + corner(0, 1) + corner(1, 0) + corner(1, 1)


def pixels_at(x, rows, columns, fill: str, level: Any):
    """Pixels [N, H', W', C] of pictures [N, H, W, C] at whole places, int32 [N, H', W'].

    level: what `constant` fills with, a number or an array that broadcasts to [H', W', C].
    """
    _, height, width, channels = x.shape
    picture = ops.reshape(ops.arange(ops.shape(x)[0]), (-1, 1, 1)) * (height * width)
    index = picture + _inside(rows, height, fill) * width + _inside(columns, width, fill)
    found = ops.take(ops.reshape(x, (-1, channels)), index, axis=0)
    if fill != "constant":
        return found
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return ops.where(ops.expand_dims(is_inside, -1), found, ops.cast(level, x.dtype))


def _inside(places, side: int, fill: str):
    """Where in a row of `side` pixels the pixel stands that is seen at each place."""
    if fill == "wrap":
        return places % side
    if fill == "reflect":
        around = places % (2 * side)
        return ops.minimum(around, 2 * side - 1 - around)
    return ops.clip(places, 0, side - 1)


def _grid(x, dtype: str) -> tuple:
    """The row [1, H, 1] and the column [1, 1, W] of each pixel."""
    _, height, width, _ = x.shape
    places = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    return tuple(ops.cast(place, dtype) for place in places)
