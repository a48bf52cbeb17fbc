"""Fine-tuning on a small set: k-fold accuracy on the 344 furniture pictures that ship.

    python benchmarks/finetune_furniture.py [--net squeezenet1_1] [--weights FILE]
        [--strategies linear_probe] [--seeds 0 1 2 3 4] [--set KEY=VALUE] [--json]

Each seed draws other folds, and every picture validates once a seed. The peer is what one would
write by hand in the same minute: scikit-learn's logistic regression (C = 1, standardised) on the
same frozen net's pooled features, same folds. What a frozen net says of a picture is computed once
for all folds and seeds; seconds are those of a fold, the first with that, as the clock has it.
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
from striate.train import cross_validate, finetune_recipe


def features_of(recipe, dataset):
    """The frozen body's pooled features of every picture."""
    import keras

    from striate.train.build import build, start_of

    whole = {"options": {**recipe.model.options, "until": None}}  # the net's own features
    start = start_of(recipe.changed(model=whole))
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


def measure(recipe, strategies: list[str], folds: int, seeds: list[int]) -> list[dict]:
    """One row a strategy and seed, and for each strategy the mean of its seeds."""
    dataset = load(SAMPLES)
    features, known, rows = features_of(recipe, dataset), {}, []
    for strategy in strategies:
        of_strategy = []
        for seed in seeds:
            begun = time.perf_counter()
            fits = cross_validate(
                recipe, dataset, folds=folds, seed=seed, known=known, strategy=strategy
            )
            seconds = (time.perf_counter() - begun) / folds
            right = sum(fit.val_accuracy * len(fit.val) for fit in fits)
            peer = sum(
                peer_accuracy(features, dataset.labels, *fold) * len(fold[1])
                for fold in dataset.folds(folds, seed)
            )
            case = f"{recipe.model.name} {strategy}, {folds} folds, seed {seed}"
            of_strategy.append(row(case, right / len(dataset), peer / len(dataset), seconds))
            print(
                of_strategy[-1], fits[0].recipe.strategy.reason or "", file=sys.stderr, flush=True
            )
        mean = [
            np.mean([r[key] for r in of_strategy]) for key in ("ours", "peer", "seconds_a_fold")
        ]
        case = f"{recipe.model.name} {strategy}, {folds} folds, mean of {len(seeds)} seeds"
        rows += [*of_strategy, row(case, *map(float, mean))]
    return rows


def row(case: str, ours: float, peer: float, seconds: float) -> dict:
    return {
        "case": case,
        "unit": "accuracy",
        "ours": round(ours, 4),
        "peer_name": "scikit-learn logistic regression on the same net's features",
        "peer": round(peer, 4),
        "ratio": round(ours / peer, 4),
        "seconds_a_fold": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="squeezenet1_1")
    parser.add_argument("--weights", help="a file, in place of the net's published weights")
    parser.add_argument("--strategies", nargs="+", default=["linear_probe"])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", dest="sets", action="append", default=[], help="recipe KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    recipe = finetune_recipe(given.net, weights=given.weights, sets=given.sets)
    rows = measure(recipe, given.strategies, given.folds, given.seeds)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    for r in rows:
        print(f"{r['case']:<58}{r['ours']:7.3f}{r['peer']:7.3f}{r['seconds_a_fold']:7.1f} s a fold")


if __name__ == "__main__":
    main()
