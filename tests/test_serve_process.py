"""The server as a process: how it starts, what it loads, how it changes versions, how it ends."""

import concurrent.futures
import contextlib
import errno
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc

from served import SERVE, ServerProcess, free_port, listens
from striate.artifact import MANIFEST
from striate.errors import StriateError
from striate.runtime import FLOAT_TOLERANCE
from striate.serve import Server, ServerOptions, VersionPolicy, seldom, tensors
from striate.serve.client import Client, HttpClient
from striate.serve.http_server import HttpServer, configuration
from striate.serve.listeners import allow_files, bind, bind_unix
from striate.serve.protocols import page
from striate.serve.protocols.oip_protos import SERVICE, message
from striate.serve.protos import predict_pb2
from striate.serve.repository import Model, State, Version
from striate.serve.server import _next, _signals
from striate.serve.status import Code, ServingError

pytest_plugins = ["serving_fixtures"]

pytestmark = pytest.mark.long

MANY = 5_000  # encoded pictures in a request: enough that it is still being decoded a little later
SLOW = 15_000  # tensors in a request that is still being computed a little later


@pytest.fixture
def base(tiny, tmp_path) -> Path:
    """A model directory of its own, with version 1 in it."""
    shutil.copytree(tiny.path, tmp_path / "tiny" / "1")
    return tmp_path / "tiny"


def proc(server: ServerProcess, name: str) -> str:
    path = Path(f"/proc/{server.process.pid}/{name}")
    if not path.exists():
        pytest.skip("needs /proc")
    return path.read_text()


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_the_onnx_server_starts_light_and_without_tensorflow(tiny):
    with ServerProcess(tiny.path.parent) as server, Client(server.address, "tiny") as client:
        images, scores = tiny.goldens()
        np.testing.assert_allclose(client.predict(images), scores, atol=FLOAT_TOLERANCE)
        HttpClient(server.url, "tiny").predict(images)
        assert "libtensorflow" not in proc(server, "maps")
        memory = int(proc(server, "status").split("VmRSS:")[1].split()[0]) / 1024
        assert memory < 200, f"{memory:.0f} MB"
        used = sum(int(n) for n in proc(server, "stat").rsplit(")", 1)[1].split()[11:13]) / 100
        assert used < 4, f"{used:.1f} s of processor time until the first answers"


def test_a_folder_of_any_name_is_served_by_that_name(tiny, tmp_path):
    base = tmp_path / "für alle" / "Mein Modell 灯"
    shutil.copytree(tiny.path, base / "1")
    images, scores = tiny.goldens()
    with ServerProcess(base) as server, Client(server.address, base.name) as client:
        np.testing.assert_allclose(client.predict(images), scores, atol=FLOAT_TOLERANCE)
        http = HttpClient(server.url, base.name)
        np.testing.assert_allclose(http.predict(images), scores, atol=FLOAT_TOLERANCE)
        assert http.status() == {1: "AVAILABLE"}


def test_a_model_with_a_slash_in_its_name_is_reached_by_every_protocol(tiny):
    """As TensorFlow Serving's, which takes any name and decodes it in paths."""
    images, scores = tiny.goldens()
    with ServerProcess(tiny.path.parent, model_name="team/a b") as server:
        assert server.announced[-1] == f"REST at {server.url}/v1/models/team%2Fa%20b\n"
        for client in (Client(server.address, "team/a b"), HttpClient(server.url, "team/a b")):
            np.testing.assert_allclose(client.predict(images), scores, atol=FLOAT_TOLERANCE)
            assert client.status() == {1: "AVAILABLE"}
        with urllib.request.urlopen(f"{server.url}/v2/models/team%2Fa%20b/ready") as response:
            assert response.status == 200


def test_a_server_that_does_not_start_leaves_its_ports_to_the_next(tiny, tmp_path):
    """Whoever holds what was raised, as a program does that tries another port."""
    port, unix = free_port(), tmp_path / "grpc.sock"
    options = {"port": port, "grpc_socket_path": str(unix), "host": "127.0.0.1"}
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        taken_port = taken.getsockname()[1]
        with pytest.raises(StriateError, match=f"port {taken_port} is in use") as raised:
            Server(ServerOptions(tiny.path.parent, rest_api_port=taken_port, **options)).start()
    assert not unix.exists()
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / MANIFEST).write_text("{}")
    with pytest.raises(StriateError, match="is not served") as broken:
        Server(ServerOptions(tmp_path / "m", rest_api_port=taken_port, **options)).start()
    with Server(ServerOptions(tiny.path.parent, rest_api_port=taken_port, **options)):
        assert listens(port)
        assert listens(taken_port)
    assert raised
    assert broken


