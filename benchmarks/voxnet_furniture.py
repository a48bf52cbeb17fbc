"""VoxNet from scratch on a small set: k-fold accuracy on 344 pieces of furniture as voxels.

    python benchmarks/voxnet_furniture.py voxels32.npz [--seeds 0] [--folds 5] [--json]

The file holds the objects as `voxels_packed`, 32 x 32 x 32 cells, their `labels` and the names of
the `classes`; the recipe is the shipped `voxels`. Every object validates once a seed; a row a
fold, and their mean. The peer is what one would try first without a net: scikit-learn's logistic
regression on the cells themselves, the same folds. Both sides run fold by fold in turn.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from striate.data import load
from striate.train import fit, make_recipe


def peer_accuracy(cells, labels, train, val) -> float:
    """scikit-learn's logistic regression on the cells; nan where it is not installed."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError:
        return float("nan")
    model = LogisticRegression(max_iter=200)
    return float(model.fit(cells[train], labels[train]).score(cells[val], labels[val]))


def measure(source: str, folds: int, seeds: list[int], sets: list[str]) -> list[dict]:
    """A row a fold, and the mean over all objects and seeds."""
    dataset = load(source, kind="voxels")
    recipe = make_recipe("voxels", sets)
    cells = (dataset.images.reshape(len(dataset), -1) > 0).astype(np.float32)
    rows = []
    for seed in seeds:
        for number, (train, val) in enumerate(dataset.folds(folds, seed), start=1):
            begun = time.perf_counter()
            ours = fit(recipe, dataset, train, val, seed=seed).val_accuracy
            seconds = time.perf_counter() - begun
            peer = peer_accuracy(cells, dataset.labels, train, val)
            case = f"voxnet, fold {number} of {folds}, seed {seed}"
            rows.append(row(case, ours, peer, seconds, len(val)))
            print(rows[-1], file=sys.stderr, flush=True)
    weights = [r["n"] for r in rows]
    ours, peer = (float(np.average([r[side] for r in rows], weights=weights)) for side in SIDES)
    case = f"voxnet, {folds} folds, mean of {len(seeds)} seeds"
    return [*rows, row(case, ours, peer, np.mean([r["seconds"] for r in rows]), sum(weights))]


SIDES = ("ours", "peer")


def row(case: str, ours: float, peer: float, seconds: float, n: int) -> dict:
    return {
        "case": case,
        "unit": "accuracy",
        "ours": round(ours, 4),
        "peer_name": "scikit-learn logistic regression on the cells",
        "peer": round(peer, 4),
        "ratio": round(ours / peer, 4),
        "n": n,
        "seconds": round(float(seconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="the .npz with voxels_packed, labels and classes")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", dest="sets", action="append", default=[], help="recipe KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.source, given.folds, given.seeds, given.sets)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    for r in rows:
        print(f"{r['case']:<40}{r['ours']:7.3f}{r['peer']:7.3f}{r['seconds']:7.1f} s")


if __name__ == "__main__":
    main()
