"""Draw docs/overviews.jpg: what many pictures tell of one net, four views side by side.

striate train fashion_mnist/resnet20.yaml ... (benchmarks/fashion_mnist.md), then
python docs/make_overviews.py ARTIFACT DATA
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import striate
from striate.evaluate import questions_of
from striate.evaluate.answers import read
from striate.explain import draw

SHOWN = {"codes": (500, {}), "landscape": (100, {"points": 15}), "paths": (300, {}),
         "robustness": (300, {})}  # fmt: skip
WIDTH, GAP = 640, 12


def main(source: str, data: str) -> None:
    artifact = striate.load(source)
    sheets = []
    for view, (most, options) in SHOWN.items():
        pixels, right = read(questions_of(artifact, data)[1], artifact.preprocess, most, seed=0)
        ((_, drawing),) = draw(artifact, pixels, view, right.tolist(), **options)
        sheets.append(_scaled(drawing.pixels))
    rows = [sheets[:2], sheets[2:]]
    heights = [max(sheet.height for sheet in row) for row in rows]
    page = Image.new("RGB", (2 * WIDTH + GAP, sum(heights) + GAP), "white")
    for i, row in enumerate(rows):
        for j, sheet in enumerate(row):
            page.paste(sheet, (j * (WIDTH + GAP), i * (heights[0] + GAP)))
    page.save(Path(__file__).parent / "overviews.jpg", quality=88)


def _scaled(pixels: np.ndarray) -> Image.Image:
    sheet = Image.fromarray(pixels)
    return sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.LANCZOS)


if __name__ == "__main__":
    main(*sys.argv[1:])
