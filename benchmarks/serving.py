"""What striate's server leaves of the raw engine, and what its peers leave of it.

    python benchmarks/serving.py [--peer triton=/venv/bin/python ...] [--rounds 5] [--seconds 2]
        [--cases engine light peers jpeg cores overload start] [--json]
        [--write benchmarks/results/serving.json] [--table benchmarks/serving.md]

The machine's cores are split: servers, and the raw engine, have the first half (one of two), one
single-threaded worker a core; the load comes from a process on the others, whose share thus takes
nothing from them. Only the case `cores` shares them all, and takes the generator's processor time
off the raw engine's rate; `light` asks by h2load, a client in C, where that is installed, because
one in Python adds to a latency itself. Every request is batch 1. In each round all sides are asked
in turn; a row has the medians, and of the rounds' ratios the median with the lowest and highest.

Peers (benchmarks/peers) compute the same ONNX file with the same threads, and are compared over the
protocol that both speak: KServe v2 over gRPC (Triton, MLServer), HTTP with raw bytes (BentoML,
LitServe). TensorFlow's SavedModel stands behind a plain grpcio server; and the engine itself does,
with nothing around it, which is the most that a server over grpcio could reach. A peer lives in an
environment of its own, whose interpreter `--peer` names; those that are not installed are skipped.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from load import Load, Round
from striate.artifact import Artifact, load
from striate.serve import tensors
from striate.serve.protocols import oip_protos
from striate.serve.protos import predict_pb2

ROOT = Path(__file__).parents[1]
CLIENTS = 4  # a core, in closed rounds: enough that the server is never idle
FACTORS = (1, 2, 5)  # of the sustainable rate, in open rounds
WAIT = 90  # seconds for a server to answer
PREDICT = "tensorflow.serving.PredictionService/Predict"
INFER = "inference.GRPCInferenceService/ModelInfer"
BYTES = {"Content-Type": "application/octet-stream"}

# name -> (the module that tells whether it is installed, what it answers)
PEERS = {
    "grpcio": ("grpc", f"grpc://HOST/{PREDICT}"),
    "tensorflow": ("tensorflow_serving", f"grpc://HOST/{PREDICT}"),
    "triton": ("pytriton", f"grpc://HOST/{INFER}"),
    "mlserver": ("mlserver", f"grpc://HOST/{INFER}"),
    "bentoml": ("bentoml", "http://HOST/raw/predict"),
    "litserve": ("litserve", "http://HOST/predict"),
}
TITLES = {
    "raw": "the engine in process",
    "grpcio": "the engine behind bare grpcio",
    "tensorflow": "grpcio and TensorFlow's SavedModel",
    "triton": "Triton (nvidia-pytriton)",
    "mlserver": "MLServer",
    "bentoml": "BentoML",
    "litserve": "LitServe",
}


# === Models and what is asked ===


def artifacts(nets: list[str], base: Path) -> list[Artifact]:
    """The shipped net, and others untrained (which costs the same time) under `base`."""
    found = []
    for net in nets:
        shipped = ROOT / "saved_models" / net
        found.append(load(shipped if shipped.is_dir() else made(net, base)))
    return found


def made(net: str, base: Path) -> Path:
    """An artifact of an untrained net as ONNX and SavedModel; another process makes it, so that
    TensorFlow is none of ours."""
    if not (base / net).is_dir():
        command = [sys.executable, str(ROOT / "benchmarks/peers/make_model.py"), net, str(base)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return base / net


class Bodies:
    """One picture as every protocol sends it, in files for the generator."""

    def __init__(self, artifact: Artifact, directory: Path):
        self._directory = directory
        images, scores = artifact.goldens()
        self.image, self.scores = images[:1], scores[:1]
        self.tfs = self._file("tfs", self._predict("serving_default", "image", self.image))
        self.oip = self._file("oip", self._infer())
        self.raw = self._file("raw", self.image.tobytes())
        document = {"inputs": [self._input()], "parameters": {"binary_data_output": True}}
        head = json.dumps(document).encode()
        self.rest = self._file("rest", head + self.image.tobytes())
        self.rest_headers = BYTES | {"Inference-Header-Content-Length": str(len(head))}
        photo = (ROOT / "examples/photos/cat.jpg").read_bytes()
        self.jpeg = self._file("jpeg", half_a_megapixel(photo))
        files = tensors.strings([self.jpeg.read_bytes()])
        self.tfs_jpeg = self._file("tfs_jpeg", self._predict("bytes", "image_bytes", files))

    def of(self, url: str, jpeg: bool = False) -> tuple[Path, dict[str, str]]:
        """The file and the headers for a server that is asked at `url`."""
        if url.endswith(PREDICT):
            return (self.tfs_jpeg if jpeg else self.tfs), {}
        if url.endswith(INFER):
            return self.oip, {}
        if url.endswith("/infer"):
            return self.rest, self.rest_headers
        return (self.jpeg if jpeg else self.raw), BYTES

    def check(self, url: str, answer: bytes) -> None:
        """Hold what a server at `url` answers to the golden scores."""
        if url.endswith(PREDICT):
            found = predict_pb2.PredictResponse.FromString(answer).outputs["scores"]
            scores = tensors.from_proto(found, 1 << 30)
        elif url.endswith(INFER):
            found = oip_protos.message("ModelInferResponse").FromString(answer)
            typed = found.outputs[0].contents.fp32_contents
            scores = np.array(typed or np.frombuffer(found.raw_output_contents[0], np.float32))
        else:
            scores = np.frombuffer(answer[-self.scores.nbytes :], np.float32)
        difference = np.abs(scores.reshape(self.scores.shape) - self.scores).max()
        if not difference <= 1e-4:
            raise RuntimeError(f"{url} answers other scores, by up to {difference:.1g}")

    def _predict(self, signature: str, name: str, array: np.ndarray) -> bytes:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "model"
        request.model_spec.signature_name = signature
        write = tensors.to_proto if array.dtype == object else tensors.to_content
        request.inputs[name].CopyFrom(write(array))
        request.output_filter.append("scores")
        return request.SerializeToString()

    def _infer(self) -> bytes:
        request = oip_protos.message("ModelInferRequest")(model_name="model")
        request.inputs.add(name="image", datatype="UINT8", shape=self.image.shape)
        request.raw_input_contents.append(self.image.tobytes())
        return request.SerializeToString()

    def _input(self) -> dict:
        size = {"binary_data_size": self.image.nbytes}
        shape = list(self.image.shape)
        return {"name": "image", "datatype": "UINT8", "shape": shape, "parameters": size}

    def _file(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        return path


def half_a_megapixel(photo: bytes) -> bytes:
    """A photograph as JPEG of 800 x 600: what phones and web pages send."""
    data = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").resize((800, 600)).save(data, "JPEG", quality=90)
    return data.getvalue()


# === Servers ===


class Server:
    """A server in processes of its own, on its cores; `seconds` until its first good answer."""

    def __init__(self, name: str, command: list[str], url: str, bodies: Bodies, cores: set[int]):
        self.name, self.port = name, free_port()
        command = [part.replace("PORT", str(self.port)) for part in command]
        self.url = url.replace("HOST", f"127.0.0.1:{self.port}")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        with contextlib.closing(self.load(bodies, {max(os.sched_getaffinity(0))})) as asking:
            begin = time.monotonic()
            with on(cores):
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,  # so that what it starts ends with it
                )
            try:
                answer = self._first_answer(begin, asking)
                self.seconds = time.monotonic() - begin
                bodies.check(self.url, answer)
            except BaseException:
                self.close()
                raise

    def _first_answer(self, begin: float, asking: Load) -> bytes:
        while self._process.poll() is None and time.monotonic() < begin + WAIT:
            if listens(self.port) and (answer := asking.answer()):
                return answer
            time.sleep(0.01)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()[-600:]
        raise RuntimeError(f"{self.name} gives no answer: {said}")

    def load(self, bodies: Bodies, cores: set[int], jpeg: bool = False) -> Load:
        body, headers = bodies.of(self.url, jpeg)
        return Load(self.url, body, headers, cores)

    def cpu(self) -> float:
        """Seconds of processor time so far, its children's too."""
        return sum(processor_seconds(pid) for pid in children(self._process.pid))

    def megabytes(self) -> float:
        """Of memory that it and its children hold; what they share is counted once."""
        pages = [proportional(pid) for pid in children(self._process.pid)]
        return sum(pages) / 1024

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def striate(artifact: Artifact, bodies: Bodies, cores: set[int], kind: str = "grpc") -> Server:
    urls = {
        "grpc": f"grpc://HOST/{PREDICT}",
        "oip": f"grpc://HOST/{INFER}",
        "rest": "http://HOST/v2/models/model/infer",
    }
    ports = ("--port=0", "--rest_api_port=PORT") if kind == "rest" else ("--port=PORT",)
    base = [f"--model_base_path={artifact.path.parent}", "--model_name=model", "--engine=onnx"]
    command = [sys.executable, "-m", "striate", "serve", *base, "--host=127.0.0.1", *ports]
    return Server(f"striate, {kind}", command, urls[kind], bodies, cores)


