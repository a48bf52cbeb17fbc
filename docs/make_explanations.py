"""Draw docs/explanations.jpg: what the shipped net looks at in three photographs, by six methods.

python docs/make_explanations.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import striate
from striate.explain import METHODS

DOCS = Path(__file__).parent
PHOTOS = [
    DOCS.parent / "examples" / "photos" / f"{name}.jpg" for name in ("cat", "coffee", "rocket")
]
SHOWN = (
    "grad_cam",
    "grad_cam_plus_plus",
    "occlusion",
    "smoothgrad",
    "integrated_gradients",
    "guided_backprop",
)
GAP, HEAD = 6, 22


def sheet() -> Image.Image:
    artifact = striate.load(DOCS.parent / "saved_models" / "squeezenet1_1")
    columns = []
    for method in SHOWN:
        found = striate.explain(artifact, PHOTOS, method=method)
        drawn = [drawing.pixels for _, drawing in found.drawings()]
        side = found.pixels.shape[2]
        if not columns:
            names = [found.labels[i] for i in found.targets]
            columns.append(("picture", [pair[:, :side] for pair in drawn]))
        columns.append((method, [pair[:, side:] for pair in drawn]))
    page = Image.new(
        "RGB", (len(columns) * (side + GAP), len(PHOTOS) * (side + GAP) + HEAD), "white"
    )
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for i, (title, pictures) in enumerate(columns):
        pen.text((i * (side + GAP) + 2, 2), title, fill="black", font=font)
        for j, picture in enumerate(pictures):
            place = (i * (side + GAP), HEAD + j * (side + GAP))
            page.paste(Image.fromarray(np.ascontiguousarray(picture)), place)
            if i == 0:
                spot = (place[0] + 6, place[1] + side - 22)
                pen.text(
                    spot, names[j], fill="white", font=font, stroke_width=2, stroke_fill="black"
                )
    return page


if __name__ == "__main__":
    assert set(SHOWN) <= METHODS.keys()
    sheet().save(DOCS / "explanations.jpg", quality=88)
