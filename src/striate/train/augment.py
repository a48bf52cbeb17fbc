"""Random changes of training pictures, as Keras layers in front of the normalisation.

They stand in the graph that is trained, where the accelerator runs them, and never in the net that
is saved: an exported graph must answer the same twice. Their random state is part of a checkpoint.
"""

from typing import Any

from striate.errors import UsageError
from striate.lazy import keras
from striate.preprocess import Spec
from striate.train.recipe import Augment


def augmentation(augment: Augment, seed: int, preprocess: Spec) -> list[Any]:
    """The layers uint8 [N, H, W, C] -> float32 [N, H, W, C] on 0 to 255 that a recipe asks for.

    They change pictures only where they are called with training=True. Each draws from its own
    seeded generator. Clips and voxels keep their shapes too.
    """
    if preprocess.kind == "vector":
        return []
    if preprocess.kind == "voxels":
        return _of_voxels(augment, seed, preprocess)
    layers = _of_pictures(augment, seed)
    return _of_clips(layers, preprocess) if layers and preprocess.kind == "clip" else layers


def _of_pictures(augment: Augment, seed: int) -> list[Any]:
    moves = {"fill_mode": augment.fill, "fill_value": 255.0}
    flips = {"horizontal": "horizontal", "vertical": "vertical", "both": "horizontal_and_vertical"}
    wanted: list[tuple[Any, Any, dict[str, Any]]] = [
        (keras.layers.RandomFlip, flips.get(augment.flip), {}),
        (keras.layers.RandomTranslation, _twice(augment.translate), moves),
        (keras.layers.RandomZoom, augment.zoom, moves),
        (keras.layers.RandomRotation, augment.rotate / 360, moves),
        (keras.layers.RandomBrightness, augment.brightness, {"value_range": (0, 255)}),
        (keras.layers.RandomContrast, augment.contrast, {"value_range": (0, 255)}),
        (keras.layers.RandomErasing, augment.erase, {"value_range": (0, 255)}),
    ]
    # float32 also under mixed precision: the pixels are bytes, and half floats would round them
    return [
        layer(amount, **options, seed=seed + i, dtype="float32", name=f"augment_{i}")
        if not isinstance(amount, tuple)
        else layer(*amount, **options, seed=seed + i, dtype="float32", name=f"augment_{i}")
        for i, (layer, amount, options) in enumerate(wanted)
        if amount
    ]


def _of_clips(layers: list[Any], preprocess: Spec) -> list[Any]:
    """The layers of pictures, for clips: as channels of one picture, all frames change alike."""
    frames, height, width, channels = preprocess.shape
    return [
        keras.layers.Permute((2, 3, 1, 4), name="augment_frames_last"),
        keras.layers.Reshape((height, width, frames * channels), name="augment_fold"),
        *layers,
        keras.layers.Reshape((height, width, frames, channels), name="augment_unfold"),
        keras.layers.Permute((3, 1, 2, 4), name="augment_frames_first"),
    ]


def _of_voxels(augment: Augment, seed: int, preprocess: Spec) -> list[Any]:
    from striate.train.voxel_moves import RandomMirror, RandomQuarterTurn, RandomShift

    depth, _, width, _ = preprocess.shape
    if augment.quarter_turns and depth != width:
        raise UsageError(
            "augment.quarter_turns: expected grids as deep as they are wide, "
            f"got {depth} and {width}"
        )
    wanted: list[tuple[Any, dict[str, Any], bool]] = [
        (RandomQuarterTurn, {}, augment.quarter_turns),
        (RandomMirror, {"axis": 3}, augment.flip in ("horizontal", "both")),
        (RandomMirror, {"axis": 2}, augment.flip in ("vertical", "both")),
        (RandomShift, {"share": augment.translate}, augment.translate > 0),
    ]
    return [
        layer(**options, seed=seed + i, dtype="float32", name=f"augment_{i}")
        for i, (layer, options, is_wanted) in enumerate(wanted)
        if is_wanted
    ]


def _twice(share: float) -> tuple[float, float] | None:
    return (share, share) if share else None
