"""Pictures whose evidence is known: one pattern is planted in each, and it alone tells the class.

A net that names the pattern has seen it, so that a map of what the net looked at must point there.
"""

import dataclasses

import numpy as np

from striate.errors import UsageError

PATTERNS = ("stripes", "checks", "rings", "cross")


@dataclasses.dataclass(frozen=True, eq=False)
class Planted:
    """images: uint8 [N, side, side, 3]; labels: int64 [N], of `PATTERNS`; masks: bool
    [N, side, side], where the evidence lies."""

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def planted(n: int, *, side: int = 48, patch: int = 14, seed: int = 0) -> Planted:
    """n pictures of coloured clouds, each with one pattern of patch x patch pixels somewhere.

    Elsewhere lies a decoy, the same pixels in a random order: what only looks for contrast points
    there as often. The clouds know nothing of the class.
    """
    if side <= 2 * patch:
        raise UsageError(
            f"expected a side of more than two patches, {2 * patch} pixels, so that both patterns "
            f"have their place; got {side}"
        )
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(PATTERNS), n)
    images = np.stack([_clouds(side, random) for _ in range(n)])
    masks = np.zeros((n, side, side), bool)
    for image, mask, label in zip(images, masks, labels, strict=True):
        colours = random.permutation([40.0, 215.0])
        evidence = np.where(_pattern(PATTERNS[label], patch), *colours)[..., None]
        decoy = random.permutation(evidence.ravel()).reshape(evidence.shape)
        here, there = _two_places(side, patch, random)
        image[here], image[there] = evidence, decoy
        mask[here] = True
    noisy = images + random.normal(0, 8, images.shape)
    return Planted(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), labels, masks)


def _two_places(side: int, patch: int, random: np.random.Generator):
    """Two squares that do not touch, each as a pair of slices."""
    while True:
        (top, left), (other_top, other_left) = random.integers(0, side - patch + 1, (2, 2))
        if max(abs(top - other_top), abs(left - other_left)) > patch:
            break
    return tuple(
        (slice(row, row + patch), slice(column, column + patch))
        for row, column in ((top, left), (other_top, other_left))
    )


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> float:
    """The share of maps [N, H, W] whose highest place lies on the evidence.

    Zhang, Bargal, Lin, Brandt, Shen, Sclaroff, "Top-down Neural Attention by Excitation Backprop",
    2016, arXiv:1608.00507.
    """
    highest = maps.reshape(len(maps), -1).argmax(axis=1)
    return float(masks.reshape(len(masks), -1)[np.arange(len(masks)), highest].mean())


def _pattern(name: str, size: int) -> np.ndarray:
    """bool [size, size], about half of it True."""
    row, column = np.mgrid[:size, :size]
    if name == "stripes":
        return row // 2 % 2 == 0
    if name == "checks":
        return (row // 3 + column // 3) % 2 == 0
    centre = (size - 1) / 2
    if name == "rings":
        return np.hypot(row - centre, column - centre) // 2 % 2 == 0
    return np.abs(np.abs(row - centre) - np.abs(column - centre)) < size * 0.15


def _clouds(side: int, random: np.random.Generator) -> np.ndarray:
    """Smooth random colours, float64 [side, side, 3] on 0 to 255."""
    from PIL import Image

    coarse = random.integers(30, 226, (6, 6, 3), dtype=np.uint8)
    fine = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float64)
