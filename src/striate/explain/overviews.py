"""Views of many pictures at once: which are alike, what excites a unit, how the loss lies.

Each takes a subject, pixels float32 [N, H, W, C] and targets int [N], and gives one drawing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from striate.errors import UsageError
from striate.explain.activations import activity
from striate.explain.charts import bars, contours, curve, scatter
from striate.explain.drawing import Drawing
from striate.explain.embedding import check_tsne, codes, pca, tsne
from striate.explain.fgsm import LEVELS, endurance
from striate.explain.filters import grid
from striate.explain.landscape import landscape, mean_loss
from striate.explain.patches import exciting_patches
from striate.explain.paths import deletions
from striate.explain.subject import Subject

LOSS = "mean cross-entropy, nats"


def check_plane(options: Mapping[str, Any]) -> None:
    """`UsageError` for a plane that there is not, or not here."""
    plane = options.get("plane", "tsne")
    if plane not in ("tsne", "pca"):
        raise UsageError(f"codes: expected plane=tsne or plane=pca, got {plane!r}")
    if plane == "tsne":
        check_tsne()


def codes_scatter(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    plane: str = "tsne",
    perplexity: float = 30.0,
    seed: int = 0,
) -> list[Drawing]:
    """The pictures' features in a plane, by `tsne` (perplexity and seed are its own) or `pca`."""
    check_plane({"plane": plane})
    found = codes(subject, pixels)
    points = pca(found) if plane == "pca" else tsne(found, perplexity=perplexity, seed=seed)
    facts = {"plane": plane, "points": points.tolist(), "targets": targets.tolist()}
    caption = f"{len(points)} pictures by their {found.shape[1]} features, {plane}"
    return [Drawing(scatter(points, targets, subject.labels), caption, facts)]


def dead_filters(subject: Subject, pixels: np.ndarray, targets: np.ndarray) -> list[Drawing]:
    """How many filters of each rectified layer no picture excites.

    Raises `UsageError` for a net without rectified layers: elsewhere 0 means nothing.
    """
    rows = activity(subject, pixels)
    if not rows:
        raise UsageError(f"{subject.spec.name} has no rectified layers whose filters could be dead")
    percent = {row.layer: 100 * len(row.dead) / row.filters for row in rows}
    filters, dead = sum(row.filters for row in rows), sum(len(row.dead) for row in rows)
    facts = {"pictures": len(pixels), "filters": filters, "dead": {r.layer: r.dead for r in rows}}
    caption = f"{dead} of {filters} filters are silent on all of {len(pixels)} pictures"
    drawn = bars(percent, 100 * dead / filters, "% of the layer's filters that are dead")
    return [Drawing(drawn, caption, facts)]


def patches(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, unit: int = 0, **options
) -> list[Drawing]:
    """The places that excite one unit of a layer most; other options as of `exciting_patches`."""
    found = exciting_patches(subject, pixels, unit, **options)
    name = subject.cam_layer(options.get("layer"))
    height, width = np.max([patch.pixels.shape[:2] for patch in found], axis=0)
    sheet = np.ones((len(found), height, width, pixels.shape[-1]))  # white beyond the picture
    for cell, patch in zip(sheet, found, strict=True):
        cell[: patch.pixels.shape[0], : patch.pixels.shape[1]] = patch.pixels / 255
    places = [{"index": p.index, "value": p.value, "box": list(p.box)} for p in found]
    caption = f"what excites unit {unit} of {name} most, from {found[0].value:.3g} down"
    return [Drawing(grid(sheet), caption, {"layer": name, "unit": unit, "patches": places})]


def loss_contours(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    points: int = 11,
    reach: float = 1.0,
    **options,
) -> list[Drawing]:
    """The loss around the net's weights, points x points of it; options as of `landscape`."""
    if points < 2:
        raise UsageError(f"landscape: expected at least 2 points along a side, got {points}")
    if not reach:
        raise UsageError("landscape: expected a reach above 0, which is the weights alone")
    surface = landscape(subject, pixels, targets, points=points, reach=reach, **options)
    middle = mean_loss(subject, pixels, targets, batch_size=64)
    facts = {"reach": reach, "own": middle, "surface": surface.tolist()}
    caption = f"loss {middle:.3g} in the middle, up to {surface.max():.3g} around it"
    return [Drawing(contours(surface, reach, LOSS), caption, facts)]


def block_bars(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, **options
) -> list[Drawing]:
    """The loss without each residual block in turn; options as of `deletions`."""
    found = deletions(subject, pixels, targets, **options)
    whole = mean_loss(subject, pixels, targets, batch_size=64)
    worst = max(found, key=found.get)
    caption = (
        f"{2 ** len(found)} paths; the loss is {whole:.3g}, without {worst} {found[worst]:.3g}"
    )
    facts = {"whole": whole, "without": found}
    return [Drawing(bars(found, whole, f"{LOSS}, without the block"), caption, facts)]


def endurance_curve(subject: Subject, pixels: np.ndarray, targets: np.ndarray) -> list[Drawing]:
    """The share of pictures still taken for their targets as FGSM may move pixels further."""
    stands = endurance(subject, pixels, targets, [level / 255 for level in LEVELS])
    share = stands.mean(axis=1).tolist()
    facts = {"grey_levels": list(LEVELS), "accuracy": share}
    caption = (
        f"of {len(pixels)} pictures {share[0]:.0%} stand; moved by a grey level {share[2]:.0%}"
    )
    drawn = curve(LEVELS, share, "grey levels by which a pixel moves", "share that stands")
    return [Drawing(drawn, caption, facts)]