def test_a_version_that_goes_while_it_is_described_is_left_out(tiny, monkeypatch):
    """Which is no reason to end a server that has just begun, nor for a page of errors."""
    server = Server(ServerOptions(tiny.path.parent, port=free_port()))
    going = Version(1, tiny.path, State.UNLOADING)
    server.repository.models["tiny"] = Model(
        "tiny", tiny.path.parent, VersionPolicy(), versions={1: going}
    )
    monkeypatch.setattr(Model, "available", lambda self: [1])
    assert [line.split(" at ")[0] for line in server.describe()] == ["gRPC"]
    assert page.models(server.core) == []
    server.stop()


def test_the_page_asks_no_disk(tiny, base):
    """One that does not answer would take thread after thread from those who ask for anything."""
    with ServerProcess(base) as server:
        shutil.rmtree(base)
        with urllib.request.urlopen(f"{server.url}/page/models") as response:
            (model,) = json.load(response)
        assert model["versions"][0]["examples"] == len(tiny.goldens()[0])
        example = f"{server.url}/page/models/tiny/versions/1/examples/0.png"
        with urllib.request.urlopen(example) as response:
            assert response.read().startswith(b"\x89PNG")


def test_threads_that_never_end_do_not_keep_the_process():
    program = (
        "import threading\n"
        "from striate.serve.behind import DaemonThreads\n"
        "threads = DaemonThreads(2, 'x')\n"
        "print([*threads.map(abs, range(-9, 0))], len(threading.enumerate()) <= 3)\n"
        "try:\n    threads.submit(int, 'x').result()\n"
        "except ValueError:\n    print('raised')\n"
        "for _ in range(3):\n    threads.submit(threading.Event().wait)\n"
        "threads.shutdown()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "[9, 8, 7, 6, 5, 4, 3, 2, 1] True\nraised\n")


def test_a_log_that_nobody_reads_keeps_nobody_waiting(tiny):
    """As a log driver does whose disk is full; anybody can have thousands of lines written."""
    port, rest_port = free_port(), free_port()
    options = {"path": str(tiny.path.parent), "port": port, "rest_api_port": rest_port}
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(full, b"x" * 4096):
            continue
    os.set_blocking(full, True)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, json.dumps({**options, "host": "127.0.0.1"})],
        stdout=subprocess.DEVNULL,
        stderr=full,
    )
    try:
        wait_for(lambda: listens(rest_port))
        for _ in range(20):  # each of them is worth a line
            with socket.create_connection(("127.0.0.1", port), 10) as other:
                other.sendall(b"GET / HTTP/1.1\r\n\r\n")
                other.recv(100)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest(), timeout=20).status == 1
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(unread)
        os.close(full)


def test_the_unix_socket_of_a_server_that_still_loads_is_not_taken_from_it(tmp_path):
    path = str(tmp_path / "grpc.sock")
    loading = bind_unix(path)
    if sys.platform == "linux":
        with pytest.raises(StriateError, match="Address already in use"):
            bind_unix(path)
    loading.close()  # as one leaves it that was killed
    bind_unix(path).close()


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_an_ipv6_address_may_be_in_brackets(tiny):
    options = ServerOptions(tiny.path.parent, host="[::1]", port=free_port())
    with Server(options) as server:
        assert f"gRPC at [::1]:{options.port} " in server.describe()[-1]
        socket.create_connection(("::1", options.port), 10).close()


def test_it_says_what_it_serves_and_where(tiny):
    with ServerProcess(tiny.path.parent, model_name="mine", workers=3) as server:
        model, grpc_line, page_line, rest_line = server.announced
        assert model.startswith("mine version 1: onnx (onnxruntime ")
        assert "4 classes, 3 workers" in model
        assert grpc_line == f"gRPC at {server.address} (PredictionService; models: mine)\n"
        assert page_line == f"page at {server.url}/\n"
        assert rest_line == f"REST at {server.url}/v1/models/mine\n"
        server.terminate(signal.SIGINT)
        assert server.wait() == 0
        assert server.lines.get(timeout=5) == "SIGINT: finishing the requests in flight\n"
        assert server.lines.get(timeout=5) == "stopped\n"
        assert server.errors == []


