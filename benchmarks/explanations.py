"""Which maps can be believed? Every method of `striate explain` through the tests it may fail.

    python benchmarks/explanations.py [--pictures 200] [--json]

Planted evidence: a small net learns to name patterns; the highest place of each map must lie on the
pattern and not on its decoy, the same pixels in another order. Random weights: the maps of the
planted net, and of the shipped SqueezeNet on four photographs, against those of copies whose
weights are shuffled; the rank correlation should fall towards 0. The peer is a map of noise.
"""

import argparse
import functools
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import striate
from striate.errors import UsageError
from striate.explain import METHODS, explain, subject_of
from striate.explain.fgsm import EPSILON, fgsm
from striate.explain.planted import planted, pointing_game
from striate.explain.trust import deletion, insertion, randomisation
from striate.preprocess import pixels
from striate.registry import create_model

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "examples/photos").glob("*.jpg"))
QUICKER = {"smoothgrad": {"samples": 8}}
SANE = 16  # planted pictures whose maps are compared with those of random weights


def sighted(seed: int = 0):
    """A ResNet of three blocks that names the planted patterns."""
    keras.utils.set_random_seed(seed)
    net = create_model("resnet20_cifar", num_classes=4, input_shape=(48, 48, 3), depths=(1, 1, 1))
    subject = subject_of(net)
    image = keras.Input((48, 48, 3))
    trainer = keras.Model(image, net(subject.normalise(image)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.AdamW(3e-3), loss=loss)
    known = planted(3000, seed=1)
    trainer.fit(known.images.astype("float32"), known.labels, batch_size=50, epochs=6, verbose=0)
    return subject


def believed(subject, unseen) -> dict[str, dict[str, float]]:
    """method -> where it points, and what taking away or giving back its places does."""
    noise = np.random.default_rng(0).random(unseen.images.shape[:3])
    found = {"noise": judged(subject, unseen, noise)}
    for method in METHODS:
        options = QUICKER.get(method, {})
        maps = explain(subject, unseen.images, method=method, target=unseen.labels, **options).maps
        found[method] = judged(subject, unseen, maps)
        print(method, found[method], file=sys.stderr, flush=True)
    return found


def judged(subject, unseen, maps) -> dict[str, float]:
    few = range(min(40, len(maps)))
    curves = {
        curve.__name__: np.mean(
            [
                curve(subject, unseen.images[i].astype("float32"), maps[i], unseen.labels[i]).mean()
                for i in few
            ]
        )
        for curve in (deletion, insertion)
    }
    return {"pointing": pointing_game(maps, unseen.masks)} | curves


def similarities(subject, images, targets) -> dict[str, list[float]]:
    """method -> rank correlations once the classifier, half of the net, all of it is random."""
    found = {}
    for method, how in METHODS.items():
        maps = functools.partial(how.function, **QUICKER.get(method, {}))

        try:
            steps = randomisation(maps, subject, images.astype(np.float32), targets, stops=3)
        except UsageError as error:  # CAM explains only nets that average their maps
            print(error, file=sys.stderr, flush=True)
            steps = []
        found[method] = [round(step.similarity, 3) for step in steps]
        print(method, found[method], file=sys.stderr, flush=True)
    return found


def photographs():
    """The shipped SqueezeNet, four photographs at its input size, and its answers."""
    subject = subject_of(striate.load(ROOT / "saved_models/squeezenet1_1"))
    images = np.stack([pixels(path, subject.preprocess) for path in PHOTOS])
    logits = np.asarray(subject.logits(images.astype(np.float32)))
    return subject, images, logits.argmax(axis=1)


def rows(given) -> list[dict]:
    subject, unseen = sighted(), planted(given.pictures, seed=2)
    answers = np.asarray(subject.logits(unseen.images.astype(np.float32))).argmax(axis=1)
    points = believed(subject, unseen)
    small = similarities(subject, unseen.images[:SANE], unseen.labels[:SANE])
    net, images, classes = photographs()
    large = similarities(net, images, classes)
    attacked = fgsm(net, images.astype(np.float32), classes)
    flipped = np.asarray(net.logits(attacked)).argmax(axis=1) != classes
    chance = points["noise"]["pointing"]
    found = [
        {
            "case": method,
            "unit": "share of maps whose highest place lies on the evidence",
            "ours": round(points[method]["pointing"], 4),
            "peer_name": "a map of noise",
            "peer": round(chance, 4),
            "ratio": round(points[method]["pointing"] / chance, 2),
            "n": given.pictures,
            "deletion": round(float(points[method]["deletion"]), 4),
            "insertion": round(float(points[method]["insertion"]), 4),
            "similarity_planted": small[method],
            "similarity_photographs": large[method],
        }
        for method in METHODS
    ]
    return [
        *found,
        {
            "case": f"fgsm, epsilon {EPSILON}, {len(images)} photographs, squeezenet1_1",
            "unit": "share of labels flipped",
            "ours": float(flipped.mean()),
            "peer_name": "no attack",
            "peer": 0.0,
            "ratio": None,
            "planted_accuracy": float((answers == unseen.labels).mean()),
            "noise": {name: round(float(value), 4) for name, value in points["noise"].items()},
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = rows(given)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    print(f"{'':<24}pointing  deletion  insertion   likeness to random weights (planted, photos)")
    for r in found[:-1]:
        print(
            f"{r['case']:<24}{r['ours']:8.3f}{r['deletion']:10.3f}{r['insertion']:11.3f}   "
            f"{r['similarity_planted']}  {r['similarity_photographs']}"
        )
    print(f"{found[-1]['case']}: {found[-1]['ours']:.2f} flipped; noise {found[-1]['noise']}")


if __name__ == "__main__":
    main()
