"""Random changes of training pictures, as Keras layers in front of the normalisation.

They stand in the graph that is trained, where the accelerator runs them, and never in the net that
is saved: an exported graph must answer the same twice. Their random state is part of a checkpoint.
"""

from typing import Any

import numpy as np

from striate.errors import UsageError
from striate.preprocess import Spec
from striate.train.recipe import Augment

WHITE = 255.0


def augmentation(augment: Augment, seed: int, preprocess: Spec) -> list[Any]:
    """The layers uint8 [N, ..., C] -> float32 [N, ..., C] on 0 to 255 that a recipe asks for.

    They change pictures only where they are called with training=True. Each draws from its own
    seeded generator. Clips and voxels keep their shapes too.
    """
    if preprocess.kind == "vector":
        return []
    of_kind = _of_voxels if preprocess.kind == "voxels" else _of_pictures
    # float32 also under mixed precision: the pixels are bytes, and half floats would round them
    return [
        layer(**options, seed=seed + i, dtype="float32", name=f"augment_{i}")
        for i, (is_wanted, layer, options) in enumerate(of_kind(augment, preprocess))
        if is_wanted
    ]


def mixing(augment: Augment, seed: int) -> Any | None:
    """The layer that mixes the pictures of a batch, see `mix.Mix`; None for none."""
    from striate.train.augment.mix import Mix

    if not augment.mixup and not augment.cutmix:
        return None
    return Mix(
        augment.mixup,
        augment.cutmix,
        augment.mix_chance,
        seed=seed + 100,
        dtype="float32",
        name="mix",
    )


Wanted = list[tuple[bool, Any, dict[str, Any]]]


def _of_pictures(augment: Augment, preprocess: Spec) -> Wanted:
    """All the changes of pictures and clips, in their order: moves, colours, what is hidden."""
    from striate.train.augment.colours import (
        RandomColour,
        brightened,
        contrasted,
        rehued,
        saturated,
    )
    from striate.train.augment.erase import RandomCutout, RandomErasing
    from striate.train.augment.moves import RandomCrop, RandomMirror, RandomResizedCrop, RandomWarp
    from striate.train.augment.rand_augment import RandAugment

    of_colours = augment.saturation > 0 or augment.hue > 0
    if of_colours and preprocess.shape[-1] != 3:
        raise UsageError(
            "augment.saturation and augment.hue: expected pictures in colour, got grey ones; "
            "leave them out, or set model.channels=3"
        )
    zero = zero_of(preprocess)
    border = _border(augment.fill, zero)
    moves = {key: getattr(augment, key) for key in ("translate", "zoom", "rotate")}
    box = {"scale": augment.crop_scale, "ratio": augment.crop_ratio}
    random = {"count": augment.rand_augment, "magnitude": augment.rand_magnitude}
    return [
        (augment.crop_scale is not None, RandomResizedCrop, box),
        (augment.crop_padding > 0, RandomCrop, {"padding": augment.crop_padding, **border}),
        (augment.flip in ("horizontal", "both"), RandomMirror, {"axis": -2}),
        (augment.flip in ("vertical", "both"), RandomMirror, {"axis": -3}),
        (any(moves.values()), RandomWarp, {**moves, **border}),
        (augment.rand_augment > 0, RandAugment, {**random, **border}),
        (augment.brightness > 0, RandomColour, _either_way(brightened, 0, augment.brightness)),
        (augment.contrast > 0, RandomColour, _either_way(contrasted, 1, augment.contrast)),
        (augment.saturation > 0, RandomColour, _either_way(saturated, 1, augment.saturation)),
        (augment.hue > 0, RandomColour, _either_way(rehued, 0, augment.hue)),
        (augment.cutout > 0, RandomCutout, {"side": augment.cutout, "level": zero}),
        (augment.erase > 0, RandomErasing, {"chance": augment.erase}),
    ]


def _of_voxels(augment: Augment, preprocess: Spec) -> Wanted:
    from striate.train.augment.moves import RandomMirror
    from striate.train.augment.voxels import RandomQuarterTurn, RandomShift

    depth, _, width, _ = preprocess.shape
    if augment.quarter_turns and depth != width:
        raise UsageError(
            "augment.quarter_turns: expected grids as deep as they are wide, "
            f"got {depth} and {width}"
        )
    return [
        (augment.quarter_turns, RandomQuarterTurn, {}),
        (augment.flip in ("horizontal", "both"), RandomMirror, {"axis": 3}),
        (augment.flip in ("vertical", "both"), RandomMirror, {"axis": 2}),
        (augment.translate > 0, RandomShift, {"share": augment.translate}),
    ]


def _either_way(change: Any, middle: float, most: float) -> dict[str, Any]:
    return {"change": change, "low": middle - most, "high": middle + most}


def _border(fill: str, zero: np.ndarray) -> dict[str, Any]:
    """What the moves of `moves` take for a recipe's `fill`."""
    if fill == "mean":
        return {"fill": "constant", "level": zero}
    return {"fill": fill, "level": WHITE}


def zero_of(preprocess: Spec) -> np.ndarray:
    """The levels on 0 to 255, in the order of the pixels, that a net sees as 0."""
    frame = getattr(preprocess, "frame", preprocess)
    if getattr(frame, "whitening", None):
        return 255 * frame.whitening.arrays[0].reshape(frame.shape)
    step = -1 if getattr(frame, "order", "rgb") == "bgr" else 1
    return np.array(frame.mean[::step], np.float32)
