"""int8 of a fine-tuned net: how often it names the class that floats name, and how fast.

    striate finetune squeezenet1_1 --data PICTURES -o saved_models/mine --set data.validation=0.5
    python benchmarks/int8_agreement.py PICTURES saved_models/mine/1 [--rounds 30] [--json]

Ranges and biases are found on 100 of the pictures that the net learnt from; it is asked about those
that it did not, other ones for every `--seed` of the fine-tuning. Every form runs on one thread, in
turn within every round; times are of the thread's processor. The peer of int8 is the float form of
the same runtime.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import striate
from striate.data import load
from striate.export import int8, litert, onnx
from striate.runtime import ENGINES, open_engine

SHOWN = 100
CLEAR = 0.1  # Keras' first two classes are at least so far apart
PAIRS = (("litert", "litert-int8"), ("onnx", "onnx-int8"))


def pictures_of(artifact, source: str):
    """(uint8 pictures to calibrate on, uint8 pictures never seen, their labels)."""
    recipe = artifact.manifest.recipe
    dataset = load(source, split=recipe["data"]["validation"], seed=recipe["seed"])
    learnt, asked = (dataset.examples(artifact.preprocess, split) for split in ("train", "val"))
    order = np.random.default_rng(0).permutation(len(learnt))[:SHOWN]
    return learnt.pixels(order), asked.pixels(np.arange(len(asked))), asked.labels


def milliseconds(engine, image: np.ndarray) -> float:
    start = time.thread_time()
    engine.predict(image)
    return 1e3 * (time.thread_time() - start)


def measure(artifact, source: str, rounds: int) -> list[dict]:
    """One row an engine."""
    shown, asked, labels = pictures_of(artifact, source)
    expected = artifact.predict(asked)
    second, first = np.sort(expected, axis=1)[:, -2:].T
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        litert.write(artifact, root)
        onnx.write(artifact, root)
        int8.write(artifact, root, images=shown)
        names = [name for pair in PAIRS for name in pair]
        engines = {name: open_engine(artifact, name, threads=1, root=root) for name in names}
        sizes = {name: (root / ENGINES[name].file).stat().st_size for name in names}
        scores = {name: engine.predict(asked) for name, engine in engines.items()}
        times = [[milliseconds(e, asked[:1]) for e in engines.values()] for _ in range(rounds)]
    took = dict(zip(names, np.median(times, axis=0), strict=True))
    rows = []
    for floats, name in [(a, b) for pair in PAIRS for a, b in ((pair[0], pair[0]), pair)]:
        same = scores[name].argmax(1) == expected.argmax(1)
        rows.append(
            {
                "net": artifact.manifest.model["name"],
                "side": artifact.preprocess.shape[0],
                "seed": artifact.manifest.recipe["seed"],
                "engine": name,
                "n": len(asked),
                "same_top1": round(float(same.mean()), 4),
                "same_where_clear": round(float(same[first - second >= CLEAR].mean()), 4),
                "clear": int((first - second >= CLEAR).sum()),
                "accuracy": round(float((scores[name].argmax(1) == labels).mean()), 4),
                "bytes": sizes[name],
                "ms": round(float(took[name]), 2),
                "peer_name": floats,
                "ratio": round(float(took[floats] / took[name]), 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", help="what the nets were fine-tuned on")
    parser.add_argument("artifacts", nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = []
    for path in given.artifacts:
        print(path, file=sys.stderr, flush=True)
        rows += measure(striate.load(path), given.pictures, given.rounds)
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    for r in rows:
        print(
            f"{r['net']:<20}{r['seed']:<3}{r['engine']:<14}{r['same_top1']:8.1%}{r['same_where_clear']:8.1%}"
            f"{r['accuracy']:8.3f}{r['bytes'] / 1e6:7.2f} MB{r['ms']:7.2f} ms{r['ratio']:6.2f}x"
        )


if __name__ == "__main__":
    main()
