"""Random moves of voxel grids [N, depth, height, width, channels]: turns and shifts.

Every grid of a batch is moved by itself, by whole cells, so that full stays full and empty empty.
Maturana and Scherer turn each object about the vertical axis and shift it (VoxNet, 2015, IV-A).
"""

from typing import Any

from keras import ops

from striate.train.augment.change import Change


class RandomQuarterTurn(Change):
    """About the vertical axis, by 0, 90, 180 or 270 degrees; depth and width must be equal."""

    def changed(self, x):
        turns = self.integer(x, 0, 4)
        turned, chosen = x, x
        for quarters in (1, 2, 3):
            turned = ops.flip(ops.transpose(turned, (0, 3, 2, 1, 4)), axis=1)
            chosen = ops.where(turns == quarters, turned, chosen)
        return chosen


class RandomShift(Change):
    """By up to a share of each side, to either end; what comes in from outside is empty."""

    def __init__(self, share: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def changed(self, x):
        for axis in (1, 2, 3):
            side = x.shape[axis]
            most = round(self.share * side)
            steps = ops.reshape(self.integer(x, -most, most + 1), (-1, 1, 1))
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
