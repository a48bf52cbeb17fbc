"""MobileNets by width and resolution on LiteRT: what each costs and how long it takes, one thread.

    python benchmarks/mobilenet_grid.py [--nets mobilenet_v2_*] [--sides 128,160,192,224] [--int8]
                                        [--rounds 20] [--json]

Every net is exported and held to Keras' answers, then all are timed in turn within every round;
times are of the thread's processor. The nets are untrained, which costs the same time; `top1` is
ImageNet's, as published for 224 x 224, and None elsewhere. Nothing is compared with a peer.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from striate.artifact import Artifact, write_version
from striate.costs import count
from striate.export import export
from striate.preprocess import preset
from striate.registry import create_model, get_spec, list_models
from striate.runtime import open_engine

SIDES = (128, 160, 192, 224)


def exported(base: Path, name: str, side: int, forms: list[str]) -> tuple[Artifact, dict]:
    """An artifact of the untrained net with its forms, and what the net costs."""
    spec = get_spec(name)
    net = create_model(name, input_shape=(side, side, 3))
    images = np.random.default_rng(0).integers(0, 256, (12, side, side, 3), dtype=np.uint8)
    artifact = write_version(
        base / f"{name}_{side}",
        model=net,
        labels=[str(i) for i in range(net.output_shape[-1])],
        preprocess=preset(spec.preprocess, side, side),
        model_name=name,
        goldens=images[:2],
    )
    artifact, _ = export(artifact, forms, images=images, accept_loss=True)
    published = spec.accuracy.top1 if spec.accuracy and side == spec.input_shape[0] else None
    macs = count(net).totals().macs
    return artifact, {"net": name, "side": side, "params": net.count_params(), "macs": macs,
                      "top1": published}  # fmt: skip


def milliseconds(engine, image: np.ndarray) -> float:
    start = time.thread_time()
    engine.predict(image)
    return 1e3 * (time.thread_time() - start)


def measure(nets: list[str], sides: list[int], forms: list[str], rounds: int) -> list[dict]:
    rows, engines, images = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        for name in nets:
            for side in sides:
                print(f"{name}, {side} x {side}", file=sys.stderr)
                artifact, facts = exported(Path(directory), name, side, forms)
                for engine in ("litert", "litert-int8")[: len(forms)]:
                    path = artifact.file(f"model{'.int8' if 'int8' in engine else ''}.tflite")
                    rows.append({**facts, "engine": engine, "bytes": path.stat().st_size})
                    if engine != "litert":
                        rows[-1]["top1"] = None  # published for floats
                    engines.append(open_engine(artifact, engine, threads=1))
                    images.append(np.zeros((1, side, side, 3), np.uint8))
                keras.backend.clear_session()
        calls = list(zip(engines, images, strict=True))
        for engine, image in calls:
            engine.predict(image)
        times = np.array([[milliseconds(*call) for call in calls] for _ in range(rounds)])
    for row, of_one in zip(rows, times.T, strict=True):
        low, median, high = (round(float(q), 2) for q in np.percentile(of_one, [25, 50, 75]))
        row |= {"ms": median, "quartiles": [low, high]}
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default="mobilenet_v[12]_*")
    parser.add_argument("--sides", default=",".join(map(str, SIDES)))
    parser.add_argument("--int8", action="store_true", help="also int8, calibrated on noise")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    nets = [spec.name for spec in list_models(options.nets)]
    forms = ["litert", "int8"] if options.int8 else ["litert"]
    sides = [int(side) for side in options.sides.split(",")]
    rows = measure(nets, sides, forms, options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(
        f"{'net':18}{'side':>5}  {'engine':12}{'M params':>9}{'M MACs':>8}{'MB':>7}{'ms':>8}  top-1"
    )
    for row in rows:
        megas, megabytes = row["macs"] / 1e6, row["bytes"] / 1e6
        print(
            f"{row['net']:18}{row['side']:5}  {row['engine']:12}{row['params'] / 1e6:9.2f}"
            f"{megas:8.0f}{megabytes:7.2f}{row['ms']:8.2f}  {row['top1'] or ''}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
