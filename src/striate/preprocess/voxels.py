"""Voxels: a grid of an object's cells, as VoxNet takes them."""

import dataclasses
import os
from typing import Any, ClassVar

import numpy as np

from striate.errors import DataError
from striate.preprocess.spec import Spec, stored, stored_array


@dataclasses.dataclass(frozen=True)
class VoxelPreprocess(Spec):
    """How a grid of voxels becomes the tensor of one net.

    depth, height, width, channels: the net's input; height is the axis that points up or down.
    mean, scale: per channel, on 0 (empty) to 255 (full): x -> (x - mean) * scale.

    A smaller grid stands in the middle of the net's, in empty cells: shapes are told apart by their
    cells, which a resampling would smear.
    """

    kind: ClassVar[str] = "voxels"
    noun: ClassVar[str] = "voxel grid"

    depth: int
    height: int
    width: int
    channels: int = 1
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1 / 255,)

    def __post_init__(self) -> None:
        self._keep_whole("depth", "height", "width", "channels")
        self._keep_floats(self.channels, "channel")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(depth, height, width, channels) of the tensor."""
        return (self.depth, self.height, self.width, self.channels)

    def read(self, source: bytes | str | os.PathLike | np.ndarray) -> np.ndarray:
        """uint8 [depth, height, width, channels] of a grid, or of the `.npy` file of one.

        A grid is uint8 levels or bool (full or not) [d, h, w] or [d, h, w, c], at most as large as
        the net's; one channel stands for all. Levels of 0 and 1 alone mean empty and full, too.
        """
        if isinstance(source, np.ndarray):
            return self._centred("the grid", source)
        name, data = stored(source, "the grid")
        return self._centred(name, stored_array(name, data))

    def layer(self, name: str = "normalise") -> Any:
        """The Keras layer uint8 [N, D, H, W, C] -> float32 of this specification."""
        from striate.layers.normalise import Normalise

        return Normalise(order="rgb", mean=self.mean, scale=self.scale, name=name)

    def _centred(self, name: str, grid: np.ndarray) -> np.ndarray:
        if grid.dtype == np.uint8 and grid.shape == self.shape:
            return levels_of(grid)
        if grid.ndim not in (3, 4) or grid.dtype not in (np.uint8, np.bool_):
            raise DataError(
                f"{name}: expected voxels [d, h, w] or [d, h, w, channels], uint8 or bool, "
                f"got {grid.dtype} {list(grid.shape)}"
            )
        cells = grid[..., np.newaxis] if grid.ndim == 3 else grid
        sides = cells.shape[:3]
        if any(side > most for side, most in zip(sides, self.shape, strict=False)):
            raise DataError(
                f"{name}: expected at most {_by(self.shape[:3])} voxels, got {_by(sides)}; "
                "give the net a larger model.size, or make the grid coarser"
            )
        if cells.shape[3] not in (1, self.channels):
            raise DataError(f"{name}: expected {self.channels} channels, got {cells.shape[3]}")
        tensor = np.zeros(self.shape, np.uint8)
        starts = [(most - side) // 2 for side, most in zip(sides, self.shape, strict=False)]
        d, h, w = (slice(start, start + n) for start, n in zip(starts, sides, strict=True))
        tensor[d, h, w] = levels_of(cells)
        return tensor


def levels_of(cells: np.ndarray) -> np.ndarray:
    """uint8 levels of grids [..., d, h, w, c]: of one whose cells are but full or not, 1 is 255."""
    is_full_or_not = cells.max(axis=(-4, -3, -2, -1), keepdims=True, initial=0) <= 1
    return cells * np.where(is_full_or_not, np.uint8(255), np.uint8(1))


def _by(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
