"""Flat digits made into what nets of three axes take: turned blocks of voxels, and moving clips.

    python examples/digits_in_space_and_time.py mnist10k.npz voxels digits_voxels.npz
    striate train mnist3d --data digits_voxels.npz -o models/mnist3d

    python examples/digits_in_space_and_time.py mnist10k.npz clips digits_clips.npz
    striate train cnn3d_ji --data digits_clips.npz -o models/motion

The first argument is an `.npz` of `images`, uint8 [N, 28, 28], and `labels`. A voxel digit is the
digit cut out of a thick plate and turned in space; its class is the digit. A clip is a digit that
goes left, right or up over seven frames; its class is the way it goes, which no frame by itself
tells.
"""

import argparse
from pathlib import Path

import numpy as np

SIDE = 16  # cells along each axis of a grid
THICK = 6  # cells that a digit is thick
TURN, TILT = 45, 20  # degrees, about the vertical and about the horizontal axis
FRAMES, HEIGHT, WIDTH = 7, 60, 40  # of a clip
WAYS = ("left", "right", "up")


def voxels_of(digits: np.ndarray, seed: int = 0) -> np.ndarray:
    """uint8 [N, 16, 16, 16, 3] of digits uint8 [N, 28, 28]: depth, height, width, colour.

    Each digit is turned by up to 45 degrees and tilted by up to 20. Its colour goes from red in
    front to blue behind, as its own depth and not the grid's, so that it turns with it.
    """
    generator = np.random.default_rng(seed)
    turns = np.radians(generator.uniform(-TURN, TURN, len(digits)))
    tilts = np.radians(generator.uniform(-TILT, TILT, len(digits)))
    grid = np.stack(np.mgrid[:SIDE, :SIDE, :SIDE], axis=-1) - (SIDE - 1) / 2  # depth, height, width
    cells = np.empty((len(digits), SIDE, SIDE, SIDE, 3), np.uint8)
    for i, digit in enumerate(digits):
        # Where each cell of the turned block came from in the block that stands straight.
        depth, row, column = np.moveaxis(grid @ _rotation(turns[i], tilts[i]), -1, 0)
        scale = digit.shape[0] / SIDE
        rows = np.rint((row + SIDE / 2) * scale - 0.5).astype(int)
        columns = np.rint((column + SIDE / 2) * scale - 0.5).astype(int)
        inside = (np.minimum(rows, columns) >= 0) & (np.maximum(rows, columns) < digit.shape[0])
        inside &= np.abs(depth) <= THICK / 2
        levels = np.where(inside, digit[rows * inside, columns * inside], 0)
        behind = np.clip(depth / THICK + 0.5, 0, 1)
        colour = np.stack([1 - behind, np.full_like(behind, 0.5), behind], axis=-1)
        cells[i] = np.rint(levels[..., None] * colour)
    return cells


def clips_of(digits: np.ndarray, ways: np.ndarray, seed: int = 0) -> np.ndarray:
    """uint8 [N, 7, 60, 40] of digits uint8 [N, 28, 28], each going the way of its number.

    One or two pixels a frame, from a random place where it has room.
    """
    generator = np.random.default_rng(seed)
    clips = np.zeros((len(digits), FRAMES, HEIGHT, WIDTH), np.uint8)
    height, width = digits.shape[1:]
    steps = np.arange(FRAMES) - (FRAMES - 1) // 2
    for clip, digit, way in zip(clips, digits, ways, strict=True):
        speed = generator.integers(1, 3)
        down, right = {"left": (0, -1), "right": (0, 1), "up": (-1, 0)}[WAYS[way]]
        reach = speed * abs(steps[0])
        top = generator.integers(reach * abs(down), HEIGHT - height - reach * abs(down) + 1)
        left = generator.integers(reach * abs(right), WIDTH - width - reach * abs(right) + 1)
        for frame, step in zip(clip, speed * steps, strict=True):
            y, x = top + down * step, left + right * step
            frame[y : y + height, x : x + width] = digit
    return clips


def _rotation(turn: float, tilt: float) -> np.ndarray:
    """The matrix [3, 3] that turns (depth, height, width) about the height, then the width."""
    about_height = np.array(
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
    )
    about_width = np.array(
        [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]]
    )
    return about_height @ about_width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("digits", type=Path, help="an .npz of images [N, 28, 28] and labels")
    parser.add_argument("what", choices=("voxels", "clips"))
    parser.add_argument("output", type=Path)
    parser.add_argument("-n", type=int, default=2500, help="how many digits, from the first on")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with np.load(given.digits) as stored:
        digits, labels = stored["images"][: given.n], stored["labels"][: given.n]
    if given.what == "voxels":
        np.savez_compressed(given.output, images=voxels_of(digits, given.seed), labels=labels)
    else:
        ways = np.arange(len(digits)) % len(WAYS)
        clips = clips_of(digits, ways, given.seed)
        np.savez_compressed(given.output, images=clips, labels=ways, classes=np.array(WAYS))
    print(f"wrote {given.output}: {len(digits)} {given.what}")


if __name__ == "__main__":
    main()
