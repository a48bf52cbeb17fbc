"""Hours of everything at once: does the server grow, and does a good request ever fail?

    python benchmarks/serve_soak.py [--minutes 120] [--model saved_models/squeezenet1_1] [--json]

One server process and a client for every protocol, each asking again a little after it is answered:
tensors and JPEG files over TensorFlow Serving's gRPC and REST and over KServe v2, a picture as a
body, what people look at (status, metadata, metrics, the page), explanations (which ONNX refuses,
as it should), malformed requests of all kinds, clients that leave before the answer, and a new
version every minute. The table says how many of each were answered and how many failed; the last
line how the server's memory moved, by a straight line through all but the first fifth.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from serve_faults import (
    NAME,
    Server,
    fuzzed_http,
    fuzzed_json,
    fuzzed_protobuf,
    put,
)
from striate.artifact import load
from striate.runtime import open_engine
from striate.serve import tensors
from striate.serve.client import Client
from striate.serve.protocols import oip_protos
from striate.serve.protos import predict_pb2
from striate.serve.status import Code, ServingError

PAUSE = 0.02  # seconds between an answer and the same client's next request
LONG = 10  # minutes until memory has a slope
PHOTO = Path(__file__).parents[1] / "examples/photos/cat.jpg"
LOOKS = ("/", "/metrics", "/healthz", "/v2", f"/v1/models/{NAME}", f"/v1/models/{NAME}/metadata")

Ask = Callable[[], None]  # one request; raises where it is not answered as it should be


class Kind:
    """One client, which asks the same again and again; `answered` and `failures` count."""

    def __init__(self, name: str, ask: Ask, pause: float = PAUSE):
        self.name, self.answered, self.failures = name, 0, list[str]()
        self._ask, self._pause, self._stop = ask, pause, threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self._ask()
                self.answered += 1
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}"[:200])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


# === What the clients ask ===


def clients(server: Server, source: Path) -> list[Kind]:
    artifact = load(source)
    images, scores = artifact.goldens()
    image, expected = images[:1], scores[:1]
    photo = PHOTO.read_bytes()
    pixels = artifact.preprocess.read(photo)[np.newaxis]
    seen = open_engine(artifact, "onnx", threads=1).predict(pixels)
    over_grpc, rest = Client(server.address, NAME, timeout=60), server.http()
    channel = grpc.insecure_channel(server.address)
    kserve = f"/v2/models/{NAME}/infer"
    infer = channel.unary_unary(f"/{oip_protos.SERVICE}/ModelInfer")
    dice, looks = random.Random(0), itertools.cycle(LOOKS)
    fuzz = itertools.cycle([fuzzed_protobuf, fuzzed_json, fuzzed_http])

    def same(found: np.ndarray, wanted: np.ndarray) -> None:
        difference = np.abs(np.asarray(found) - wanted).max()
        if not difference <= 1e-4:
            raise AssertionError(f"scores differ by {difference:.1g}")

    def kserve_grpc() -> None:
        same(raw_scores(infer(infer_request(image), timeout=60)), expected)

    def kserve_rest() -> None:
        head = {"inputs": [tensor_head(image)], "parameters": {"binary_data_output": True}}
        text = json.dumps(head).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        found = posted(server, kserve, text + image.tobytes(), headers)
        same(np.frombuffer(found[-expected.nbytes :], np.float32)[None], expected)

    def picture() -> None:
        url = f"/v1/models/{NAME}:classify?top=1"
        best = json.loads(posted(server, url, photo, {"Content-Type": "image/jpeg"}))["top"][0]
        same(best["score"], seen.max())

    def refused_explanation() -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = NAME, "explain"
        request.inputs["image"].CopyFrom(tensors.to_content(image))
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        try:
            call(request.SerializeToString(), timeout=60)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return
            raise
        raise AssertionError("ONNX explained something")

    def malformed() -> None:
        code = next(fuzz)(server, channel, dice, image)
        if code in ("INTERNAL", "UNKNOWN", "500"):
            raise AssertionError(f"a malformed request is answered by {code}")

    def leaving() -> None:
        future = infer.future(infer_request(np.repeat(image, 8, axis=0)))
        time.sleep(dice.random() / 50)
        future.cancel()

    def look() -> None:
        got(server, next(looks))

    def reading_nothing() -> None:
        try:
            Client(server.address, "nobody", timeout=60).predict(image)
        except ServingError as error:
            if error.code == Code.NOT_FOUND:
                return
            raise
        raise AssertionError("a model that is not there answered")

    return [
        Kind("gRPC, tensors", lambda: same(over_grpc.predict(image), expected)),
        Kind("gRPC, JPEG files", lambda: same(over_grpc.predict([photo]), seen)),
        Kind("REST, JPEG files in JSON", lambda: same(rest.predict([photo]), seen)),
        Kind("REST, tensors in JSON", lambda: same(rest.predict(image), expected), 0.5),
        Kind("a picture as the body", picture),
        Kind("KServe v2, gRPC", kserve_grpc),
        Kind("KServe v2, REST in binary", kserve_rest),
        Kind("status, metadata, metrics, page", look, 0.1),
        Kind("explanations, refused", refused_explanation, 0.1),
        Kind("a model that is not there", reading_nothing, 0.5),
        Kind("malformed", malformed),
        Kind("left before the answer", leaving, 0.1),
    ]


def infer_request(images: np.ndarray) -> bytes:
    request = oip_protos.message("ModelInferRequest")(model_name=NAME)
    request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    request.raw_input_contents.append(images.tobytes())
    return request.SerializeToString()


def raw_scores(response: bytes) -> np.ndarray:
    found = oip_protos.message("ModelInferResponse").FromString(response)
    return np.frombuffer(found.raw_output_contents[0], np.float32)[None]


def tensor_head(images: np.ndarray) -> dict:
    size = {"binary_data_size": images.nbytes}
    shape = list(images.shape)
    return {"name": "image", "datatype": "UINT8", "shape": shape, "parameters": size}


def posted(server: Server, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    url = f"http://127.0.0.1:{server.rest_port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return answer.read()


def got(server: Server, path: str) -> None:
    url = f"http://127.0.0.1:{server.rest_port}{path}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()


class Switches:
    """A new version each time, which takes over before the one before it is deleted."""

    def __init__(self, server: Server, source: Path):
        self._server, self._source, self._numbers = server, source, itertools.count(2)

    def __call__(self) -> None:
        number = next(self._numbers)
        put(self._source, self._server.base, number)
        self._server.wait_for(number)
        shutil.rmtree(self._server.base / str(number - 1))
        self._server.wait_for(number - 1, "END")


# === The run ===


def soak(model: Path, minutes: float) -> tuple[list[dict], dict]:
    """A row for each kind of request, and how memory moved."""
    source = load(model).path
    memory: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory).resolve() / NAME
        base.mkdir()
        put(source, base, 1)
        server = Server(base)
        every = min(60.0, 10 * minutes)  # a sixth of a short run
        kinds = [*clients(server, source), Kind("new versions", Switches(server, source), every)]
        begin = time.monotonic()
        try:
            for kind in kinds:
                kind.start()
            while time.monotonic() < begin + 60 * minutes and server.process.poll() is None:
                time.sleep(min(1.0, minutes))
                memory.append((time.monotonic() - begin, server.megabytes()))
        finally:
            for kind in kinds:
                kind.stop()
            alive = server.process.poll() is None
            server.process.terminate()
            server.process.wait(60)
    rows = [
        {
            "case": kind.name,
            "answered": kind.answered,
            "failed": len(kind.failures),
            "reasons": sorted(set(kind.failures))[:3],
        }
        for kind in kinds
    ]
    return rows, {"minutes": minutes, "alive": alive, **moved(memory)}


def moved(memory: list[tuple[float, float]]) -> dict:
    """Megabytes without the first fifth: at its ends, the most, and how many more an hour by a
    straight line; None of a run that is too short to have one."""
    seconds, megabytes = np.array(memory[len(memory) // 5 :]).T
    found = {"first": megabytes[0], "last": megabytes[-1], "most": megabytes.max()}
    long = seconds[-1] - seconds[0] >= 60 * LONG
    slope = float(np.polyfit(seconds, megabytes, 1)[0]) * 3600 if long else None
    return {f"{name}_mb": round(float(mb), 1) for name, mb in found.items()} | {
        "mb_an_hour": slope and round(slope, 2)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("saved_models/squeezenet1_1"))
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--json", action="store_true", help="one document on standard output")
    given = parser.parse_args()
    rows, memory = soak(given.model, given.minutes)
    if given.json:
        print(json.dumps({"rows": rows, "memory": memory}, indent=1))
    else:
        for row in rows:
            said = f"{row['reasons'] or ''}"
            print(
                f"{row['case']:<34}{row['answered']:>9} answered{row['failed']:>6} failed  {said}"
            )
        slope = memory["mb_an_hour"]
        trend = "too short for a slope" if slope is None else f"{slope:+} MB an hour"
        print(
            f"RSS {memory['first_mb']} to {memory['last_mb']} MB (most {memory['most_mb']}), "
            f"{trend}, in {given.minutes:g} minutes"
        )
    sys.exit(not memory["alive"] or any(row["failed"] for row in rows))


if __name__ == "__main__":
    main()