def test_the_clients_and_the_messages_do_not_import_tensorflow():
    code = (
        "import sys\n"
        "from striate.serve.client import Client, HttpClient\n"
        "assert not {'tensorflow', 'keras.src', 'grpc'} & set(sys.modules)\n"
        "Client('localhost:1', 'm')\n"
        "assert 'tensorflow' not in sys.modules, 'the bare package stayed'\n"
        "maps = open('/proc/self/maps').read() if sys.platform == 'linux' else ''\n"
        "assert 'libtensorflow' not in maps\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("which", ["port", "rest_api_port"])
def test_a_port_in_use_is_one_clear_line(tiny, which):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError) as error:
            ServerProcess(tiny.path.parent, **{which: port})
    assert str(error.value) == (
        f"error: port {port} is in use on 127.0.0.1: stop what listens there, "
        "or choose another port\n"
    )


def test_two_servers_do_not_share_a_port(tiny):
    with ServerProcess(tiny.path.parent) as first:
        with pytest.raises(RuntimeError, match=f"port {first.port} is in use"):
            ServerProcess(tiny.path.parent, port=first.port)
        HttpClient(first.url, "tiny").status()


def test_servers_that_mean_to_share_their_ports(tiny):
    with (
        ServerProcess(tiny.path.parent, reuse_port=True) as first,
        ServerProcess(
            tiny.path.parent, reuse_port=True, port=first.port, rest_api_port=first.rest_port
        ) as second,
    ):
        answered = set()
        deadline = time.monotonic() + 60
        while len(answered) < 2:  # the system deals connections out by their ports, at random
            assert time.monotonic() < deadline
            with urllib.request.urlopen(f"{first.url}/metrics") as response:
                text = response.read().decode()
            answered.add(re.search(r"\nprocess_start_time_seconds (.+)", text)[1])
            with Client(first.address, "tiny") as client:
                client.predict(tiny.goldens()[0])
        first.stop()
        HttpClient(first.url, "tiny").status()  # what goes on is all that is needed
        assert second.process.poll() is None


def test_head_is_answered_as_get_is_without_the_body(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.rest_port)
    paths = ("/v1/models/tiny", "/v1/models/tiny/metadata", "/v2/health/ready", "/v2/models/nope")
    for path in (*paths, "/", "/metrics"):
        found = []
        for method in ("GET", "HEAD"):  # over one connection, so a body would be in the way
            connection.request(method, path)
            response = connection.getresponse()
            found.append((response.status, response.getheader("content-type")))
            body = response.read()
        assert found[0] == found[1], path
        assert body == b""
    connection.close()


def test_a_connection_over_rest_outlives_a_pause(served):
    """Balancers keep idle connections for a minute; a server that closes sooner fails requests."""
    connection = http.client.HTTPConnection(f"127.0.0.1:{served.rest_port}", timeout=30)
    for pause in (0, 6):
        time.sleep(pause)
        connection.request("GET", "/v1/models/tiny")
        assert connection.getresponse().read()
        assert connection.sock is not None


def test_what_a_connection_says_of_others_is_not_who_calls(tiny, tmp_path):
    """A client is the address that it calls from, or its x-client-id."""
    log = tmp_path / "access.jsonl"
    with ServerProcess(tiny.path.parent, access_log=str(log)) as server:
        request = urllib.request.Request(f"{server.url}/v1/models/tiny")
        request.add_header("X-Forwarded-For", "1.2.3.4")
        urllib.request.urlopen(request).close()
        wait_for(lambda: log.read_text())
        assert json.loads(log.read_text())["peer"].startswith("127.0.0.1:")


def test_a_connection_whose_client_is_gone_without_a_word_ends():
    """The system asks clients that are silent whether they are there."""
    with bind("127.0.0.1", free_port()) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()):
            taken, _ = listening.accept()
            with taken:
                assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if sys.platform == "linux":
                    assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
                    assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def test_a_body_that_was_not_asked_for_is_not_taken_for_the_next_request(served):
    """A client that waits for `100 Continue`, and is told something else, need not send it."""
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n"
    with socket.create_connection(("127.0.0.1", served.rest_port), 30) as connection:
        connection.sendall(head + b"Content-Encoding: br\r\nExpect: 100-continue\r\n\r\n")
        answered = b""
        while part := connection.recv(10_000):  # until the server closes
            answered += part
    assert answered.startswith(b"HTTP/1.1 400")
    assert b"\r\nconnection: close\r\n" in answered


def trickled(server: ServerProcess, *parts: bytes, pause: float) -> tuple[bytes, float]:
    """What is answered to parts that come one by one, and seconds until the connection ended."""
    start, answered = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
        for part in parts:
            connection.sendall(part)
            connection.settimeout(30 if part is parts[-1] else pause)
            with contextlib.suppress(TimeoutError):
                while came := connection.recv(10_000):
                    answered += came
                break  # the server has closed
    return answered, time.monotonic() - start


