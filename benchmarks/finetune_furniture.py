"""Fine-tuning on a small set: k-fold accuracy on the 344 furniture pictures that ship.

    python benchmarks/finetune_furniture.py [--net squeezenet1_1] [--seeds 0 1 2 3 4] [--json]

Each seed draws other folds, and every picture validates once a seed. The peer is what one would
write by hand in the same minute: scikit-learn's logistic regression (C = 1, standardised) on the
same frozen net's pooled features, same folds. Both sides run fold by fold in turn.
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

from striate.cli.quickstart import SAMPLES
from striate.data import load
from striate.train import finetune_recipe, fit


def features_of(recipe, dataset):
    """The frozen body's pooled features of every picture."""
    import keras

    from striate.train.build import build, start_of

    start = start_of(recipe)
    net = build(start, recipe, len(dataset.classes))
    body = keras.Model(net.input, net.get_layer(start.spec.features).output)
    examples = dataset.examples(start.preprocess)
    normalise = start.preprocess.layer()
    batches = [
        np.asarray(body(normalise(examples.pixels(np.arange(i, min(i + 32, len(dataset)))))))
        for i in range(0, len(dataset), 32)
    ]
    return np.concatenate(batches)


def peer_accuracy(features, labels, train, val) -> float:
    """scikit-learn's standardised logistic regression on the features; nan where it is missing."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError:
        return float("nan")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(model.fit(features[train], labels[train]).score(features[val], labels[val]))


def measure(net: str, folds: int, seeds: list[int], sets: list[str]) -> list[dict]:
    """One row a seed, and their mean; seconds are those of fitting one fold."""
    dataset = load(SAMPLES)
    recipe = finetune_recipe(net, sets=sets)
    features = features_of(recipe, dataset)
    rows = []
    for seed in seeds:
        right = {"ours": 0.0, "peer": 0.0}
        seconds = []
        for train, val in dataset.folds(folds, seed):
            begun = time.perf_counter()
            right["ours"] += fit(recipe, dataset, train, val).val_accuracy * len(val)
            seconds.append(time.perf_counter() - begun)
            right["peer"] += peer_accuracy(features, dataset.labels, train, val) * len(val)
        found = {side: n / len(dataset) for side, n in right.items()}
        rows.append(row(f"{net}, {folds} folds, seed {seed}", **found, seconds=np.mean(seconds)))
        print(rows[-1], file=sys.stderr, flush=True)
    ours, peer, seconds = (
        float(np.mean([r[key] for r in rows])) for key in ("ours", "peer", "seconds_a_fold")
    )
    case = f"{net}, {folds} folds, mean of {len(seeds)} seeds"
    return [*rows, row(case, ours=ours, peer=peer, seconds=seconds)]


def row(case: str, ours: float, peer: float, seconds: float) -> dict:
    return {
        "case": case,
        "unit": "accuracy",
        "ours": round(ours, 4),
        "peer_name": "scikit-learn logistic regression on the same features",
        "peer": round(peer, 4),
        "ratio": round(ours / peer, 4),
        "seconds_a_fold": round(float(seconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="squeezenet1_1")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", dest="sets", action="append", default=[], help="recipe KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.net, given.folds, given.seeds, given.sets)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    for r in rows:
        print(f"{r['case']:<44}{r['ours']:7.3f}{r['peer']:7.3f}{r['seconds_a_fold']:7.1f} s a fold")


if __name__ == "__main__":
    main()
