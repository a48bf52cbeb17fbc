"""MNIST from 8,000 digits: the test error of LeNet-5 and of a small residual net, over five seeds.

    python benchmarks/mnist.py mnist10k.npz [--seeds 0 1 2 3 4] [--json]

The file holds 10,000 shuffled digits, `images` uint8 [10000, 28, 28] and `labels`. The first 8,000
are learnt from, the last 2,000 are answered once, by the last weights; a seed draws the weights,
the order and the changes of the pictures. Recipes stand in mnist/. The peer is what needs no net:
the nearest neighbours in pixels, scikit-learn's, on the same digits.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from striate.data import load
from striate.train import fit, make_recipe

RECIPES = Path(__file__).with_suffix("")
LEARNT = 8000
PEER = "scikit-learn, 3 nearest neighbours in pixels"


def peer_error(images: np.ndarray, labels: np.ndarray) -> float | None:
    """The share of the last digits that their nearest neighbours misname; None without sklearn."""
    try:
        from sklearn.neighbors import KNeighborsClassifier
    except ModuleNotFoundError:
        return None
    pixels = images.reshape(len(images), -1).astype(np.float32)
    model = KNeighborsClassifier(3).fit(pixels[:LEARNT], labels[:LEARNT])
    return 1 - float(model.score(pixels[LEARNT:], labels[LEARNT:]))


def measure(source: str, case: str, seeds: list[int]) -> list[dict]:
    """A row a seed, and their mean with its spread."""
    dataset = load(source, split=0)
    recipe = make_recipe(RECIPES / f"{case}.yaml")
    train, test = np.arange(LEARNT), np.arange(LEARNT, len(dataset))
    peer = peer_error(dataset.images, dataset.labels)
    rows = []
    for seed in seeds:
        begun = time.perf_counter()
        fitted = fit(recipe, dataset, train, test, seed=seed)
        error, seconds = 1 - fitted.val_accuracy, time.perf_counter() - begun
        rows.append(row(f"{case}, seed {seed}", error, peer, seconds))
        rows[-1] |= {"n": len(test), "parameters": fitted.model.count_params()}
        print(rows[-1], file=sys.stderr, flush=True)
    errors = [r["ours"] for r in rows]
    seconds = statistics.mean(r["seconds"] for r in rows)
    mean = row(f"{case}, mean of {len(seeds)} seeds", statistics.mean(errors), peer, seconds)
    mean["spread"] = [min(errors), max(errors)]
    return [*rows, mean]


def row(case: str, ours: float, peer: float | None, seconds: float) -> dict:
    return {
        "case": case,
        "unit": "test error",
        "ours": round(ours, 5),
        "peer_name": PEER,
        "peer": None if peer is None else round(peer, 5),
        "ratio": round(peer / ours, 4) if peer and ours else None,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="the .npz with images and labels")
    parser.add_argument("--only", nargs="+", default=["lenet5", "resnet8"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [row for case in given.only for row in measure(given.source, case, given.seeds)]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    for r in rows:
        peer = "-" if r["peer"] is None else f"{r['peer']:.4f}"
        print(f"{r['case']:<28}{r['ours']:>9.4f}{peer:>9}{r['seconds']:>8.0f} s")


if __name__ == "__main__":
    main()
