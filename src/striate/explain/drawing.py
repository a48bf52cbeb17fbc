"""Explanations as pictures: maps over photographs, and grids of small ones."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from striate.files import whole

LEAST = 320  # pixels: smaller pictures are enlarged, unsmoothed, so that a person can see them
STRONGEST = 0.65  # the share of the colour over a picture where its map is highest
CUT = 99.8  # per cent of a map's places below the end of its scale


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """A picture uint8 [H, W, 1 or 3], what is in it in words, and facts for a program."""

    pixels: np.ndarray
    caption: str
    facts: dict


def coloured(heat: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """A map [H, W] as colours, uint8 [H, W, 3]: from dark to yellow; of a signed map, what speaks
    for the class is red and what speaks against it blue. The few highest values are cut off."""
    import matplotlib

    level = heat / _reach(heat)
    name, level = ("coolwarm", 0.5 + level / 2) if signed else ("inferno", level)
    return np.rint(255 * matplotlib.colormaps[name](np.clip(level, 0, 1))[..., :3]).astype(np.uint8)


def overlay(pixels: np.ndarray, heat: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """A picture uint8 [H, W, C] in grey with the colours of its map [H, W] over it, the stronger
    the higher the map: uint8 [H, W, 3]."""
    grey = pixels.astype(np.float32).mean(axis=-1, keepdims=True)
    share = STRONGEST * np.sqrt(np.clip(np.abs(heat) / _reach(heat), 0, 1))[..., None]
    mixed = (1 - share) * grey + share * coloured(heat, signed=signed)
    return np.rint(mixed).astype(np.uint8)


def _reach(heat: np.ndarray) -> float:
    return float(np.percentile(np.abs(heat), CUT)) or 1.0


def side_by_side(*pictures: np.ndarray) -> np.ndarray:
    """Pictures [H, W, 1 or 3] of values 0 to 255, next to each other: uint8 [H, W, 3]."""
    whole = [np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in pictures]
    return np.concatenate([np.broadcast_to(p, (*p.shape[:2], 3)) for p in whole], axis=1)


def save_picture(pixels: np.ndarray, path: Path) -> Path:
    """Write uint8 [H, W, 1 or 3] as PNG, enlarged by a whole factor where it is tiny."""
    from PIL import Image

    factor = max(1, LEAST // min(pixels.shape[:2]))
    large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = Image.fromarray(large.squeeze(-1) if large.shape[-1] == 1 else large)
    with whole(path) as fresh:
        picture.save(fresh)
    return path


def unique(names: Sequence[str]) -> list[str]:
    """Names that are safe as files, told apart by a number where they repeat, capitals or not."""
    taken: set[str] = set()
    found = []
    for name in names:
        safe = re.sub(r"[^\w.-]+", "_", name) or "picture"
        tries = itertools.chain([safe], (f"{safe}_{n}" for n in itertools.count(2)))
        found.append(next(free for free in tries if free.lower() not in taken))
        taken.add(found[-1].lower())
    return found
