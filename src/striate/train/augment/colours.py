"""Random changes of colours, on pictures [N, H, W, C] and clips [N, T, H, W, C] of levels 0 to 255.

The colour jitter of Krizhevsky's successors; Howard 2013, arXiv:1312.5402. All the frames of a clip
change alike. Numbers are [N, 1, ..., 1].
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from striate.train.augment.change import Change


class RandomColour(Change):
    """A change by a number from low to high, drawn for each example; change: one of this file."""

    def __init__(self, change: Callable, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.change, self.low, self.high = change, low, high

    def changed(self, x):
        return self.change(x, self.uniform(x, self.low, self.high))


def brightened(x, share):
    """Lighter by this share of the range."""
    return ops.clip(x + 255.0 * share, 0, 255)


def contrasted(x, factor):
    """Each level so many times as far from the mean of its channel in its picture."""
    mean = ops.mean(x, axis=(-3, -2), keepdims=True)
    return ops.clip(mean + factor * (x - mean), 0, 255)


def saturated(x, factor):
    """So many times the saturation of HSV, at most 1; hue and value stay. x: [..., 3].

    In HSV, every channel is value * (1 - saturation * something of the hue), so that saturation
    scales the distance to the largest channel.
    """
    value = ops.max(x, axis=-1, keepdims=True)
    spread = value - ops.min(x, axis=-1, keepdims=True)
    factor = ops.minimum(factor, value / ops.maximum(spread, 1e-6))
    return ops.maximum(value - factor * (value - x), 0)


def rehued(x, turn):
    """The hue of HSV turned by this share of the circle; saturation and value stay. x: [..., 3]."""
    red, green, blue = x[..., :1], x[..., 1:2], x[..., 2:]
    value = ops.max(x, axis=-1, keepdims=True)
    spread = value - ops.min(x, axis=-1, keepdims=True)
    some = ops.maximum(spread, 1e-6)
    of_green = 2 + (blue - red) / some
    of_blue = 4 + (red - green) / some
    sixth = ops.where(value == green, of_green, of_blue)
    sixth = ops.where(value == red, (green - blue) / some, sixth) + 6 * turn
    around = (ops.convert_to_tensor([5.0, 3.0, 1.0], x.dtype) + sixth) % 6
    return value - spread * ops.clip(ops.minimum(around, 4 - around), 0, 1)
