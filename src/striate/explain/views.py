"""Pictures made for looking at: what filters see, what a net likes, what deceives it.

Each view takes a subject, pixels float32 [N, H, W, C] and targets int [N], and gives one drawing
for each picture, or for each target where it needs no pictures, or one of them all together.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from striate.errors import UsageError
from striate.explain.activations import activations
from striate.explain.drawing import Drawing, side_by_side
from striate.explain.fgsm import EPSILON, fgsm
from striate.explain.filters import filters, grid
from striate.explain.inversion import invert
from striate.explain.landscape import landscape
from striate.explain.maximise import excitement, maximise
from striate.explain.minimal import minimal
from striate.explain.overviews import (
    block_bars,
    check_plane,
    codes_scatter,
    dead_filters,
    endurance_curve,
    loss_contours,
    patches,
)
from striate.explain.patches import exciting_patches
from striate.explain.paths import deletions
from striate.explain.pgd import pgd
from striate.explain.style import transfer_style
from striate.explain.subject import Subject, as_array
from striate.preprocess import pixels as decode

MOST_MAPS = 256  # of one layer that are drawn


@dataclasses.dataclass(frozen=True)
class View:
    """function: (subject, pixels, targets, **options) -> a drawing each. shows: what, in words.

    of: what it needs: "pictures", a "set" of them in one drawing, "classes" (targets alone), or
    "net" (neither). options: the function that the view hands its other options to. check: told the
    options before anything is loaded; raises `UsageError` where it cannot be drawn. leads: whether
    it goes from the answer to the target, which must be named then.
    """

    function: Callable[..., list[Drawing]]
    shows: str
    of: str = "pictures"
    options: Callable | None = None
    check: Callable[[Mapping[str, Any]], None] = lambda options: None
    leads: bool = False


def activation_grid(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, layer: str | None = None
) -> list[Drawing]:
    """The maps of a layer, each from black (0 or less) to white (its highest)."""
    name = subject.cam_layer(layer)
    drawings = []
    for maps in activations(subject, pixels, layer=layer):
        silent = int((maps.max(axis=(0, 1)) <= 0).sum())
        top = maps.max(axis=(0, 1))
        shown = np.moveaxis(maps / np.where(top > 0, top, 1), -1, 0)[:MOST_MAPS, ..., None]
        facts = {"layer": name, "maps": maps.shape[-1], "silent": silent}
        caption = f"{name}: {maps.shape[-1]} maps, {silent} silent"
        drawings.append(Drawing(grid(np.maximum(shown, 0)), caption, facts))
    return drawings


def filter_grid(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, layer: str | None = None
) -> list[Drawing]:
    """The kernels of a convolution."""
    found = filters(subject, layer=layer)[:MOST_MAPS]
    name = layer or subject.spec.first_conv
    facts = {"layer": name, "filters": len(found)}
    return [Drawing(grid(found), f"{name}: {len(found)} filters", facts)]


def favourite(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, **options
) -> list[Drawing]:
    """What a class likes best, or a unit of a layer; options as of `maximise`."""
    made = maximise(subject, targets, **options)
    layer = options.get("layer")
    excited = as_array(excitement(subject, layer, made, targets)).tolist()
    drawings = []
    for picture, target, value in zip(made, targets.tolist(), excited, strict=True):
        if layer is None:
            who, facts = repr(subject.labels[target]), {"class": subject.labels[target]}
            facts["logit"] = value
        else:
            who, facts = f"unit {target} of {layer}", {"layer": layer, "unit": target}
            facts["value"] = value
        drawings.append(Drawing(side_by_side(picture), f"what {who} likes best", facts))
    return drawings


def inversion(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, **options
) -> list[Drawing]:
    """A picture and another with the same features; options as of `invert`."""
    made = invert(subject, pixels, **options)
    layers = options.get("layers") or subject.cam_layer()
    caption = f"what {layers} still knows"
    return [
        Drawing(side_by_side(x, y), caption, {"layers": layers})
        for x, y in zip(pixels, made, strict=True)
    ]


def style(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    like: str | os.PathLike | np.ndarray | None = None,
    **options,
) -> list[Drawing]:
    """A picture in the style of another, which is `like`; other options as of `transfer_style`."""
    if like is None:
        raise UsageError("style needs the picture whose style to take: --set like=painting.jpg")
    manner = decode(like, subject.preprocess).astype(np.float32)
    made = transfer_style(subject, pixels, manner[None], **options)
    name = "an array" if isinstance(like, np.ndarray) else os.fspath(like)
    return [
        Drawing(side_by_side(x, manner, y), f"in the style of {name}", {"like": name})
        for x, y in zip(pixels, made, strict=True)
    ]


def fgsm_attack(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, epsilon: float = EPSILON
) -> list[Drawing]:
    """A picture, the step magnified, and where it leads."""
    return _attacked(subject, pixels, fgsm(subject, pixels, targets, epsilon=epsilon))


def pgd_attack(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, **options
) -> list[Drawing]:
    """A picture, the walk magnified, and where it leads; options as of `pgd`."""
    return _attacked(subject, pixels, pgd(subject, pixels, targets, **options))


def minimal_attack(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, **options
) -> list[Drawing]:
    """A picture, the least change magnified, and the target that the net then answers."""
    return _attacked(subject, pixels, minimal(subject, pixels, targets, **options))


def _attacked(subject: Subject, before: np.ndarray, after: np.ndarray) -> list[Drawing]:
    answers = [as_array(subject.logits(x)).argmax(axis=1) for x in (before, after)]
    drawings = []
    for x, y, old, new in zip(before, after, *answers, strict=True):
        change = y - x
        magnified = 127.5 + change * 127.5 / max(1e-6, float(np.abs(change).max()))
        facts = {
            "was": subject.labels[old],
            "is": subject.labels[new],
            "furthest": float(np.abs(change).max()),
            "rms": float(np.sqrt((change**2).mean())),
        }
        caption = f"{facts['was']} -> {facts['is']}, no pixel by more than {facts['furthest']:.1f}"
        drawings.append(Drawing(side_by_side(x, magnified, y), caption, facts))
    return drawings


VIEWS: dict[str, View] = {
    "activations": View(activation_grid, "what each filter of a layer sees in the picture"),
    "filters": View(filter_grid, "the kernels of the first convolution", of="net"),
    "maximise": View(favourite, "the picture that a class likes best", "classes", maximise),
    "invert": View(inversion, "what a layer still knows of the picture", options=invert),
    "style": View(style, "the picture in the style of another", options=transfer_style),
    "fgsm": View(fgsm_attack, "the one step of epsilon that hurts most"),
    "pgd": View(pgd_attack, "a walk inside the ball of radius epsilon", options=pgd),
    "minimal": View(
        minimal_attack, "the nearest picture taken for the target", options=minimal, leads=True
    ),
    "robustness": View(endurance_curve, "how many survive fgsm, over epsilon", "set"),
    "dead": View(dead_filters, "the filters that no picture excites", "set"),
    "codes": View(codes_scatter, "which pictures the net finds alike", "set", check=check_plane),
    "patches": View(patches, "the places that excite a unit most", "set", exciting_patches),
    "landscape": View(loss_contours, "the loss around the net's weights", "set", landscape),
    "paths": View(block_bars, "the loss without each residual block", "set", deletions),
}