def test_a_rest_client_that_stalls_is_told_so_and_its_connection_ends(tiny):
    first = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: here\r\n"
    whole = head + b"Content-Length: %d\r\n"
    refused = whole % 30 + b"Content-Encoding: br\r\n\r\n{"
    with ServerProcess(tiny.path.parent, stall_seconds=1) as server:
        for parts, told in (
            ([head], True),
            ([first, head], True),
            ([whole % 100 + b"\r\n{"], True),
            ([refused, b'"no":'], False),  # what it had asked is answered
            ([b"GET "] + [b"/"] * 20, True),  # a byte now and then keeps no head open
        ):
            answered, seconds = trickled(server, *parts, pause=0.4)
            assert (b"HTTP/1.1 408 " in answered) == told, parts
            assert 1 < seconds < 5
        assert b'{"error": "the rest of the request did not come in time"}' in answered
        # Who is slow, but goes on, is answered, however long it takes
        body = b'{"no": "body"}'
        parts = [body[at : at + 1] for at in range(len(body))]
        slow = whole % len(body) + b"Connection: close\r\n\r\n"
        answered, seconds = trickled(server, slow, *parts, pause=0.2)
        assert answered.startswith(b"HTTP/1.1 400 ")
        assert b"Missing 'inputs' or 'instances' key" in answered
        assert seconds > 2


def test_headers_without_end_are_refused_before_they_fill_the_memory(tiny):
    """Those of a head, in one header or many, and those after a body in chunks."""
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: here\r\n"
    many = b"".join(b"X-%d: y\r\n" % number for number in range(100_000))
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    with ServerProcess(tiny.path.parent) as server:
        for begin, rest in (
            (head, many),
            (head, b"X: " + b"y" * (1 << 20)),
            (chunked, many),
            (b"\r\n", b"\r\n" * 100_000),
        ):
            parts = [rest[at : at + 10_000] for at in range(0, len(rest), 10_000)]
            answered, _ = trickled(server, begin, *parts, pause=0.01)
            assert answered.startswith(b"HTTP/1.1 431 ")
            assert b'{"error": "expected at most 65536 bytes of headers"}' in answered
        assert HttpClient(server.url, "tiny").status()
        assert not server.errors


def test_the_time_that_a_client_takes_to_send_is_not_the_servers(tiny):
    """`rest_api_timeout_in_ms` is how long a request waits once it is there."""
    values = b'{"instances": [1]}'
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
    with ServerProcess(tiny.path.parent, rest_api_timeout_in_ms=400) as server:
        length = b"Content-Length: %d\r\n\r\n" % len(values)
        answered, _ = trickled(server, head + length, values[:5], values[5:], pause=0.4)
    assert answered.startswith(b"HTTP/1.1 400 ")


def test_a_timeout_of_0_is_none(tiny):
    images, scores = tiny.goldens()
    with ServerProcess(tiny.path.parent, rest_api_timeout_in_ms=0, stall_seconds=0) as server:
        begun = b"GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        answered, _ = trickled(server, begun, b"\r\n", pause=1.2)
        assert answered.startswith(b"HTTP/1.1 200 ")
        found = HttpClient(server.url, "tiny").predict(images)
    np.testing.assert_allclose(found, scores, atol=FLOAT_TOLERANCE)


