"""Fashion-MNIST, family by family, against the table that its authors collected.

    python benchmarks/fashion_mnist.py DIRECTORY [--only conv2 resnet20] [--seeds 0] [--json]
    KERAS_BACKEND=jax python benchmarks/fashion_mnist.py DIRECTORY --json    # all of them, on a GPU

DIRECTORY holds the four IDX files. Each family is a recipe beside this file, in fashion_mnist/: it
learns from all 60,000 training pictures for a fixed number of epochs, and the last weights answer
the 10,000 test pictures once; `mirrored` is the accuracy of the mean over each of them and its
mirror image, where a recipe mirrors. A run that was killed goes on from its last checkpoint. One
that is finished is read, not run again: remove its directory under --runs for that.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from striate import artifact
from striate.data import load
from striate.evaluate import evaluate
from striate.train import make_recipe, train

RECIPES = Path(__file__).with_suffix("")
PEER = "zalandoresearch/fashion-mnist, README"
# What its submitters reached with each family; None: the table has no such row.
ROWS = {
    "mlp": 0.900,
    "conv2": 0.925,
    "conv2_fc3": 0.932,
    "lenet5": None,
    "alexnet": 0.899,
    "squeezenet": 0.900,
    "vgg16": 0.935,
    "googlenet": 0.937,
    "resnet20": 0.949,
    "resnet18": 0.949,
    "mobilenet_025": 0.950,
    "mobilenet": 0.950,
    "densenet40_short": 0.954,
    "densenet40": 0.954,
    "densenet_bc": 0.954,
    "dual_path": 0.957,
    "wrn28_10": 0.959,
    "wrn28_10_erasing": 0.963,
    "wrn40_4": 0.967,
    "bwn_twin": None,
    "bwn": None,
    "xnor_twin": None,
    "xnor": None,
}
TWINS = {"bwn": "bwn_twin", "xnor": "xnor_twin"}  # the real nets that binary ones begin from


def run(dataset, case: str, seed: int, runs: Path) -> dict:
    """Train one recipe with one seed, or read what an earlier call left of it."""
    output = runs / f"{case}_seed{seed}"
    sets = {"seed": seed}
    if case in TWINS:
        run(dataset, TWINS[case], seed, runs)
        sets["model.weights"] = str(runs / f"{TWINS[case]}_seed{seed}")
    recipe = make_recipe(RECIPES / f"{case}.yaml", sets)
    made = output / "1"
    if not (made / artifact.MANIFEST).exists():
        begun = time.perf_counter()
        train(recipe, output, data=dataset)
        print(f"{case}: {time.perf_counter() - begun:.0f} s in all", file=sys.stderr, flush=True)
    trained = artifact.load(made)
    found = row(case, seed, trained)
    if recipe.augment.flip == "horizontal":
        twice = evaluate(trained, dataset, split="test", tta="mirror")
        found["mirrored"] = twice.tta["accuracy"]
    return found


def row(case: str, seed: int, made: artifact.Artifact) -> dict:
    """One row of results: the test accuracy beside the table's, and what it took."""
    found = made.manifest.metrics
    history, peer = found["training"]["history"], ROWS[case]
    ours = round(found["test"]["accuracy"], 4)
    return {
        "case": case,
        "unit": "test accuracy",
        "ours": ours,
        "peer_name": PEER,
        "peer": peer,
        "ratio": round(ours / peer, 4) if peer else None,
        "model": made.manifest.model["name"],
        "parameters": made.model.count_params(),
        "seed": seed,
        "n": found["test"]["n"],
        "interval": found["test"]["accuracy_interval"],
        "epochs": len(history),
        "seconds": round(sum(epoch["seconds"] for epoch in history)),
        "environment": made.manifest.environment,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="the four IDX files of Fashion-MNIST")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/fashion_mnist"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    dataset = load(given.directory, split=0)
    rows = [run(dataset, case, seed, given.runs) for case in given.only for seed in given.seeds]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    for r in rows:
        peer = f"{r['peer']:.3f}" if r["peer"] else "    -"
        print(f"{r['case']:<18}{r['parameters']:>12,}{r['ours']:>9.4f}{peer:>8}{r['seconds']:>8} s")


if __name__ == "__main__":
    main()
