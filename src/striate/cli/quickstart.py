"""`striate quickstart`: everything that striate does, once, on pictures that come with it."""

import contextlib
import functools
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from striate.cli.console import Json, emit, keras_backend, load_tensorflow, quiet_libraries
from striate.errors import StriateError, UsageError
from striate.libraries import need

SAMPLES = Path(__file__).parents[1] / "samples" / "furniture"
NET = "squeezenet1_1"


def quickstart(
    directory: Annotated[
        Path, typer.Argument(help="A new directory, for the pictures and the classifier.")
    ] = Path("striate-quickstart"),
    as_json: Json = False,
) -> None:
    """Do all of it once, on pictures that come along.

    Fine-tune, evaluate, export, serve and ask about 12 kinds of furniture; no network is needed.
    """
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise UsageError(f"{directory}: expected a new or empty directory; name another")
    _check_whole()
    started = time.perf_counter()
    say = (lambda text: None) if as_json else functools.partial(print, flush=True)
    steps: list[dict[str, Any]] = []

    def step(name: str, work, *given) -> Any:
        say(f"\n{len(steps) + 1}. {name}")
        begun = time.perf_counter()
        result, facts = work(*given)
        seconds = time.perf_counter() - begun
        steps.append({"step": name, "seconds": round(seconds, 1), **facts})
        for key, value in facts.items():
            say(f"   {key:<13}{value}")
        say(f"   {seconds:.1f} s")
        return result

    say("striate quickstart: from a folder of pictures to a classifier that answers")
    unseen = step("Pictures: one folder a class", _copy_pictures, directory)
    load_tensorflow()
    artifact = step("Fine-tune a net that has seen ImageNet", _finetune, directory)
    evaluation = step("Evaluate on pictures held out", _evaluate, artifact, directory)
    artifact = step("Export, each form proven against Keras", _export, artifact)
    step("Serve, and ask about a picture never seen", _serve_and_ask, artifact, unseen)
    seconds = time.perf_counter() - started
    if as_json:
        emit({"seconds": round(seconds, 1), "steps": steps, "evaluation": evaluation.to_dict()})
        return
    print(f"\nAll of it took {seconds:.0f} s. {_what_next(directory)}")


def _check_whole() -> None:
    """Raise before anything is trained where the last steps could not be taken."""
    from striate.export import FORMS

    libraries = [name for form in FORMS.values() for name in form.libraries]
    need("quickstart", *dict.fromkeys(libraries), "jinja2", "grpc", "tensorflow_serving")
    if (backend := keras_backend()) != "tensorflow":
        raise UsageError(
            f"quickstart exports, which goes through TensorFlow, and Keras is to run on {backend}: "
            "run it with KERAS_BACKEND=tensorflow"
        )


def _copy_pictures(directory: Path) -> tuple[list[Path], dict[str, Any]]:
    """The furniture below `pictures/`, but for the last picture of each class, kept unseen."""
    unseen = []
    for kind in sorted(path for path in SAMPLES.iterdir() if path.is_dir()):
        pictures = sorted(kind.glob("*.png"))
        target = directory / "pictures" / kind.name
        target.mkdir(parents=True)
        for picture in pictures[:-1]:
            shutil.copy(picture, target)
        (directory / "unseen").mkdir(exist_ok=True)
        unseen.append(directory / "unseen" / f"{kind.name}.png")
        shutil.copy(pictures[-1], unseen[-1])
    for page in ("README.md", "meta.csv"):  # the attribution goes where the pictures go
        shutil.copy(SAMPLES / page, directory / "pictures")
    count = sum(1 for _ in (directory / "pictures").rglob("*.png"))
    facts = {"folder": f"{directory / 'pictures'} ({count} pictures, {len(unseen)} kinds)"}
    return unseen, {**facts, "kept unseen": str(directory / "unseen")}


