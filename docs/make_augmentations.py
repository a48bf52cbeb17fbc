"""Draw docs/augmentations.jpg: one photograph under every random change of a recipe's `augment`.

python docs/make_augmentations.py
"""

from pathlib import Path

import numpy as np
from keras import ops
from PIL import Image, ImageDraw, ImageFont

from striate.preprocess import pixels, preset
from striate.train.augment import augmentation, mixing
from striate.train.recipe import Augment

DOCS = Path(__file__).parent
PHOTOS = DOCS.parent / "examples" / "photos"
SIDE, COLUMNS, GAP, HEAD = 160, 6, 8, 20

SHOWN = [
    {"flip": "horizontal"},
    {"translate": 0.25},
    {"zoom": 0.4},
    {"rotate": 25},
    {"crop_padding": 32, "fill": "mean"},
    {"crop_scale": (0.08, 0.5)},
    {"brightness": 0.4},
    {"contrast": 0.8},
    {"saturation": 0.9},
    {"hue": 0.5},
    {"cutout": 64},
    {"erase": 1.0},
    {"rand_augment": 2},
    {"rotate": 25, "fill": "reflect"},
    {"mixup": 1.0},
    {"cutmix": 1.0},
]
SEEDS = {
    "flip": 0,
    "brightness": 4,
    "mixup": 2,
    "cutmix": 0,
    "rand_augment": 4,
}  # of others less is seen


def changed(wanted: dict, photographs: np.ndarray) -> np.ndarray:
    """The first photograph after a change, uint8."""
    augment, seed = Augment(**wanted), SEEDS.get(next(iter(wanted)), 3)
    x = ops.cast(photographs, "float32")
    for layer in augmentation(augment, seed, preset("torch", SIDE, SIDE)):
        x = layer(x, training=True)
    mix = mixing(augment, seed)
    if mix is not None:
        x, _ = mix(x, training=True)
    return np.rint(ops.convert_to_numpy(x)[0]).astype(np.uint8)


def title(wanted: dict) -> str:
    return " ".join(f"{key}={value}".replace(" ", "") for key, value in wanted.items())


def sheet() -> Image.Image:
    spec = preset("torch", SIDE, SIDE)
    photographs = np.stack([pixels(PHOTOS / f"{name}.jpg", spec) for name in ("cat", "coffee")])
    cells = [("as it is", photographs[0]), ("the other, of a mixture", photographs[1])]
    cells += [(title(wanted), changed(wanted, photographs)) for wanted in SHOWN]
    rows = -(-len(cells) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (SIDE + GAP), rows * (SIDE + HEAD + GAP)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for i, (text, picture) in enumerate(cells):
        left, top = i % COLUMNS * (SIDE + GAP), i // COLUMNS * (SIDE + HEAD + GAP)
        pen.text((left + 1, top + 2), text, fill="black", font=font)
        page.paste(Image.fromarray(picture), (left, top + HEAD))
    return page


if __name__ == "__main__":
    sheet().save(DOCS / "augmentations.jpg", quality=85)
