"""Random moves of voxel grids [N, depth, height, width, channels]: turns, mirrors and shifts.

Every grid of a batch is moved by itself, by whole cells, so that full stays full and empty empty.
Maturana and Scherer turn each object about the vertical axis and shift it (VoxNet, 2015, IV-A).
"""

from typing import Any

import keras
from keras import ops


class _RandomMove(keras.layers.Layer):
    """A layer that changes grids where it is called with training=True, from a seed of its own."""

    def __init__(self, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, x, training=False):
        x = ops.cast(x, self.compute_dtype)
        return self.moved(x) if training else x

    def moved(self, x):
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        return input_shape

    def _draw(self, x, low: int, high: int):
        """An integer from low to high - 1 for each grid of x, [N, 1, 1, 1, 1]."""
        return keras.random.randint((ops.shape(x)[0], 1, 1, 1, 1), low, high, seed=self.generator)


class RandomQuarterTurn(_RandomMove):
    """About the vertical axis, by 0, 90, 180 or 270 degrees; depth and width must be equal."""

    def moved(self, x):
        turns = self._draw(x, 0, 4)
        turned, chosen = x, x
        for quarters in (1, 2, 3):
            turned = ops.flip(ops.transpose(turned, (0, 3, 2, 1, 4)), axis=1)
            chosen = ops.where(turns == quarters, turned, chosen)
        return chosen


class RandomMirror(_RandomMove):
    """Along an axis of the batch, 1 to 3, every second time."""

    def __init__(self, axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def moved(self, x):
        return ops.where(self._draw(x, 0, 2) == 1, ops.flip(x, axis=self.axis), x)


class RandomShift(_RandomMove):
    """By up to a share of each side, to either end; what comes in from outside is empty."""

    def __init__(self, share: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def moved(self, x):
        for axis in (1, 2, 3):
            side = x.shape[axis]
            most = round(self.share * side)
            steps = ops.reshape(self._draw(x, -most, most + 1), (-1, 1, 1))
            cells = ops.arange(side)
            # A matrix with a single one in each row moves cells exactly, and empties the rest.
            move = ops.cast(cells[:, None] - cells[None] == steps, x.dtype)
            x = ops.moveaxis(x, axis, 1)
            shape = ops.shape(x)
            x = ops.reshape(ops.matmul(move, ops.reshape(x, (-1, side, _product(x)))), shape)
            x = ops.moveaxis(x, 1, axis)
        return x


def _product(x) -> int:
    """How many numbers stand behind the first two axes."""
    return int(x.shape[2] * x.shape[3] * x.shape[4])