@pytest.mark.parametrize("path", ["/v1/models/tiny/versions/{}", "/v2/models/tiny/versions/{}"])
def test_a_version_of_thousands_of_digits_is_the_clients_mistake(served, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(served.url + path.format("9" * 5000))
    assert error.value.code == 400


def test_sigterm_loses_no_request_over_a_connection_that_is_kept(tiny):
    lost, answered = [], []

    def ask(server: ServerProcess, number: int) -> None:
        """Again and again, until nobody listens."""
        rng = random.Random(number)
        connection = http.client.HTTPConnection(f"127.0.0.1:{server.rest_port}", timeout=30)
        while True:
            kept = connection.sock is not None
            try:
                connection.request("GET", "/v1/models/tiny")
                answered.append(connection.getresponse().read())
            except (OSError, http.client.HTTPException) as error:
                if not kept:
                    return
                lost.append(repr(error))
                connection.close()
            time.sleep(rng.uniform(0, 0.02))

    with (
        ServerProcess(tiny.path.parent) as server,
        concurrent.futures.ThreadPoolExecutor(40) as pool,
    ):
        clients = [pool.submit(ask, server, number) for number in range(40)]
        wait_for(lambda: len(answered) > 400)
        server.terminate()
        for client in clients:
            client.result()
    assert lost == []


def test_a_server_without_files_for_more_connections_says_so_once_a_second(caplog):
    """asyncio tries again for every place in its backlog: two megabytes a second of tracebacks."""
    passed_on: list[dict] = []
    loop = SimpleNamespace(default_exception_handler=passed_on.append)
    server = HttpServer(uvicorn.Config(app=""), 1.0)
    for _ in range(100):
        server.failed(loop, {"exception": OSError(errno.EMFILE, "Too many open files")})
    assert [r.getMessage() for r in caplog.records] == [
        "cannot accept a connection: [Errno 24] Too many open files"
    ]
    other = {"exception": OSError(errno.ECONNRESET, "Connection reset by peer")}
    server.failed(loop, other)
    assert passed_on == [other]


def test_a_shell_that_allows_few_files_leaves_room_for_all_connections(tiny):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        server = ServerProcess(tiny.path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with server, contextlib.ExitStack() as idle:
        for port in 80 * (server.port, server.rest_port):
            idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=5) as response:
            assert response.status == 200


def test_a_limit_of_files_that_is_too_low_for_all_connections_is_a_line(caplog, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: None)
    allow_files(ServerOptions("models", max_connections=1000))
    allow_files(ServerOptions("models", max_connections=300))
    assert [record.getMessage() for record in caplog.records] == [
        "striate: 1024 open files are allowed, and max_connections 1000 may take 2256: allow more "
        "(ulimit -n, LimitNOFILE), or set --max_connections lower"
    ]


def test_what_happens_all_the_time_is_said_seldom_with_how_often_it_was_not(caplog, monkeypatch):
    monkeypatch.setattr(seldom, "OFTEN", 0.2)
    log = seldom.Seldom()
    for number in range(5):
        log.warn("%d is wrong", number)
    time.sleep(0.3)
    log.warn("%d is wrong", 5)
    assert caplog.messages == ["0 is wrong", "5 is wrong (and 4 like it before)"]


def test_an_ipv6_address_is_announced_as_clients_write_it(tiny):
    try:
        bind("::1", 0).close()
    except StriateError:
        pytest.skip("needs IPv6")
    with ServerProcess(tiny.path.parent, host="::1") as server:
        assert f"gRPC at [::1]:{server.port} " in server.announced[1]
        assert HttpClient(f"http://[::1]:{server.rest_port}", "tiny").status()
        assert f"page at http://[::1]:{server.rest_port}/\n" in server.announced


def test_more_connections_over_rest_than_allowed_are_refused_and_do_no_harm(tiny, picture):
    with (
        ServerProcess(tiny.path.parent, max_connections=3) as server,
        Client(server.address, "tiny") as client,
    ):
        with contextlib.ExitStack() as idle:
            for _ in range(3):
                connection = socket.create_connection(("127.0.0.1", server.rest_port))
                idle.enter_context(connection)
            wait_for(lambda: asked(server, "/v1/models/tiny")[0] == 503)
            assert asked(server, "/v1/models/tiny") == (503, "close")
            for probe in ("/healthz", "/v2/health/live", "/v2/health/ready", "/metrics"):
                assert asked(server, probe)[0] == 200, probe
            assert client.predict([picture]).shape == (1, 4)
        wait_for(lambda: asked(server, "/v1/models/tiny")[0] == 200)


def asked(server: ServerProcess, path: str) -> tuple[int, str | None]:
    """(status, what the connection becomes) of a GET over a connection of its own."""
    connection = http.client.HTTPConnection(f"127.0.0.1:{server.rest_port}", timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Connection")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onxx"}, "Did you mean 'onnx'"),
        ({"path": "no/such/directory"}, "expected a model directory, got nothing there"),
        ({"version_policy": "7"}, "model tiny: the policy wants none of the versions in"),
        ({"port": 70_000}, "expected port from 0 to 65535, got 70000"),
    ],
)
def test_a_server_that_cannot_serve_says_why_and_ends(tiny, options, message):
    path = options.pop("path", tiny.path.parent)
    with pytest.raises(RuntimeError) as error:
        ServerProcess(path, **options)
    (line,) = str(error.value).splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_truncated_version_is_refused_at_the_start_by_name(base):
    model = base / "1" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=r"model\.onnx: expected [\d,]+ bytes, got") as error:
        ServerProcess(base)
    assert len(str(error.value).splitlines()) == 1


