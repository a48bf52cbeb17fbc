"""Everything that goes wrong around a server, while good clients ask: none of them may notice.

    python benchmarks/serve_faults.py [--model saved_models/squeezenet1_1] [--malformed 10000]
        [--reloads 100] [--json]

One server process; two good clients, gRPC and REST, ask it all the time. Meanwhile versions are
switched, the configuration is reloaded, a corrupt version arrives, the directory is deleted,
malformed requests come in, clients are slow or vanish, and a version is replaced again and again.
A row says how many good requests were answered during it and how many failed, and what else was
counted: malformed requests that were answered by INTERNAL, or the growth of memory a reload.
"""

import argparse
import contextlib
import http.client
import io
import itertools
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from striate.artifact import load
from striate.serve import tensors
from striate.serve.client import Client, HttpClient
from striate.serve.protos import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
)

NAME = "model"


class Server:
    """`striate serve` in a process of its own, over a directory of versions."""

    def __init__(self, base: Path):
        self.base = base
        self.port, self.rest_port = free_ports(2)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "striate", "serve"),
                f"--model_base_path={base}",
                f"--model_name={NAME}",
                "--host=127.0.0.1",
                f"--port={self.port}",
                f"--rest_api_port={self.rest_port}",
                "--file_system_poll_wait_seconds=0.1",
                "--max_num_load_retries=0",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("REST at"):
                return
        raise SystemExit("the server did not start")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def http(self) -> HttpClient:
        return HttpClient(f"http://127.0.0.1:{self.rest_port}", NAME)

    def megabytes(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def wait_for(self, number: int, state: str = "AVAILABLE") -> None:
        deadline = time.monotonic() + 300
        while not self.http().status().get(number, "").startswith(state):
            if time.monotonic() > deadline:
                raise SystemExit(f"version {number} did not become {state}")
            time.sleep(0.02)


class GoodClients:
    """Two threads that ask for as long as the block lasts; `answered` and `failed` count."""

    def __init__(self, server: Server, images: np.ndarray, scores: np.ndarray):
        self.answered, self.failures = 0, list[str]()
        self._images, self._scores, self._stop = images, scores, threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(self._over_grpc(server),)),
            threading.Thread(target=self._ask, args=(self._over_rest(server),)),
        ]

    def _over_grpc(self, server: Server) -> Callable[[], np.ndarray]:
        client = Client(server.address, NAME, timeout=60)
        return lambda: client.predict(self._images[:1])

    def _over_rest(self, server: Server) -> Callable[[], np.ndarray]:
        client, file = server.http(), png(self._images[0])
        return lambda: client.predict([file])

    def _ask(self, ask: Callable[[], np.ndarray]) -> None:
        while not self._stop.is_set():
            try:
                if np.abs(ask() - self._scores[:1]).max() > 1e-4:
                    self.failures.append("other scores than the golden ones")
                self.answered += 1
            except Exception as error:
                self.failures.append(str(error))

    def __enter__(self) -> "GoodClients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def free_ports(count: int) -> list[int]:
    """Different ones: each is held until all are known."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def put(source: Path, base: Path, number: int) -> None:
    """Make a version appear as export does: whole, by a rename."""
    shutil.copytree(source, base / ".incoming")
    (base / ".incoming").rename(base / str(number))


# The faults: each returns what else it counted


def switch_versions(server: Server, source: Path) -> str:
    for number in (2, 3, 4):
        put(source, server.base, number)
        server.wait_for(number)
    return "3 switches"


def reload_configuration(server: Server, source: Path) -> str:
    with grpc.insecure_channel(server.address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        for i in range(10):
            request = model_management_pb2.ReloadConfigRequest()
            for name in (NAME, "other")[: 1 + i % 2]:
                request.config.model_config_list.config.add(name=name, base_path=str(server.base))
            stub.HandleReloadConfigRequest(request, timeout=300)
    return "10 reloads"


def corrupt_version(server: Server, source: Path) -> str:
    shutil.copytree(source, server.base / ".incoming")
    file = server.base / ".incoming" / "model.onnx"
    file.write_bytes(file.read_bytes()[::-1])
    (server.base / ".incoming").rename(server.base / "5")
    server.wait_for(5, "END")
    shutil.rmtree(server.base / "5")
    return "refused, with its reason in the status"


def delete_directory(server: Server, source: Path) -> str:
    hidden = server.base.with_name("hidden")
    server.base.rename(hidden)
    time.sleep(2)
    hidden.rename(server.base)
    time.sleep(0.5)
    return "gone for 2 s"


def malformed(server: Server, source: Path, count: int) -> str:
    rng = random.Random(0)
    images, _ = load(source).goldens()
    kinds = [fuzzed_protobuf, fuzzed_json, fuzzed_http]
    codes: dict[str, int] = {}
    with grpc.insecure_channel(server.address) as channel:
        for kind in kinds:
            for _ in range(count // len(kinds)):
                code = kind(server, channel, rng, images[0])
                codes[code] = codes.get(code, 0) + 1
    bad = sum(n for code, n in codes.items() if code in ("INTERNAL", "UNKNOWN", "500"))
    return f"{sum(codes.values())} malformed, {bad} of them an internal error; {codes}"


def fuzzed_protobuf(server: Server, channel: grpc.Channel, rng: random.Random, image) -> str:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    proto = request.inputs["image"]
    proto.dtype = rng.randrange(26)
    for _ in range(rng.randrange(6)):
        proto.tensor_shape.dim.add(size=rng.choice([-1, 0, 1, 3, 227, 1 << 20, 1 << 62]))
    proto.tensor_content = rng.randbytes(rng.randrange(300))
    proto.int_val.extend(rng.choices(range(-300, 300), k=rng.randrange(4)))
    request.output_filter.extend(rng.choices(["scores", "x", ""], k=rng.randrange(2)))
    body, method = request.SerializeToString(), "Predict"
    if rng.random() < 0.5:
        body = mutated(body, rng)
        method = rng.choice(["Predict", "Classify", "Regress", "MultiInference"])
    call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
    try:
        call(body, timeout=60)
    except grpc.RpcError as error:
        if error.details().startswith("Exception deserializing request"):
            return "not parsed"  # gRPC's own INTERNAL: the bytes are no message at all
        return error.code().name
    return "OK"


def fuzzed_json(server: Server, channel: grpc.Channel, rng: random.Random, image) -> str:
    document = {"signature_name": "bytes", "instances": [{"b64": "AAAA"}, [1.5, -2, None]]}
    body = mutated(json.dumps(document).encode(), rng)
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    verb = rng.choice(["predict", "classify", "regress"])
    connection.request("POST", f"/v1/models/{NAME}:{verb}", body)
    status = connection.getresponse().status
    connection.close()
    return str(status)


def fuzzed_http(server: Server, channel: grpc.Channel, rng: random.Random, image) -> str:
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as client:
        client.sendall(mutated(head.encode(), rng))
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            answer = client.recv(64).split()
            return answer[1].decode() if len(answer) > 1 else "closed"
    return "closed"


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or the end lost."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(found) or 1)
        move = rng.randrange(4)
        if move == 0:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif move == 1:
            del found[at : at + rng.randint(1, 16)]
        elif move == 2:
            found[at:at] = found[at : at + rng.randint(1, 64)]
        else:
            del found[max(at, len(found) // 2) :]
    return bytes(found)


def slow_clients(server: Server, source: Path) -> str:
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", server.rest_port)) for _ in range(200)]
    for byte in itertools.islice(head.encode(), 40):
        for client in clients:
            client.sendall(bytes([byte]))
        time.sleep(0.05)
    for client in clients:
        client.close()
    return f"{len(clients)} clients, a byte every 50 ms"


def vanishing_clients(server: Server, source: Path) -> str:
    images, _ = load(source).goldens()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    request.inputs["image"].CopyFrom(tensors.to_content(np.repeat(images[:1], 16, axis=0)))
    body = request.SerializeToString()
    for i in range(100):
        if i % 2:
            with grpc.insecure_channel(server.address) as channel:
                call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
                future = call.future(body)
                time.sleep(0.01)
                future.cancel()
        else:
            connection = http.client.HTTPConnection("127.0.0.1", server.rest_port)
            document = json.dumps({"instances": images[:1, :32].tolist()})
            connection.request("POST", f"/v1/models/{NAME}:predict", document)
            connection.close()
    return "100 clients"


def replace_versions(server: Server, source: Path, count: int) -> str:
    """Memory is read when the old version is gone; its slope leaves out the first fifth."""
    before = max(number for number, state in server.http().status().items() if "AVAIL" in state)
    sizes = []
    for number in range(before + 1, before + 1 + count):
        put(source, server.base, number)
        server.wait_for(number)
        shutil.rmtree(server.base / str(number - 1))
        server.wait_for(number - 1, "END")
        sizes.append(server.megabytes())
    settled = sizes[count // 5 :]
    slope = np.polyfit(range(len(settled)), settled, 1)[0] if len(settled) > 1 else 0.0
    return f"RSS {sizes[0]:.0f} to {sizes[-1]:.0f} MB, {1024 * slope:+.0f} kB a reload"


FAULTS: list[tuple[str, Callable]] = [
    ("version switch", switch_versions),
    ("configuration reload", reload_configuration),
    ("corrupt version", corrupt_version),
    ("directory deleted", delete_directory),
    ("malformed requests", malformed),
    ("slow clients", slow_clients),
    ("vanishing clients", vanishing_clients),
    ("version replaced", replace_versions),
]


def measure(model: Path, counts: dict[str, int]) -> Iterator[dict]:
    source = load(model).path
    images, scores = load(model).goldens()
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory).resolve() / NAME
        base.mkdir()
        put(source, base, 1)
        server = Server(base)
        try:
            for name, fault in FAULTS:
                start = time.monotonic()
                with GoodClients(server, images, scores) as clients:
                    more = [counts[name]] if name in counts else []
                    noted = fault(server, source, *more)
                yield {
                    "case": name,
                    "seconds": round(time.monotonic() - start, 1),
                    "answered": clients.answered,
                    "failed": len(clients.failures),
                    "reasons": sorted(set(clients.failures))[:3],
                    "noted": noted,
                }
            if server.process.poll() is not None:
                raise SystemExit("the server ended")
        finally:
            server.process.terminate()
            server.process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("saved_models/squeezenet1_1"))
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="one document on standard output")
    options = parser.parse_args()
    counts = {"malformed requests": options.malformed, "version replaced": options.reloads}
    rows = []
    for row in measure(options.model, counts):
        rows.append(row)
        if not options.json:
            print(
                f"{row['case']:<22} {row['seconds']:>7.1f} s  {row['answered']:>6} answered  "
                f"{row['failed']:>3} failed  {row['noted']} {row['reasons'] or ''}",
                flush=True,
            )
    if options.json:
        print(json.dumps(rows, indent=1))
    sys.exit(any(row["failed"] for row in rows))


if __name__ == "__main__":
    main()
