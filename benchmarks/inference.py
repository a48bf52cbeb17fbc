"""One artifact by every engine of striate, beside the same runtime as its users call it.

    python benchmarks/inference.py [--nets squeezenet1_1 mobilenet_v2_100] [--threads 1] [--json]

Two questions of one picture at a time: what does striate's thin layer cost over the bare runtime
(about 1.00), and how much sooner does its quickest engine answer than each of them? The peers are
`keras.Model.predict`, a SavedModel's signature, ONNX Runtime, LiteRT and OpenVINO as it comes (on
some processors in bfloat16, which its `max_abs_diff` shows). Every side has a process of its own,
as in `striate bench`, which does the timing; they take turns within every round. A row has the
medians, and of the rounds' ratios the median with the quartiles.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from serving import artifacts, note
from striate.artifact import Artifact
from striate.bench.worker import Worker
from striate.bench.worker import main as work
from striate.errors import EngineError
from striate.runtime import usable

# === The peers, as their users call them ===


def keras(artifact: Artifact, threads: int) -> SimpleNamespace:
    import keras

    import striate.bench.worker as worker

    worker._limit_tensorflow(threads)
    model = artifact.classifier
    predict = lambda images: model.predict(images, verbose=0)  # noqa: E731
    return SimpleNamespace(kernel=f"keras {keras.__version__}", predict=predict, model=model)


def tensorflow(artifact: Artifact, threads: int) -> SimpleNamespace:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tf.saved_model.load(str(artifact.path))
    ask = model.signatures["serving_default"]
    predict = lambda images: ask(image=tf.constant(images))["scores"].numpy()  # noqa: E731
    return SimpleNamespace(kernel=f"tensorflow {tf.__version__}", predict=predict, model=model)


def onnx(artifact: Artifact, threads: int) -> SimpleNamespace:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(artifact.file("model.onnx"), options)
    predict = lambda images: session.run(None, {"image": images})[0]  # noqa: E731
    return SimpleNamespace(kernel=f"onnxruntime {ort.__version__}", predict=predict)


def litert(artifact: Artifact, threads: int) -> SimpleNamespace:
    from ai_edge_litert.interpreter import Interpreter

    path = str(artifact.file("model.tflite"))
    ask = Interpreter(model_path=path, num_threads=threads).get_signature_runner()
    predict = lambda images: ask(image=images)["scores"]  # noqa: E731
    return SimpleNamespace(kernel="litert", predict=predict)


def openvino(artifact: Artifact, threads: int) -> SimpleNamespace:
    import openvino as ov

    settings = {"INFERENCE_NUM_THREADS": threads}
    model = ov.Core().compile_model(artifact.file("model.onnx"), "CPU", settings)
    predict = lambda images: model(images)["scores"]  # noqa: E731
    return SimpleNamespace(kernel=f"openvino {ov.__version__.split('-')[0]}", predict=predict)


PEERS = {
    "onnx": (onnx, "onnxruntime.InferenceSession.run"),
    "litert": (litert, "LiteRT's signature runner"),
    "openvino": (openvino, "OpenVINO as it comes"),
    "tensorflow": (tensorflow, "tf.saved_model.load"),
    "keras": (keras, "keras.Model.predict"),
}


def bare(artifact: Artifact, name: str, *, threads: int) -> SimpleNamespace:
    """A peer, where a worker of `striate bench` would open an engine."""
    try:
        return PEERS[name][0](artifact, threads)
    except (ImportError, RuntimeError, ValueError) as error:
        raise EngineError(f"{PEERS[name][1]}: {error}") from None


# === The run ===


def measure(artifact: Artifact, threads: int, rounds: int) -> list[dict]:
    sides: dict[tuple[str, str], Worker] = {}
    with contextlib.ExitStack() as opened:
        for name in [name for name in PEERS if name in usable(artifact)]:
            for side, program in (("ours", None), ("peer", (__file__, "--bare"))):
                more = {"program": program} if program else {}
                try:
                    worker = Worker(artifact.path, name, threads=threads, batch=1, **more)
                except EngineError as error:
                    note(f"left out: {error}")
                    continue
                sides[side, name] = opened.enter_context(contextlib.closing(worker))
        for number in range(rounds):
            for worker in list(sides.values())[:: 1 if number % 2 else -1]:
                worker.time_one_round()
    times = {key: 1e3 * np.array(worker.one) for key, worker in sides.items()}
    ours = {name: ms for (side, name), ms in times.items() if side == "ours"}
    quickest = min(ours, key=lambda name: np.median(ours[name]))
    rows = []
    for (side, name), peer in times.items():
        if side == "ours":
            continue
        more = {"max_abs_diff": sides[side, name].facts["max_abs_diff"], "threads": threads}
        if name in ours:
            rows.append(row(f"{artifact.name}: {name}", ours[name], PEERS[name][1], peer) | more)
        case = f"{artifact.name}: the quickest, {quickest}"
        rows.append(row(case, ours[quickest], PEERS[name][1], peer) | more)
    return sorted(rows, key=lambda row: "quickest" in row["case"])


def row(case: str, ours: np.ndarray, name: str, peer: np.ndarray) -> dict:
    low, ratio, high = np.percentile(peer / ours, [25, 50, 75])
    return {
        "case": case,
        "unit": "ms",
        "ours": round(float(np.median(ours)), 3),
        "peer_name": name,
        "peer": round(float(np.median(peer)), 3),
        "ratio": round(float(ratio), 4),
        "spread": [round(float(low), 4), round(float(high), 4)],
        "rounds": len(ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["squeezenet1_1", "mobilenet_v2_100"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--models", type=Path, default=Path(tempfile.gettempdir()) / "striate_serving",
        help="where nets that do not ship are made and kept",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.models.mkdir(parents=True, exist_ok=True)
    rows = []
    for artifact in artifacts(given.nets, given.models):
        rows += measure(artifact, given.threads, given.rounds)
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {given.threads} threads a call")
    for found in rows:
        low, high = found["spread"]
        print(
            f"{found['case']:<42}{found['ours']:>9.2f}{found['peer']:>9.2f} ms"
            f"{found['ratio']:>8.3f} ({low:.3f} to {high:.3f})  {found['peer_name']}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        path, name, threads, batch = sys.argv[2:]
        work(path, name, int(threads), int(batch), opener=bare)
    else:
        main()
