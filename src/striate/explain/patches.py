"""The pictures, and the places in them, that excite one unit most.

Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies for accurate object detection", 2013,
arXiv:1311.2524, section 3.1.
"""

import dataclasses
from math import floor

import numpy as np

from striate.costs import count
from striate.explain.subject import Subject, in_batches


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
    """One place that excites a unit.

    index: of the picture; value: of the unit there; box: (top, left, bottom, right) in pixels,
    what the unit sees of the picture; pixels: uint8 [h, w, C], that part.
    """

    index: int
    value: float
    box: tuple[int, int, int, int]
    pixels: np.ndarray


def exciting_patches(
    subject: Subject,
    pixels: np.ndarray,
    unit: int,
    *,
    layer: str | None = None,
    most: int = 9,
    batch_size: int = 16,
) -> list[Patch]:
    """The patches that excite a map's unit most, the highest first, one for each picture.

    pixels: uint8 or float [N, H, W, C]; unit: the number of the map in the layer, by default the
    spec's CAM layer. Raises `UsageError` for a unit that the layer does not have.
    """
    name = subject.cam_layer(layer)
    unit = subject.unit(name, unit)
    maps = in_batches(lambda x: subject.at(name, x)[..., unit], pixels, batch_size=batch_size)
    best = maps.reshape(len(maps), -1).max(axis=1)
    found = []
    for i in np.argsort(-best, kind="stable")[:most]:
        place = np.unravel_index(maps[i].argmax(), maps[i].shape)
        top, left, bottom, right = box = _seen(subject, name, place)
        patch = np.rint(pixels[i, top:bottom, left:right]).astype(np.uint8)
        found.append(Patch(int(i), float(best[i]), box, patch))
    return found


def _seen(subject: Subject, name: str, place) -> tuple[int, int, int, int]:
    """What a place of a layer's maps sees of the picture; the rest of its field is padding."""
    costs = next(layer for layer in count(subject.net).layers if layer.name == name)
    whole = subject.preprocess.shape[:2]
    if costs.receptive_field is None or costs.jump is None or costs.start is None:
        return 0, 0, *whole
    steps = zip(costs.start, place, costs.jump, strict=True)
    top, left = (floor(start + at * jump) for start, at, jump in steps)
    height, width = costs.receptive_field
    return max(0, top), max(0, left), min(whole[0], top + height), min(whole[1], left + width)
