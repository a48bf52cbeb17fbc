"""Export at the paper's input and 1000 classes: what each form takes, weighs and answers.

    python benchmarks/export_full_size.py [NET ...] [--json]

The nets are untrained; a temperature spreads their scores, so that agreement means something.
Nothing is compared with a peer: the table says what to expect of `striate export`.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from striate.artifact import Artifact, write_version
from striate.export import FORMS, export
from striate.preprocess import pixels, preset
from striate.registry import create_model, get_spec

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
NETS = (
    "resnet50",
    "vgg16",
    "inception_v3",
    "densenet121",
    "nasnet_a_mobile",
    "resnext50_32x4d",
    "senet154",
)


def untrained(name: str, base: Path) -> Artifact:
    """An artifact of fresh weights whose scores single out a few classes for every photograph."""
    spec = get_spec(name)
    net = create_model(name)
    preprocess = preset(spec.preprocess, *spec.input_shape)
    photos = np.stack([pixels(path, preprocess) for path in sorted(PHOTOS.glob("*.jpg"))])
    logits = np.asarray(net(preprocess.layer()(photos), training=False))
    return write_version(
        base,
        model=net,
        labels=[str(i) for i in range(spec.classes)],
        preprocess=preprocess,
        temperature=float(logits.std()) / 4,
        model_name=name,
        goldens=photos,
    )


def measure(name: str) -> list[dict]:
    """One row a form: seconds to write, load and compare it, its size, its largest difference."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        artifact = untrained(name, Path(directory) / name)
        for form in FORMS:
            begun = time.perf_counter()
            artifact, (agreement,) = export(artifact, [form])
            seconds = round(time.perf_counter() - begun, 1)
            rows.append({"net": name, "seconds": seconds, **agreement.to_dict()})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict]) -> str:
    lines = [f"{'net':18}{'form':13}{'s':>7}{'MB':>8}{'max |difference|':>18}{'ms a picture':>14}"]
    lines += [
        f"{row['net']:18}{row['form']:13}{row['seconds']:7.0f}{row['bytes'] / 1e6:8.0f}"
        f"{row['max_abs_diff']:18.1e}{row['latency_ms']:14.1f}"
        for row in rows
    ]
    versions = [f"{p} {metadata.version(p)}" for p in ("tensorflow", "tf2onnx", "onnxruntime")]
    lines.append(f"{platform.machine()}, {os.cpu_count()} processors, {', '.join(versions)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--json", action="store_true", help="one list of rows on standard output")
    args = parser.parse_args()
    rows = [row for name in args.nets for row in measure(name)]
    print(json.dumps(rows) if args.json else table(rows))


if __name__ == "__main__":
    main()
