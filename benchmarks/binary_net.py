"""A whole binary net against its float twin: XNOR ResNet-18 and ResNet-18, one core, one thread.

    python benchmarks/binary_net.py [--rounds 40] [--json]

Both are untrained, take uint8 pictures of 224 x 224 and run behind the same `Engine.predict`: ours
from the two files of the packed form (ONNX Runtime with our kernels; our runner in C alone), the
peer from ONNX. They run in turn within every round; times are of the
thread's processor. Untrained weights cost the same time as trained ones.
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

from striate.artifact import write_version
from striate.export import export
from striate.preprocess import preset
from striate.registry import create_model
from striate.runtime import open_engine


def exported(directory: Path, name: str, form: str, images: np.ndarray):
    """An artifact of an untrained net with one exported form, held to Keras' answers."""
    model = create_model(name)
    artifact = write_version(
        directory / name,
        model=model,
        labels=[f"class {i}" for i in range(model.output_shape[-1])],
        preprocess=preset("torch", *images.shape[1:]),
        model_name=name,
        goldens=images,
    )
    return export(artifact, [form])[0]


def milliseconds(engine, image: np.ndarray, calls: int) -> float:
    start = time.thread_time()
    for _ in range(calls):
        engine.predict(image)
    return 1e3 * (time.thread_time() - start) / calls


def measure(rounds: int) -> list[dict]:
    """A row for the time and one for the file of each of our engines; a ratio above 1 is in our
    favour."""
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as directory:
        ours = exported(Path(directory), "xnor_resnet18", "packed", images)
        peer = exported(Path(directory), "resnet18", "onnx", images)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        engines = [
            open_engine(ours, "packed", threads=1),
            open_engine(ours, "runner", threads=1),
            open_engine(peer, "onnx", threads=1),
        ]
        for engine in engines:
            engine.predict(images[:1])
        times = np.array(
            [
                [milliseconds(e, images[:1], n) for e, n in zip(engines, (6, 6, 1), strict=True)]
                for _ in range(rounds)
            ]
        )
        files = ours.file("model.packed.onnx"), ours.file("model.packed"), peer.file("model.onnx")
        megabytes = [path.stat().st_size / 1e6 for path in files]
    rows = []
    for i, engine in enumerate(engines[:-1]):
        quartiles = np.percentile(times[:, -1] / times[:, i], [25, 75])
        median, theirs = np.median(times[:, [i, -1]], axis=0)
        time_row = row(f"xnor_resnet18, {engine.kernel}", "ms", median, theirs, "resnet18, onnx")
        time_row["quartiles"] = [round(float(q), 2) for q in quartiles]
        rows.append(time_row)
        case = f"xnor_resnet18, {files[i].name}"
        rows.append(row(case, "MB", megabytes[i], megabytes[-1], "resnet18, onnx"))
    return rows


def row(case: str, unit: str, ours: float, peer: float, peer_name: str) -> dict:
    return {
        "case": case,
        "unit": unit,
        "ours": round(float(ours), 3),
        "peer_name": peer_name,
        "peer": round(float(peer), 3),
        "ratio": round(float(peer / ours), 2),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = measure(options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for r in rows:
        spread = f"  quartiles {r['quartiles']}" if "quartiles" in r else ""
        print(
            f"{r['case']}: {r['ours']} {r['unit']}; {r['peer_name']}: {r['peer']} {r['unit']}; "
            f"ratio {r['ratio']}x{spread}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