def _finetune(directory: Path) -> tuple[Any, dict[str, Any]]:
    from striate.train import finetune

    artifact = finetune(
        NET, data=directory / "pictures", output=directory / "saved_models" / "furniture"
    )
    return artifact, {"net": NET, "artifact": str(directory / "saved_models" / "furniture" / "1")}


def _evaluate(artifact: Any, directory: Path) -> tuple[Any, dict[str, Any]]:
    from striate.evaluate import evaluate

    report = directory / "report.html"
    found = evaluate(artifact, directory / "pictures", split="val", report=report, engine="keras")
    low, high = found.intervals["accuracy"]
    share = f"{found.accuracy:.1%} of {found.n} (95 %: {low:.0%} to {high:.0%})"
    return found, {"accuracy": share, "report": str(report)}


def _export(artifact: Any) -> tuple[Any, dict[str, Any]]:
    from striate.export import export

    with quiet_libraries():
        artifact, rows = export(artifact)
    return artifact, {
        row.form: f"{row.bytes / 1e6:4.1f} MB, {row.latency_ms:5.1f} ms a picture, "
        f"max |difference| {row.max_abs_diff:.0e}"
        for row in rows
    }


def _serve_and_ask(artifact: Any, unseen: list[Path]) -> tuple[None, dict[str, Any]]:
    from striate.serve.client import Client, HttpClient

    with _server(artifact.path.parent) as (grpc_port, http_port):
        begun = time.perf_counter()
        with Client(f"localhost:{grpc_port}", artifact.name) as client:
            by_grpc = client.classify(unseen, top=1)
        seconds = time.perf_counter() - begun
        by_http = HttpClient(f"http://localhost:{http_port}", artifact.name).classify(unseen, top=1)
    if [row[0][0] for row in by_grpc] != [row[0][0] for row in by_http]:
        raise StriateError("gRPC and HTTP gave different answers; please report this")
    right = sum(path.stem == row[0][0] for path, row in zip(unseen, by_grpc, strict=True))
    shown = [path.stem for path in unseen].index("chair")
    return None, {
        "gRPC": _answer(unseen[shown], by_grpc[shown]),
        "HTTP": _answer(unseen[shown], by_http[shown]),
        "all unseen": f"{right} of {len(unseen)} right, {1000 * seconds / len(unseen):.0f} ms each",
    }


def _answer(picture: Path, best: list[tuple[str, float]]) -> str:
    label, score = best[0]
    return f"{picture.name} -> {label} ({score:.1%})"


@contextlib.contextmanager
def _server(directory: Path) -> Iterator[tuple[int, int]]:
    """A real server process on two free ports, ended as an operator would end it."""
    grpc_port, http_port = _free_ports(2)
    command = [sys.executable, "-m", "striate", "serve", str(directory), "--host", "127.0.0.1"]
    ports = ["--port", str(grpc_port), "--rest_api_port", str(http_port)]
    server = subprocess.Popen(
        command + ports, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        lines = []
        for line in server.stdout or ():
            lines.append(line.strip())
            if line.startswith("REST at"):
                break
        else:
            raise StriateError(f"the server did not start: {' '.join(lines) or 'no output'}")
        yield grpc_port, http_port
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


def _free_ports(count: int) -> list[int]:
    """Different ones: each is held until all are known."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _what_next(directory: Path) -> str:
    served = directory / "saved_models" / "furniture"
    striate = "striate" if shutil.which("striate") else sys.argv[0]
    return f"""Look at {directory / "report.html"}, then try:

  {striate} predict {served} \\
      {directory / "unseen"}
  {striate} serve {served} --rest_api_port 8501

With your own pictures, one folder a class:

  {striate} finetune {NET} --data my_pictures/ -o saved_models/mine
  {striate} evaluate saved_models/mine --data my_pictures/ --report report.html
  {striate} export saved_models/mine
  {striate} serve saved_models/mine --port 8500 --rest_api_port 8501"""