def peer(name: str, python: str, artifact: Artifact, bodies: Bodies, cores: set[int]) -> Server:
    script = ROOT / "benchmarks/peers" / SCRIPTS[name]
    model = artifact.path if name == "tensorflow" else artifact.file("model.onnx")
    command = [python, str(script), str(model), "PORT", str(len(cores))]
    return Server(name, command, PEERS[name][1], bodies, cores)


SCRIPTS = {
    "grpcio": "grpc_onnx.py",
    "tensorflow": "grpc_tensorflow.py",
    "triton": "triton.py",
    "mlserver": "mlserver_.py",
    "bentoml": "bentoml_.py",
    "litserve": "litserve_.py",
}


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """What is started in the block runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from children(int(child))


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional(pid: int) -> int:
    """kB of memory; a page that n processes share is an n-th of one."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return int(text.split("\nPss:")[1].split()[0])


# === Cases: each yields rows ===


class Bench:
    """One model on the split machine, asked `rounds` times."""

    def __init__(self, artifact: Artifact, given: argparse.Namespace, directory: Path):
        self.artifact, self.given = artifact, given
        self.net = artifact.name
        self.bodies = Bodies(artifact, directory)
        cores = sorted(os.sched_getaffinity(0))
        half = max(1, len(cores) // 2)
        self.all, self.server_cores, self.load_cores = (
            set(cores),
            set(cores[:half]),
            set(cores[half:] or cores),
        )
        self.clients = CLIENTS * half

    def raw(self, jpeg: bool = False, cores: set[int] | None = None) -> Load:
        body = self.bodies.jpeg if jpeg else self.bodies.raw
        return Load(f"engine://{self.artifact.path}", body, {}, cores or self.server_cores)

    def row(
        self, case: str, unit: str, ours: list, name: str, peers: list, less: bool = False
    ) -> dict:
        """less: whether less is better; the ratio is always better above 1."""
        pairs = list(zip(ours, peers, strict=True))
        ratios = sorted(b / a if less else a / b for a, b in pairs)
        return {
            "case": f"{self.net}: {case}",
            "unit": unit,
            "ours": round(statistics.median(ours), 3),
            "peer_name": name,
            "peer": round(statistics.median(peers), 3),
            "ratio": round(statistics.median(ratios), 4),
            "spread": [round(ratios[0], 4), round(ratios[-1], 4)],
            "rounds": len(pairs),
        }

    def in_turn(self, sides: dict[str, Callable[[], object]]) -> dict[str, list]:
        """Every side in every round, each round beginning with another."""
        found: dict[str, list] = {name: [] for name in sides}
        names = list(sides)
        for number in range(self.given.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found[name].append(sides[name]())
        return found


def beside(bench: Bench, pythons: dict[str, str]) -> Iterator[dict]:
    """Throughput and the latency of one client beside peers, or without any the raw engine: alone,
    since servers that wait take processor time and caches, too."""
    given, seconds = bench.given, bench.given.seconds
    with contextlib.ExitStack() as opened:
        loads: dict[str, Load] = {}
        servers: dict[str, Server] = {}
        if not pythons:
            loads["raw"] = opened.enter_context(contextlib.closing(bench.raw()))
        for name in ("grpc", "oip", "rest", *pythons) if pythons else ("grpc",):
            args = (bench.artifact, bench.bodies, bench.server_cores)
            try:
                server = (
                    peer(name, pythons[name], *args) if name in pythons else striate(*args, name)
                )
            except (RuntimeError, OSError) as error:
                note(f"left out: {error}")
                continue
            servers[name] = opened.enter_context(contextlib.closing(server))
            load = server.load(bench.bodies, bench.load_cores)
            loads[name] = opened.enter_context(contextlib.closing(load))

        def asked(name: str) -> tuple[Round, Round, float]:
            clients = len(bench.server_cores) if name == "raw" else bench.clients
            before = servers[name].cpu() if name in servers else 0.0
            many = loads[name].closed(clients, seconds)
            used = servers[name].cpu() - before if name in servers else many.cpu
            one = loads[name].closed(1, seconds / 2)
            if many.failed or one.failed:
                raise SystemExit(f"{name}: {many.failed or one.failed}")
            return many, one, 1000 * used / (many.asked if name in servers else many.counted)

        for name in loads:
            asked(name)  # warm
        rounds = bench.in_turn({name: lambda name=name: asked(name) for name in loads})
        rates = {name: [many.rate for many, _, _ in found] for name, found in rounds.items()}
        medians = {name: [one.median for _, one, _ in found] for name, found in rounds.items()}
        used = {name: [cpu for _, _, cpu in found] for name, found in rounds.items()}
        for name in [name for name in ("raw", *pythons) if name in rounds]:
            same, title = same_protocol(name), TITLES[name]
            row = bench.row("throughput", "images/s", rates[same], title, rates[name])
            yield row | cpu_of(used[same], used[name])
            row = bench.row("median, one client", "ms", medians[same], title, medians[name], True)
            added = [a - b for a, b in zip(medians[same], medians[name], strict=True)]
            yield row | ({"added": round(statistics.median(added), 3)} if name == "raw" else {})
            if name in servers and "start" in given.cases:
                a, b = servers["grpc"], servers[name]
                yield bench.row("first answer after", "s", [a.seconds], title, [b.seconds], True)
                memory = [a.megabytes()], title, [b.megabytes()]
                yield bench.row("memory after load", "MB", *memory, True)


def cpu_of(ours: list[float], peers: list[float]) -> dict:
    """Processor time of one picture, in ms, and its ratio: what the throughput's would be if nobody
    else used the machine."""
    ratio = statistics.median(b / a for a, b in zip(ours, peers, strict=True))
    return {"cpu_ms": round(statistics.median(ours), 3), "cpu_ratio": round(ratio, 4)}


def same_protocol(name: str) -> str:
    """How striate is asked to be compared with a peer."""
    kserve, http = ("triton", "mlserver"), ("bentoml", "litserve")
    return "oip" if name in kserve else "rest" if name in http else "grpc"


def light(bench: Bench) -> Iterator[dict]:
    """The latency of one client that takes next to no time itself."""
    if not shutil.which("h2load"):
        note("left out: h2load is not installed (Debian: nghttp2-client)")
        return
    server = striate(bench.artifact, bench.bodies, bench.server_cores)
    with contextlib.closing(server), contextlib.closing(bench.raw()) as raw:
        seconds = max(1, round(bench.given.seconds))
        sides = {
            "ours": lambda: h2load(server.port, bench.bodies.tfs, seconds, bench.load_cores),
            "raw": lambda: raw.closed(1, seconds).median,
        }
        for side in sides.values():
            side()
        found = bench.in_turn(sides)
        ours, peers = found["ours"], found["raw"]
        name = "the engine in process"
        row = bench.row("median, one client in C", "ms", ours, name, peers, less=True)
        added = [a - b for a, b in zip(ours, peers, strict=True)]
        yield row | {"added": round(statistics.median(added), 3)}


def h2load(port: int, message: Path, seconds: int, cores: set[int]) -> float:
    """The median latency of Predict in ms, asked for so many seconds by one client."""
    with tempfile.TemporaryDirectory() as directory:
        body, log = Path(directory) / "body", Path(directory) / "log"
        content = message.read_bytes()
        body.write_bytes(struct.pack(">?L", False, len(content)) + content)  # as gRPC frames it
        command = ["h2load", f"--duration={seconds}", "--clients=1", "--max-concurrent-streams=1"]
        command += [f"--data={body}", f"--log-file={log}", "--header=te: trailers"]
        command += ["--header=content-type: application/grpc"]
        with on(cores):
            subprocess.run(
                [*command, f"http://127.0.0.1:{port}/{PREDICT}"], check=True, capture_output=True
            )
        lines = [line.split() for line in log.read_text().splitlines()]  # begin, status, µs
        if any(status != "200" for _, status, _ in lines):
            raise SystemExit(f"h2load: {lines[-1]}")
        return statistics.median(int(us) / 1000 for _, _, us in lines)


def jpeg(bench: Bench) -> Iterator[dict]:
    """Picture files, decoded by the server."""
    server = striate(bench.artifact, bench.bodies, bench.server_cores)
    with (
        contextlib.closing(server),
        contextlib.closing(bench.raw(jpeg=True)) as raw,
        contextlib.closing(server.load(bench.bodies, bench.load_cores, jpeg=True)) as ours,
    ):
        seconds, cores = bench.given.seconds, len(bench.server_cores)
        sides = {
            "ours": lambda: ours.closed(bench.clients, seconds).rate,
            "raw": lambda: raw.closed(cores, seconds).rate,
        }
        for side in sides.values():
            side()
        found = bench.in_turn(sides)
        name = "decoding and the engine in process"
        yield bench.row("JPEG files", "images/s", found["ours"], name, found["raw"])


def all_cores(bench: Bench) -> Iterator[dict]:
    """Server and generator share all cores; what the generator takes is not the server's fault."""
    server = striate(bench.artifact, bench.bodies, bench.all)
    cores, seconds = len(bench.all), bench.given.seconds
    with (
        contextlib.closing(server),
        contextlib.closing(bench.raw(cores=bench.all)) as raw,
        contextlib.closing(server.load(bench.bodies, bench.all)) as ours,
    ):
        sides = {
            "ours": lambda: ours.closed(CLIENTS * cores, seconds),
            "raw": lambda: raw.closed(cores, seconds),
        }
        for side in sides.values():
            side()
        found = bench.in_turn(sides)
        rates = [o.rate for o in found["ours"]]
        pairs = zip(found["raw"], found["ours"], strict=True)
        left = [r.rate * (1 - o.cpu / o.seconds / cores) for r, o in pairs]
        name = "the engine in process, less the generator's share"
        yield bench.row(f"throughput, {cores} cores with the load", "images/s", rates, name, left)


def overload(bench: Bench, protocol: str = "grpc") -> Iterator[dict]:
    """Poisson arrivals at once, twice and five times what can be sustained."""
    server = striate(bench.artifact, bench.bodies, bench.server_cores, protocol)
    over = {"grpc": "", "rest": ", over REST"}[protocol]
    with (
        contextlib.closing(server),
        contextlib.closing(server.load(bench.bodies, bench.load_cores)) as load,
    ):
        seconds = 2 * bench.given.seconds
        peak = load.closed(bench.clients, seconds).rate
        before = server.megabytes()
        sides = {
            "peak": lambda: load.closed(bench.clients, seconds),
            **{f"{k}": lambda k=k: load.open(k * peak, seconds) for k in FACTORS},
        }
        found = bench.in_turn(sides)
        peaks = [round_.rate for round_ in found["peak"]]
        for k in FACTORS:
            rounds = found[f"{k}"]
            case = f"{k} times the load{over}: good answers"
            good = [round_.rate for round_ in rounds]
            row = bench.row(case, "images/s", good, "closed loop", peaks)
            row |= {"failed": sum(sum(round_.failed.values()) for round_ in rounds)}
            rejected = [t for round_ in rounds for t in round_.rejected]
            if rejected:
                p50, p99 = np.percentile(rejected, [50, 99])
                row |= {"rejected": len(rejected), "rejected_p50_ms": round(p50, 2)}
                row |= {"rejected_p99_ms": round(p99, 2)}
            yield row
        after = server.megabytes()
        row = f"memory after overload{over}", "MB", [after], "before it", [before], True
        yield bench.row(*row)


def start(bench: Bench) -> Iterator[dict]:
    """From the command to the first answer, the memory then, and the client's import."""
    seconds, used, megabytes = [], [], []
    for _ in range(bench.given.rounds):
        with contextlib.closing(striate(bench.artifact, bench.bodies, bench.server_cores)) as ours:
            seconds.append(ours.seconds)
            used.append(ours.cpu())
            megabytes.append(ours.megabytes())
    rounds = len(seconds)
    row = bench.row("first answer after", "s", seconds, "aim, at most", [2.0] * rounds, True)
    yield row | {"cpu_s": round(statistics.median(used), 2)}
    yield bench.row("memory at the start", "MB", megabytes, "aim, at most", [200.0] * rounds, True)
    imports = [import_seconds("from striate.serve.client import Client") for _ in range(rounds)]
    yield bench.row("import of the client", "s", imports, "aim, at most", [0.5] * rounds, True)


def import_seconds(statement: str) -> float:
    begin = "import time; begin = time.perf_counter()"
    code = f"{begin}; {statement}; print(time.perf_counter() - begin)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


# === The run ===

CASES = ("engine", "light", "peers", "jpeg", "cores", "overload", "start")
WHERE = ("cpu", "cores")
HOW = (
    "Servers and the raw engine on half of the cores, one single-threaded worker each; the load "
    "from a process on the others; batch 1; all sides in turn within every round; medians."
)
SAID = {
    "added": "added ms",
    "cpu_ms": "processor ms",
    "cpu_ratio": "ratio of it",
    "cpu_s": "processor s",
    "failed": "failed",
    "rejected": "rejected",
    "rejected_p50_ms": "after ms (median)",
    "rejected_p99_ms": "(99 %)",
}


def measure(given: argparse.Namespace, pythons: dict[str, str]) -> Iterator[dict]:
    base = given.models
    base.mkdir(parents=True, exist_ok=True)
    for artifact in artifacts(given.nets, base):
        with tempfile.TemporaryDirectory() as directory:
            bench = Bench(artifact, given, Path(directory))
            if "engine" in given.cases:
                yield from beside(bench, {})
            if "light" in given.cases:
                yield from light(bench)
            if pythons:
                yield from beside(bench, pythons)
            for name, case in (
                ("jpeg", jpeg),
                ("cores", all_cores),
                ("overload", overload),
                ("overload", partial(overload, protocol="rest")),
            ):
                if name in given.cases:
                    yield from case(bench)
            if "start" in given.cases:
                yield from start(bench)


def interpreters(named: list[str]) -> dict[str, str]:
    """Peer -> the Python that has it: the one that was named, else ours where it is installed."""
    found = dict(item.partition("=")[::2] for item in named)
    if unknown := found.keys() - PEERS.keys():
        raise SystemExit(f"expected peers out of {', '.join(PEERS)}, got {', '.join(unknown)}")
    if missing := [item for item in named if not Path(item.partition("=")[2]).is_file()]:
        raise SystemExit(f"expected --peer NAME=PYTHON, an interpreter, got {', '.join(missing)}")
    for name, (module, _) in PEERS.items():
        if name not in found and importlib.util.find_spec(module):
            found[name] = sys.executable
        elif name not in found:
            note(f"left out: {name} is not installed (--peer {name}=PYTHON)")
    return {name: found[name] for name in PEERS if name in found}


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def line(row: dict) -> str:
    low, high = row["spread"]
    return (
        f"{row['case']:<52}{row['ours']:>9.2f}{row['peer']:>9.2f} {row['unit']:<9}"
        f"{row['ratio']:>7.3f} ({low:.3f} to {high:.3f})  {row['peer_name']}  {besides(row)}"
    )


def besides(row: dict) -> str:
    """What else was measured for a row."""
    return ", ".join(f"{SAID[key]} {row[key]}" for key in SAID if key in row)


def markdown(about: dict, rows: list[dict]) -> str:
    """The rows as a page."""
    versions = ", ".join(f"{name} {value}" for name, value in about.items() if name not in WHERE)
    lines = [
        "# Serving, measured",
        "",
        f"`python benchmarks/serving.py` on {about['cpu']}, {about['cores']} cores: {versions}.",
        f"{HOW} Above 1.00 striate is the better.",
        "",
        "| case | striate | peer | | ratio | lowest to highest | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["spread"]
        lines.append(
            f"| {row['case']}, {row['unit']} | {row['ours']:g} | {row['peer']:g} | "
            f"{row['peer_name']} | {row['ratio']:.2f} | {low:.2f} to {high:.2f} | {besides(row)} |"
        )
    return "\n".join(lines) + "\n"


def machine(pythons: dict[str, str]) -> dict:
    packages = {"tensorflow": "tensorflow", "triton": "nvidia-pytriton"}
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    versions = {
        "onnxruntime": metadata.version("onnxruntime"),
        "grpcio": metadata.version("grpcio"),
    }
    for name, python in pythons.items():
        package = packages.get(name, name)
        asked = subprocess.run([python, "-c", code, package], capture_output=True, text=True)
        versions[package] = asked.stdout.strip()
    cpu = next(
        (s.partition(":")[2].strip() for s in Path("/proc/cpuinfo").read_text().splitlines()
         if s.startswith("model name")), platform.machine())  # fmt: skip
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["squeezenet1_1", "mobilenet_v2_100"])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one side in one round")
    parser.add_argument(
        "--models", type=Path, default=Path(tempfile.gettempdir()) / "striate_serving",
        help="where nets that do not ship are made and kept",
    )  # fmt: skip
    parser.add_argument("--write", type=Path, help="a JSON file for the machine and the rows")
    parser.add_argument("--table", type=Path, help="a Markdown file for the same")
    parser.add_argument("--json", action="store_true", help="the rows on standard output")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with it
    pythons = interpreters(given.peer) if "peers" in given.cases else {}
    about, rows = machine(pythons), []
    for row in measure(given, pythons):
        rows.append(row)
        print(line(row), file=sys.stderr if given.json else sys.stdout, flush=True)
        if given.write:
            given.write.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
        if given.table:
            given.table.write_text(markdown(about, rows))
    if given.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
