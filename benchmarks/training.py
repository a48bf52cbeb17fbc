"""What striate's loop costs beside a bare `keras.Model.fit` of the same net, fed from memory.

    python benchmarks/training.py [--nets lenet5 mobilenet_v2_100:96] [--rounds 5] [--json]

Both sides take the same pictures (uint8, made up) through the same normalisation, net, loss and
optimiser, in batches of the same size. They run in turn, `--rounds` times; the first epoch of each
run, which traces the graph, does not count. What the loop has more: an order that any kill
survives, checkpoints, the history, and a look at the loss every 250 steps.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib import metadata

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from striate.data import Dataset, load
from striate.registry import create_model, get_spec
from striate.train import fit, make_recipe

EPOCHS = 3  # of one run; all but the first count
BATCH = 128
RATE = 0.01


def pictures(shape: tuple[int, ...], n: int, directory: str) -> Dataset:
    """A data set of noise, read as users' arrays are."""
    dice = np.random.default_rng(0)
    path = os.path.join(directory, f"noise_{shape[0]}.npz")
    np.savez(path, x=dice.integers(0, 256, (n, *shape), np.uint8), y=np.arange(n) % 10)
    return load(path, split=0)


def ours(net: str, dataset: Dataset, shape: tuple[int, ...]) -> float:
    """Pictures a second of striate's loop."""
    recipe = make_recipe(
        {
            "model": {"name": net, "size": shape[:2], "channels": shape[2]},
            "preprocess": {"normalise": "unit"},
            "optimizer": {"name": "sgd", "learning_rate": RATE},
            "schedule": {"name": "constant"},
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "deterministic": False,
        }
    )
    history = fit(recipe, dataset, dataset.split("train")).history
    return len(dataset) / statistics.median(epoch["seconds"] for epoch in history[1:])


def bare(net: str, dataset: Dataset, shape: tuple[int, ...]) -> float:
    """Pictures a second of `keras.Model.fit`."""
    image = keras.Input(shape, dtype="uint8")
    body = create_model(net, num_classes=10, input_shape=shape)
    model = keras.Model(image, body(keras.layers.Rescaling(1 / 255)(image)))
    model.compile(
        keras.optimizers.SGD(RATE, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile="auto" if keras.backend.backend() != "tensorflow" else False,
    )
    clock = Clock()
    model.fit(
        dataset.images,
        dataset.labels,
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[clock],
    )
    return len(dataset) / statistics.median(clock.seconds[1:])


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.begun)


def measure(net: str, n: int, rounds: int, directory: str) -> dict:
    """Both sides in turn; the row has the medians, and the ratio that of the rounds' ratios.

    net: its name, or name:size for squares of other than its own size.
    """
    net, _, size = net.partition(":")
    shape = get_spec(net).input_shape
    if size:
        shape = (int(size), int(size), shape[-1])
    dataset = pictures(shape, n, directory)
    pairs = []
    for number in range(rounds):
        sides = [ours, bare] if number % 2 == 0 else [bare, ours]
        found = {side.__name__: side(net, dataset, shape) for side in sides}
        pairs.append((found["ours"], found["bare"]))
        print(net, *(f"{x:.0f}" for x in pairs[-1]), "images/s", file=sys.stderr, flush=True)
    ratios = sorted(a / b for a, b in pairs)
    return {
        "case": f"{net}, {'x'.join(map(str, shape))}, batches of {BATCH}",
        "unit": "images/s",
        "ours": round(statistics.median(a for a, _ in pairs), 1),
        "peer_name": f"keras.Model.fit ({keras.backend.backend()})",
        "peer": round(statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(ratios), 4),
        "spread": [round(ratios[0], 4), round(ratios[-1], 4)],
        "n": n,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--nets", nargs="+", default=["lenet5", "resnet20_cifar", "mobilenet_v2_100:96"]
    )
    parser.add_argument("--pictures", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rows = [measure(net, given.pictures, given.rounds, directory) for net in given.nets]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, keras {metadata.version('keras')}")
    for r in rows:
        low, high = r["spread"]
        print(
            f"{r['case']:<46}{r['ours']:>9.0f}{r['peer']:>9.0f} images/s"
            f"{r['ratio']:>8.3f} ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()
