"""The real server process, for tests that ask it over real sockets."""

import io
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

SERVE = (
    "import json, sys; from striate.serve import VersionPolicy, serve; "
    "from striate.errors import StriateError\n"
    "options = json.loads(sys.argv[1])\n"
    "if 'version_policy' in options:\n"
    "    options['version_policy'] = VersionPolicy.parse(options['version_policy'])\n"
    "try:\n    serve(**options)\n"
    "except StriateError as error:\n    sys.exit(f'error: {error}')\n"
)


def encode(image, kind: str = "PNG") -> bytes:
    """A Pillow image as the bytes of a file."""
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


_given = set[int]()


def free_port() -> int:
    """A TCP port that nobody listens on, never the same twice in a run.

    From below the range in which the system takes ports by itself: one that is free may be any
    client's own a moment later there. Tests in several processes each have their own numbers.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    numbers = range(10_000 + worker % 16, 32_000, 16)
    while (port := random.SystemRandom().choice(numbers)) in _given or listens(port):
        continue
    _given.add(port)
    return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def certificate(tmp_path: Path, name: str, authority: str | None = None) -> tuple[str, str]:
    """(key, certificate) as PEM, by openssl; signed by itself or by an authority made before."""
    key, cert = tmp_path / f"{name}.key", tmp_path / f"{name}.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    if authority:
        command += ["-CA", str(tmp_path / f"{authority}.crt")]
        command += ["-CAkey", str(tmp_path / f"{authority}.key")]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return key.read_text(), cert.read_text()


class ServerProcess:
    """`striate.serve.serve(...)` in a process of its own, ready when this returns."""

    def __init__(self, path: Path, **options):
        self.port, self.rest_port = free_port(), free_port()
        options = {
            "path": str(path),
            "port": self.port,
            "rest_api_port": self.rest_port,
            "host": "127.0.0.1",
            "file_system_poll_wait_seconds": 0.1,
            **options,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.announced: list[str] = []
        while not self.announced or "REST at" not in self.announced[-1]:
            line = self.lines.get(timeout=300)
            if not line:
                self.process.wait()
                self._readers[1].join()
                raise RuntimeError("".join(self.errors))
            self.announced.append(line)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    def terminate(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 60) -> int:
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join()
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.terminate()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def _read_lines(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def _read_errors(self) -> None:
        for line in self.process.stderr:
            self.errors.append(line)
