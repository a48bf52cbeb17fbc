"""Nets of three axes on made digits: `mnist3d` on turned voxels, `cnn3d_ji` on moving clips.

    python examples/digits_in_space_and_time.py mnist10k.npz voxels voxels.npz -n 2000
    python examples/digits_in_space_and_time.py mnist10k.npz clips clips.npz -n 750
    python benchmarks/digits_3d.py voxels.npz clips.npz [--seeds 0 1] [--json]

A fifth of each class validates. `mnist3d` has hidden layers of 512 and 128 units in place of 4096
and 1024, which two cores train in minutes; `cnn3d_ji` is whole. The peer is scikit-learn's logistic
regression on the raw numbers, same split.
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

RECIPES = {
    "mnist3d": {
        "model": {"name": "mnist3d", "options": {"fc_units": [512, 128]}},
        "epochs": 12,
        "batch_size": 32,  # its batch normalisation, of momentum 0.99, needs some 500 steps
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-3},
    },
    "cnn3d_ji": {
        "model": "cnn3d_ji",
        "epochs": 6,
        "batch_size": 32,
        "optimizer": {"name": "adam", "learning_rate": 1e-3},
    },
}


def peer_accuracy(dataset) -> float:
    """scikit-learn's logistic regression on levels from 0 to 1; nan where it is not installed."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError:
        return float("nan")
    x = dataset.images.reshape(len(dataset), -1).astype(np.float32) / 255
    train, val = dataset.split("train"), dataset.split("val")
    model = LogisticRegression(max_iter=100).fit(x[train], dataset.labels[train])
    return float(model.score(x[val], dataset.labels[val]))


def measure(name: str, kind: str, source: str, seeds: list[int]) -> list[dict]:
    """A row a seed, of the split and the weights alike, and their mean."""
    rows = []
    for seed in seeds:
        dataset = load(source, kind=kind, seed=seed)
        train, val = dataset.split("train"), dataset.split("val")
        begun = time.perf_counter()
        ours = fit(make_recipe(RECIPES[name]), dataset, train, val, seed=seed).val_accuracy
        seconds = time.perf_counter() - begun
        case = f"{name}, {len(train)} train, {len(val)} val, seed {seed}"
        rows.append(row(case, ours, peer_accuracy(dataset), seconds))
        print(rows[-1], file=sys.stderr, flush=True)
    means = (float(np.mean([r[key] for r in rows])) for key in ("ours", "peer", "seconds"))
    return [*rows, row(f"{name}, mean of {len(seeds)} seeds", *means)]


def row(case: str, ours: float, peer: float, seconds: float) -> dict:
    return {
        "case": case,
        "unit": "accuracy",
        "ours": round(ours, 4),
        "peer_name": "scikit-learn logistic regression on the raw numbers",
        "peer": round(peer, 4),
        "ratio": round(ours / peer, 4),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voxels")
    parser.add_argument("clips")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure("mnist3d", "voxels", given.voxels, given.seeds)
    rows += measure("cnn3d_ji", "clip", given.clips, given.seeds)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    for r in rows:
        print(f"{r['case']:<44}{r['ours']:7.3f}{r['peer']:7.3f}{r['seconds']:7.1f} s")


if __name__ == "__main__":
    main()