def test_a_new_version_takes_over_and_no_request_fails(base, tiny):
    images, _ = tiny.goldens()
    answered_by: list[int] = []
    failures: list[str] = []
    stop = threading.Event()

    def ask(server):
        from striate.serve import tensors
        from striate.serve.protos import predict_pb2, prediction_service_pb2_grpc

        request = predict_pb2.PredictRequest()
        request.model_spec.name = "tiny"
        request.inputs["image"].CopyFrom(tensors.to_content(images))
        with grpc.insecure_channel(server.address) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            while not stop.is_set():
                try:
                    answered_by.append(predict(request, timeout=60).model_spec.version.value)
                except grpc.RpcError as error:
                    failures.append(error.details())

    with ServerProcess(base) as server:
        askers = [threading.Thread(target=ask, args=(server,)) for _ in range(3)]
        for asker in askers:
            asker.start()
        client = HttpClient(server.url, "tiny")
        wait_for(lambda: len(answered_by) > 20)
        for number in (2, 3):
            shutil.copytree(tiny.path, base / str(number))
            wait_for(lambda n=number: client.status().get(n) == "AVAILABLE")
            already = len(answered_by)
            wait_for(lambda n=already: len(answered_by) > n + 20)
        stop.set()
        for asker in askers:
            asker.join()
        wait_for(lambda: client.status() == {3: "AVAILABLE", 2: "END", 1: "END"})
    assert failures == []
    assert set(answered_by) == {1, 2, 3}
    assert answered_by[-1] == 3


def test_several_versions_answer_by_number_when_asked_to(base, tiny):
    shutil.copytree(tiny.path, base / "2")
    images, scores = tiny.goldens()
    with ServerProcess(base, version_policy="all") as server:
        for version in (None, 1, 2):
            client = HttpClient(server.url, "tiny", version=version)
            np.testing.assert_allclose(client.predict(images), scores, atol=FLOAT_TOLERANCE)
        assert HttpClient(server.url, "tiny").status() == {2: "AVAILABLE", 1: "AVAILABLE"}


def corrupt_hash(directory: Path) -> None:
    model = directory / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 0xFF
    model.write_bytes(content)


def corrupt_size(directory: Path) -> None:
    model = directory / "model.tflite"
    model.write_bytes(model.read_bytes()[:100])


def corrupt_manifest(directory: Path) -> None:
    (directory / MANIFEST).write_text("{")


def other_goldens(directory: Path) -> None:
    """A version that is whole by its hashes, but does not answer as it did when it was written."""
    from striate.artifact import GOLDENS, sha256

    with np.load(directory / GOLDENS) as stored:
        images, scores = stored["images"], stored["scores"]
    np.savez_compressed(directory / GOLDENS, images=images, scores=scores[:, ::-1])
    manifest = json.loads((directory / MANIFEST).read_text())
    path = directory / GOLDENS
    manifest["files"][GOLDENS] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    (directory / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("corrupt", "reason"),
    [
        (corrupt_hash, "SHA-256 differs"),
        (corrupt_size, "got 100 bytes"),
        (corrupt_manifest, "expected a striate manifest"),
        (other_goldens, "differs from the golden scores"),
    ],
)
def test_a_corrupt_version_is_not_served_and_its_status_says_why(base, tiny, corrupt, reason):
    images, scores = tiny.goldens()
    with ServerProcess(base) as server:
        shutil.copytree(tiny.path, base / ".incoming")
        corrupt(base / ".incoming")
        (base / ".incoming").rename(base / "2")
        client = HttpClient(server.url, "tiny")
        wait_for(lambda: 2 in client.status() and client.status()[2] != "LOADING")
        status = client.status()
        assert status[1] == "AVAILABLE"
        assert status[2].startswith("END: ")
        assert reason in status[2]
        np.testing.assert_allclose(client.predict(images), scores, atol=FLOAT_TOLERANCE)
        assert any("version 2 is not served" in line for line in server.errors)
        shutil.rmtree(base / "2")
        shutil.copytree(tiny.path, base / "2")
        wait_for(lambda: client.status() == {2: "AVAILABLE", 1: "END"})


