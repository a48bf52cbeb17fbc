"""Random changes of training pictures, as Keras layers in front of the normalisation.

They stand in the graph that is trained, where the accelerator runs them, and never in the net that
is saved: an exported graph must answer the same twice. Their random state is part of a checkpoint.
"""

from typing import Any

from striate.lazy import keras
from striate.train.recipe import Augment


def augmentation(augment: Augment, seed: int) -> list[Any]:
    """The layers uint8 [N, H, W, C] -> float32 [N, H, W, C] on 0 to 255 that a recipe asks for.

    They change pictures only where they are called with training=True. Each draws from its own
    seeded generator.
    """
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


def _twice(share: float) -> tuple[float, float] | None:
    return (share, share) if share else None
