"""Draw docs/corruptions.jpg: one photograph, spoilt in every way, at severity 3.

python docs/make_corruptions.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from striate.evaluate.corruptions import CORRUPTIONS, corrupt
from striate.preprocess import pixels, preset

HERE = Path(__file__).parent
PHOTO = HERE.parent / "examples" / "photos" / "astronaut.jpg"


def main() -> None:
    photo = pixels(PHOTO, preset("unit", 224, 224))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(2, 6).flat, CORRUPTIONS, strict=True):
        axes.imshow(corrupt(photo, name, 3, np.random.default_rng(0)))
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.axis("off")
    figure.savefig(HERE / "corruptions.jpg", dpi=120, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main()