@pytest.mark.parametrize("face", ["grpc", "http"])
def test_sigterm_lets_the_request_in_flight_end(base, tiny, picture, face):
    expected = tiny.predict([picture])
    with (
        ServerProcess(base, workers=1, max_queue=0) as server,
        Client(server.address, "tiny") as probe,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        client = probe if face == "grpc" else HttpClient(server.url, "tiny")
        watched = watch_health(server)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        answer = pool.submit(persistently, client.predict, [picture] * MANY)
        wait_for(lambda: is_full(probe, picture))
        server.terminate()
        assert not answer.done(), "the request was too quick to be in flight"
        found = answer.result(timeout=60)
        np.testing.assert_allclose(found, np.repeat(expected, MANY, axis=0), atol=FLOAT_TOLERANCE)
        start = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - start < 10, "an open health watch held up the end"
        with pytest.raises(StriateError):
            client.predict([picture])


def test_a_request_that_the_drain_does_not_wait_for_is_answered_without_a_traceback(tiny):
    head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{"
    with (
        ServerProcess(tiny.path.parent, drain_seconds=1) as server,
        socket.create_connection(("127.0.0.1", server.rest_port), 30) as connection,
    ):
        connection.sendall(head)
        assert HttpClient(server.url, "tiny").status()  # by now it has read the head
        server.terminate()
        answered = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(10_000):
                answered += part
        assert server.wait() == 0
    assert answered.startswith(b"HTTP/1.1 503 ")
    assert b"the server ended before it could answer" in answered
    assert not any("Traceback" in line for line in server.errors)


def test_half_a_second_to_drain_is_not_rounded_down_to_none():
    server = HttpServer(configuration(lambda scope, receive, send: None), stall_seconds=1)
    server.end_within(0.4)
    assert server.should_exit
    assert server.config.timeout_graceful_shutdown == 1


def test_a_server_that_is_going_is_not_ready_over_any_protocol(tiny):
    found = []
    with (
        ServerProcess(tiny.path.parent) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        response = message("ServerReadyResponse")
        ready = channel.unary_unary(
            f"/{SERVICE}/ServerReady", response_deserializer=response.FromString
        )
        assert ready(b"").ready
        server.terminate()
        with contextlib.suppress(grpc.RpcError, OSError):
            while True:
                found.append((ready(b"").ready, asked(server, "/v2/health/ready")[0]))
    assert (False, 400) in found


def test_what_was_sent_before_sigterm_is_answered(base, tiny):
    request = predict_pb2.PredictRequest(output_filter=["scores"])
    request.model_spec.name = "tiny"
    request.inputs["image"].CopyFrom(tensors.to_content(tiny.goldens()[0][:1]))
    lost: list[float] = []

    def ask(address: str) -> None:
        """Again and again, over a connection of its own, until it is refused."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(address, options) as channel:
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            while True:
                sent = time.monotonic()
                try:
                    predict(request.SerializeToString(), timeout=30)
                except grpc.RpcError:
                    lost.append(sent)
                    return

    with (
        ServerProcess(base, workers=1) as server,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        asking = [pool.submit(ask, server.address) for _ in range(16)]
        time.sleep(0.5)
        gone = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        concurrent.futures.wait(asking)
    assert len(lost) == 16
    assert min(lost) > gone


@contextlib.contextmanager
def inherited(disposition: signal.Handlers) -> Iterator[None]:
    """What children do at SIGHUP; nohup, which may run the tests too, has them ignore it."""
    before = signal.signal(signal.SIGHUP, disposition)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_drains_unless_nohup_ran_the_server(tiny):
    with inherited(signal.SIG_DFL):
        server = ServerProcess(tiny.path.parent)
    server.terminate(signal.SIGHUP)
    assert server.wait() == 0
    with inherited(signal.SIG_IGN), ServerProcess(tiny.path.parent) as server:
        server.terminate(signal.SIGHUP)
        time.sleep(0.5)
        assert HttpClient(server.url, "tiny").status()


def test_a_server_without_standard_streams_serves(tiny):
    port = free_port()
    options = {"path": str(tiny.path.parent), "port": 0, "rest_api_port": port, "host": "127.0.0.1"}
    command = [sys.executable, "-c", SERVE, json.dumps(options)]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    with subprocess.Popen(closed) as process:
        wait_for(lambda: listens(port) or process.poll() is not None)
        assert HttpClient(f"http://127.0.0.1:{port}", "tiny").status()
        process.terminate()
        assert process.wait(60) == 0


def test_a_signal_that_another_thread_is_given_is_seen_too():
    def strike() -> None:
        time.sleep(0.2)  # until somebody waits
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with _signals() as signals:
        thread = threading.Thread(target=strike)
        thread.start()
        assert _next(signals) == signal.SIGTERM
        thread.join()


def persistently(predict, pictures):
    """Ask until there is a place: whoever looks whether the server is full takes it at times."""
    while True:
        try:
            return predict(pictures)
        except StriateError as error:
            if "queue is full" not in str(error):
                raise


def is_full(client: Client, picture: bytes) -> bool:
    try:
        client.predict([picture])
    except ServingError as error:
        return error.code == Code.UNAVAILABLE
    return False


def watch_health(server: ServerProcess):
    stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.address))
    return iter(stub.Watch(health_pb2.HealthCheckRequest(service="")))


def test_a_full_server_refuses_at_once(base, picture):
    with (
        ServerProcess(base, workers=1, max_queue=0) as server,
        Client(server.address, "tiny") as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        slow = pool.submit(persistently, client.predict, [picture] * MANY)
        wait_for(lambda: is_full(client, picture))
        with pytest.raises(StriateError) as error:
            HttpClient(server.url, "tiny").predict([picture])
        assert str(error.value) == (
            "The queue is full: 1 requests are computed and 0 wait; try again later"
        )
        assert not slow.done(), "the request was too quick to fill the server"
        assert slow.result().shape == (MANY, 4)
        assert not is_full(client, picture)


def test_a_deadline_that_passes_in_the_queue_is_deadline_exceeded(base, tiny):
    images, _ = tiny.goldens()
    many = np.repeat(images[:1], SLOW, axis=0)
    with (
        ServerProcess(base, workers=1, rest_api_timeout_in_ms=50) as server,
        Client(server.address, "tiny") as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        slow = pool.submit(client.predict, many)
        impatient = HttpClient(server.url, "tiny")
        messages = []
        while not slow.done():
            try:
                impatient.predict(images)
            except StriateError as error:
                messages.append(str(error))
        assert set(messages) == {"The deadline passed before the request could be computed"}


def test_requests_over_the_limits_are_refused_and_do_no_harm(base, tiny):
    images, _ = tiny.goldens()
    with (
        ServerProcess(base, max_message_bytes=100_000) as server,
        Client(server.address, "tiny") as client,
    ):
        http = HttpClient(server.url, "tiny")
        with pytest.raises(ServingError, match="larger than max") as error:
            client.predict(np.repeat(images[:1], 40, axis=0))
        assert error.value.code == Code.RESOURCE_EXHAUSTED
        with pytest.raises(StriateError, match="body of at most 100,000 bytes"):
            http.predict(np.repeat(images[:1], 40, axis=0))
        with pytest.raises(StriateError, match="at most 32 images"):
            http.predict([b""] * 33)
        np.testing.assert_array_equal(client.predict(images), client.predict(images))


def test_a_directory_of_models_is_served_whole(base, tiny):
    shutil.copytree(base, base.parent / "other")
    with ServerProcess(base.parent) as server:
        assert HttpClient(server.url, "tiny").status() == {1: "AVAILABLE"}
        assert HttpClient(server.url, "other").status() == {1: "AVAILABLE"}


ROOT = Path(__file__).parents[1]


def test_the_example_clients_work_as_they_are(base, tiny, picture, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(picture)
    expected = tiny.predict([picture])[0]
    with ServerProcess(base) as server:
        asked = [
            ["sh", str(ROOT / "serving" / "ask.sh"), server.url, "tiny", str(path)],
            [
                sys.executable,
                str(ROOT / "serving" / "ask_tensorflow_serving.py"),
                server.address,
                "tiny",
                str(path),
            ],
        ]
        if shutil.which("curl") is None:
            del asked[0]
        outputs = [
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for command in asked
        ]
    best = expected.argmax()
    assert outputs[-1].splitlines()[0] == f"{expected[best]:.4f}  {tiny.labels[best]}"
    if len(outputs) == 2:
        (prediction,) = json.loads(outputs[0])["predictions"]
        np.testing.assert_allclose(prediction["scores"], expected, atol=FLOAT_TOLERANCE)
        assert prediction["classes"] == tiny.labels


def test_sigterm_while_a_model_is_loaded_ends_the_server(tiny):
    """Where the signal is ignored unless somebody handles it, as by a container's first process."""
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "from striate.serve import serve; from striate.serve.loading import Loader\n"
        "Loader.open = lambda loader, path: (print('loading', flush=True), time.sleep(60))\n"
        f"serve(sys.argv[1], host='127.0.0.1', port={free_port()})\n"
    )
    command = [sys.executable, "-c", code, str(tiny.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.terminate()
        assert process.wait(20) == 0
        assert process.stdout.read() == "SIGTERM: stopped before anything was served\n"


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_who_does_not_read_what_is_announced_does_not_stop_the_drain(tiny, reader):
    """A pipe that nobody reads any more, or a full one."""
    reading, writing = os.pipe()
    port, rest_port = free_port(), free_port()
    options = {"path": str(tiny.path.parent), "port": port, "rest_api_port": rest_port}
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while reader == "asleep":
            os.write(writing, b"x")
    os.set_blocking(writing, True)
    if reader == "gone":
        os.close(reading)
    command = [sys.executable, "-c", SERVE, json.dumps({**options, "host": "127.0.0.1"})]
    with subprocess.Popen(command, stdout=writing) as process:
        wait_for(lambda: listens(rest_port))
        process.terminate()
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(writing)
