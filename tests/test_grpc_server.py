"""The gRPC server over real sockets, with gRPC's own client as the other end.

The services here are made for these tests: they answer with what they were asked.
"""

import gzip
import itertools
import shutil
import socket
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, TrailersReceived

from served import certificate
from striate.serve.grpc_server import GrpcServer, Limits
from striate.serve.grpc_server.calls import prefixed, seconds, trailers
from striate.serve.grpc_server.http2 import PREFACE, Flag, Frame, frame, literal
from striate.serve.grpc_server.sockets import Entrance
from striate.serve.secure import Tls

WIDE = b"\0\4\x7f\xff\xff\xff"  # INITIAL_WINDOW_SIZE: all that may be
UNARY = "/test.Echo/Unary"
STREAM = "/test.Echo/Stream"


class Echo:
    """What the test server answers with; `go` lets those through that are asked to wait."""

    def __init__(self):
        self.go = threading.Event()
        self.contexts = []
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)

    def unary(self, data, context):
        self.contexts.append(context)
        what, _, rest = bytes(data).partition(b" ")
        if what == b"wait":
            self.begun.release()
            assert self.go.wait(60)
        if what == b"abort":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, rest.decode())
        if what == b"raise":
            raise ValueError(rest.decode())
        if what == b"zeros":
            return bytes(int(rest))
        if what == b"metadata":
            context.set_trailing_metadata((("echoed", context.headers["asked"]),))
        if what == b"code":
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(rest.decode())
        if what == b"left":
            return str(context.time_remaining()).encode()
        return bytes(data)

    def endless(self, data, context):
        self.begun.release()
        try:
            while True:
                yield bytes(int(data))
                time.sleep(0.01)
        finally:
            self.ended.release()

    def stream(self, requests, context):
        self.contexts.append(context)
        self.begun.release()
        try:
            for data in requests:
                if bytes(data) == b"wait":
                    assert self.go.wait(60)
                yield bytes(data)
        finally:
            self.ended.release()


@contextmanager
def served(limits=None, *, tls=None, family=socket.AF_INET, threads=8, **hooks):
    """(the service, the server, the address of) a server that answers."""
    echo = Echo()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(echo.unary),
        "Stream": grpc.stream_stream_rpc_method_handler(echo.stream),
        "Endless": grpc.unary_stream_rpc_method_handler(echo.endless),
    }
    server = GrpcServer(threads, limits or Limits(), **hooks)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    bound = socket.socket(family)
    bound.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    server.listen(bound, tls)
    host, port = bound.getsockname()[:2]
    server.start()
    try:
        yield echo, server, f"{host}:{port}" if family == socket.AF_INET else f"[{host}]:{port}"
    finally:
        echo.go.set()
        assert server.stop(5).wait(10)


@contextmanager
def connected(address, **options):
    """(ask once, ask as a stream) over a connection of its own."""
    given = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    given += options.items()
    with grpc.insecure_channel(address, given) as channel:
        yield channel.unary_unary(UNARY), channel.stream_stream(STREAM)


def refusal(call, *arguments, **options) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, timeout=30, **options)
    return error.value.code(), error.value.details()


def both_begun(echo: Echo) -> None:
    for _ in range(2):
        assert echo.begun.acquire(timeout=30)


@pytest.fixture(scope="module")
def echo():
    with served() as (echo, _, address), connected(address) as (unary, stream):
        yield echo, unary, stream


# === Calls ===


@pytest.mark.parametrize("size", [0, 1, 1 << 14, 150_528, 3_000_000])
def test_a_message_of_any_size_comes_back(echo, size):
    _, unary, _ = echo
    asked = bytes(itertools.islice(itertools.cycle(range(251)), size))
    assert unary(asked, timeout=30) == asked


def test_an_answer_wider_than_the_clients_window_arrives_whole(echo):
    _, unary, _ = echo
    assert unary(b"zeros 20000000", timeout=60) == bytes(20_000_000)


def test_a_thousand_calls_at_a_time_over_one_connection_are_all_answered(echo):
    _, unary, _ = echo
    asked = [unary.future(b"%d" % number, timeout=60) for number in range(1000)]
    assert [each.result() for each in asked] == [b"%d" % number for number in range(1000)]


def test_the_requests_of_a_stream_are_answered_one_by_one_in_order(echo):
    _, _, stream = echo
    sent = threading.Semaphore(0)

    def requests():
        for number in range(50):
            yield b"%d " % number + bytes(1000 * number)
            assert sent.acquire(timeout=30)  # not before the one before was answered

    for number, answer in enumerate(stream(requests(), timeout=60)):
        assert answer == b"%d " % number + bytes(1000 * number)
        sent.release()
    assert number == 49


@pytest.mark.long
@pytest.mark.parametrize("size", [100, 20_000, 300_000])
def test_requests_that_come_faster_than_they_are_read_keep_their_bytes(echo, size):
    _, _, stream = echo
    asked = [number.to_bytes(4, "big") * (size // 4) for number in range(3_000_000 // size)]
    assert list(stream(iter(asked), timeout=60)) == asked


def test_a_message_of_a_stream_may_be_larger_than_the_window():
    limits = Limits(message_bytes=20_000_000)
    with served(limits) as (_, _, address), connected(address) as (_, stream):
        asked = [bytes(10_000_000), b"small", bytes(9_000_000)]
        assert list(stream(iter(asked), timeout=60)) == asked


@pytest.mark.parametrize("first", [b"wait", b"go on"])
def test_a_client_that_sends_faster_than_it_is_answered_or_reads_is_held_back(first):
    """Else a stream could fill the memory: here 60 MB would wait, of requests or of answers."""
    with served() as (echo, _, address), connected(address) as (_, stream):
        taken = []

        def requests():
            yield first
            for number in range(60):
                taken.append(number)
                yield bytes(1 << 20)

        answers = stream(requests(), timeout=60)
        assert echo.begun.acquire(timeout=30)
        before = -1
        while len(taken) > before:  # until nothing moves
            before = len(taken)
            time.sleep(0.3)
        assert len(taken) < 40
        echo.go.set()
        assert sum(len(answer) for answer in answers) == (60 << 20) + len(first)


@pytest.mark.parametrize("text", ["plain", "Umlauts äöü, 100 % and\na line", "x" * 1000])
def test_what_a_handler_aborts_with_is_the_status(echo, text):
    _, unary, _ = echo
    found = refusal(unary, b"abort " + text.encode())
    assert found == (grpc.StatusCode.FAILED_PRECONDITION, text)


def test_what_a_handler_sets_is_the_status_of_what_it_returns(echo):
    """As gRPC's own health service answers."""
    _, unary, _ = echo
    assert refusal(unary, b"code not here") == (grpc.StatusCode.NOT_FOUND, "not here")


def test_what_a_handler_raises_is_one_line_for_the_client(echo, caplog):
    _, unary, _ = echo
    found = refusal(unary, b"raise broken")
    assert found == (grpc.StatusCode.UNKNOWN, "Exception calling application: broken")
    assert "ValueError: broken" in caplog.text
    code, details = refusal(unary, b"raise " + b"x" * 100_000)
    assert (code, len(details)) == (grpc.StatusCode.UNKNOWN, 1000)


def test_metadata_goes_both_ways(echo):
    _, unary, _ = echo
    _, call = unary.with_call(b"metadata", metadata=[("asked", "something")], timeout=30)
    assert dict(call.trailing_metadata()) == {"echoed": "something"}


def test_a_handler_knows_how_long_its_client_waits(echo):
    _, unary, _ = echo
    assert 20 < float(unary(b"left", timeout=30)) < 31  # gRPC rounds it up
    assert unary(b"left") == b"None"


def test_a_client_that_stops_waiting_is_noticed():
    with served() as (echo, _, address), connected(address) as (unary, stream):
        for begin in (lambda: unary.future(b"wait"), lambda: stream(iter([b"wait"]))):
            cancelled = begin()
            assert echo.begun.acquire(timeout=30)
            context, ended = echo.contexts[-1], threading.Event()
            assert context.is_active()
            assert context.add_callback(ended.set)
            cancelled.cancel()
            assert ended.wait(30)
            assert not context.is_active()
            assert not context.add_callback(ended.set)


@pytest.mark.parametrize("size", [1, 1 << 20])  # of the latter some wait for the client to read
def test_answers_without_end_end_with_the_client_that_asked_for_them(size):
    with served() as (echo, _, address), grpc.insecure_channel(address) as channel:
        answers = channel.unary_stream("/test.Echo/Endless")(b"%d" % size)
        assert next(answers) == bytes(size)
        time.sleep(0.3)
        answers.cancel()
        assert echo.ended.acquire(timeout=30)


def test_a_method_that_is_not_there_is_unimplemented(echo):
    with served() as (_, _, address), grpc.insecure_channel(address) as channel:
        found = refusal(channel.unary_unary("/test.Echo/Nothing"), b"")
        assert found == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@pytest.mark.parametrize("algorithm", ["Gzip", "Deflate"])
def test_compressed_requests_are_expanded(echo, algorithm):
    asked = b"compressible " * 10_000
    with served() as (_, _, address), connected(address) as (unary, stream):
        how = getattr(grpc.Compression, algorithm)
        assert unary(asked, compression=how, timeout=30) == asked
        assert list(stream(iter([asked, asked]), compression=how, timeout=30)) == [asked, asked]


# === Limits ===


def test_a_message_over_the_limit_is_refused_before_it_is_read():
    with served(Limits(message_bytes=1000)) as (_, _, address), connected(address) as (unary, _):
        assert len(unary(bytes(1000))) == 1000
        assert refusal(unary, bytes(1001)) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (1001 vs. 1000)",
        )
        assert len(unary(bytes(1000))) == 1000


def told(address, *calls, path=UNARY):
    """The last headers of the answers to calls over one connection, (headers, data) each."""
    client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    first = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "here")]
    found = {}
    host, port = address.split(":")
    with socket.create_connection((host, port), 30) as connection:
        client.initiate_connection()
        for number, (headers, data) in enumerate(calls):
            whole = [*first, ("content-type", "application/grpc"), *headers.items()]
            client.send_headers(2 * number + 1, whole)
            client.send_data(2 * number + 1, data, end_stream=True)
        connection.sendall(client.data_to_send())
        while len(found) < len(calls):
            for event in client.receive_data(connection.recv(10_000)):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    found[event.stream_id] = dict(event.headers)
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("size", [20_000, 60_000])
def test_too_many_headers_are_refused_and_the_other_calls_of_the_connection_live(size):
    calls = [({"text": text}, prefixed(b"")) for text in ("a", "z" * size, "a")]
    with served() as (_, _, address):
        found = told(address, *calls)
    assert [headers["grpc-status"] for headers in found] == ["0", "8", "0"]
    assert found[1]["grpc-message"] == "received metadata size exceeds hard limit (16384)"


def test_what_is_not_one_whole_message_is_refused_and_the_connection_lives():
    bad = [b"", b"\0\0\0", prefixed(b"abc")[:-1], prefixed(b"a") + prefixed(b"b")]
    bad += [b"\1" + prefixed(b"a")[1:]]  # compressed, nobody says how
    unknown = ({"grpc-encoding": "br"}, bad[-1])
    with served() as (_, _, address):
        found = told(address, *(({}, body) for body in bad), unknown, ({}, prefixed(b"good")))
    assert [answer["grpc-status"] for answer in found] == ["13"] * len(bad) + ["12", "0"]


def test_a_stream_of_answers_ends_with_trailers_alone():
    """Status and type of the answer have been said before; clients of HTTP/2 refuse them there."""
    with served() as (_, _, address):
        (found,) = told(address, ({}, prefixed(b"a") + prefixed(b"b")), path=STREAM)
    assert found == {"grpc-status": "0"}


def test_what_is_posted_to_it_and_is_not_grpc_is_refused():
    with served() as (_, _, address):
        (found,) = told(address, ({"content-type": "application/json"}, b"{}"))
    assert found[":status"] == "415"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_message_that_is_not_one_whole_stream_is_refused(algorithm):
    """As gRPC's own servers refuse it; of half a message nothing is answered."""
    message = {"gzip": gzip.compress, "deflate": zlib.compress}[algorithm](b"compressible " * 100)
    wrong = message[:-5] + bytes([message[-5] ^ 1]) + message[-4:]
    spoilt = [message[:-1], message[: len(message) // 2], wrong, message * 2, message + b"more"]
    headers = {"grpc-encoding": algorithm}
    with served() as (_, _, address):
        calls = [(headers, b"\1" + prefixed(data)[1:]) for data in [message, *spoilt]]
        good, *bad = told(address, *calls)
    assert good["grpc-status"] == "0"
    for answer in bad:
        assert answer["grpc-status"] == str(grpc.StatusCode.INTERNAL.value[0])
        assert f"a message that is no {algorithm} (" in answer["grpc-message"]


def test_a_message_that_expands_over_the_limit_is_refused():
    bomb = gzip.compress(bytes(100_000_000))
    with served(Limits(message_bytes=1 << 20)) as (_, _, address), connected(address) as (unary, _):
        code, _ = refusal(unary, bytes(100_000_000), compression=grpc.Compression.Gzip)
        assert len(bomb) < 1 << 20
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_call_whose_message_stalls_ends_and_slow_ones_and_streams_go_on():
    """Else clients that are gone would take all places in time, without any deadline."""
    head = [(":method", "POST"), (":scheme", "http"), (":path", UNARY), (":authority", "here")]
    head.append(("content-type", "application/grpc"))
    message = prefixed(b"slowly")
    found = {}
    with served(Limits(stall=0.6)) as (_, _, address), connected(address) as (_, stream):
        host, port = address.split(":")
        client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        answered = threading.Event()

        def seldom():
            yield b"one"
            assert answered.wait(30)
            yield b"two"

        asked = stream(seldom(), timeout=60)
        with socket.create_connection((host, port), 30) as connection:
            client.initiate_connection()
            client.send_headers(1, head)
            client.send_data(1, message[:-1])
            client.send_headers(3, head)
            for at in range(len(message)):
                client.send_data(3, message[at : at + 1], end_stream=at + 1 == len(message))
                connection.sendall(client.data_to_send())
                time.sleep(0.2)
            while len(found) < 2:
                for event in client.receive_data(connection.recv(10_000)):
                    if isinstance(event, ResponseReceived | TrailersReceived):
                        found[event.stream_id] = dict(event.headers)
        answered.set()
        assert list(asked) == [b"one", b"two"]
    assert found[1]["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    assert found[1]["grpc-message"] == "the rest of the request did not come in time"
    assert found[3]["grpc-status"] == "0"


def test_a_client_that_is_slow_with_one_long_frame_is_answered():
    """Nobody is woken for a part of a frame; that it comes is seen all the same."""
    message = prefixed(bytes(40_000))
    headers = [(":method", "POST"), (":scheme", "http"), (":path", UNARY), (":authority", "here")]
    block = b"".join(itertools.starmap(literal, [*headers, ("content-type", "application/grpc")]))
    opened = PREFACE + frame(Frame.SETTINGS, 0, 0, WIDE)
    opened += frame(Frame.HEADERS, Flag.END_HEADERS, 1, block)
    data = frame(Frame.DATA, Flag.END_STREAM, 1, message)
    answered = b""
    with served(Limits(stall=0.6)) as (_, _, address):
        host, port = address.split(":")
        with socket.create_connection((host, port), 30) as connection:
            connection.sendall(opened)
            for at in range(0, len(data), 5000):
                connection.sendall(data[at : at + 5000])
                time.sleep(0.3)
            while literal("grpc-status", "0") not in answered:
                part = connection.recv(100_000)
                answered += part
                assert part, "closed"
                assert literal("grpc-status", "4") not in answered


def test_more_calls_than_allowed_are_refused_at_once():
    with served(Limits(calls=2)) as (echo, _, address), connected(address) as (unary, _):
        waiting = [unary.future(b"wait"), unary.future(b"wait")]
        both_begun(echo)
        found = refusal(unary, b"")
        assert found == (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
        echo.go.set()
        assert [each.result(30) for each in waiting] == [b"wait", b"wait"]
        assert unary(b"again") == b"again"


def test_more_connections_than_allowed_are_closed_and_do_no_harm():
    with served(Limits(connections=2)) as (_, _, address), connected(address) as (unary, _):
        assert unary(b"first") == b"first"
        host, port = address.split(":")
        with socket.create_connection((host, int(port))):
            with socket.create_connection((host, int(port)), timeout=30) as third:
                assert third.recv(1000) == b""
            assert unary(b"still") == b"still"


def test_a_connection_that_says_nothing_is_closed(monkeypatch):
    monkeypatch.setattr("striate.serve.grpc_server.server.GREETING", 0.2)
    with served() as (_, _, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as silent:
            said = b"".join(iter(lambda: silent.recv(1000), b""))
        assert said == b""


@pytest.mark.parametrize(("name", "value"), [("idle", 0.2), ("age", 0.2)])
def test_a_connection_that_is_idle_or_old_has_to_go_and_no_call_notices(name, value, monkeypatch):
    monkeypatch.setattr("striate.serve.grpc_server.server.HEARD", 1000)  # this client does answer
    limits = replace(Limits(), **{name: value})
    with served(limits) as (_, server, address), connected(address) as (unary, _):
        for _ in range(3):
            assert unary(b"here", timeout=30) == b"here"
            deadline = time.monotonic() + 30
            while server._peers:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_a_connection_whose_call_takes_long_is_not_idle():
    limits = Limits(idle=0.2, grace=0.2)
    with served(limits) as (echo, _, address), connected(address) as (unary, _):
        under_way = unary.future(b"wait", timeout=60)
        time.sleep(1.5)  # three looks at what is idle
        echo.go.set()
        assert under_way.result() == b"wait"


def test_an_old_connection_whose_calls_do_not_end_in_time_is_cut_off():
    limits = Limits(age=0.2, grace=0.2)
    with served(limits) as (echo, _, address), connected(address) as (unary, _):
        code, _ = refusal(unary, b"wait")
        assert code == grpc.StatusCode.UNAVAILABLE
        echo.go.set()


def test_a_client_that_does_not_answer_when_it_has_to_go_is_left():
    with served(Limits(idle=0.2)) as (_, _, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as deaf:
            deaf.sendall(PREFACE + frame(Frame.SETTINGS, 0, 0))
            while deaf.recv(1000):
                pass


def test_a_server_that_has_no_files_for_a_connection_takes_it_a_little_later(monkeypatch, caplog):
    accept, errors = Entrance.accept, iter([OSError(24, "Too many open files")])

    def scarce(entrance):
        for error in errors:
            raise error
        return accept(entrance)

    monkeypatch.setattr(Entrance, "accept", scarce)
    with served() as (_, _, address), connected(address) as (unary, _):
        assert unary(b"late", timeout=30) == b"late"
    (line,) = caplog.messages
    assert line == "cannot accept a connection: [Errno 24] Too many open files"


@pytest.mark.parametrize("where", ["read", "opened"])
def test_a_mistake_of_ours_costs_one_connection_and_not_the_server(where, caplog):
    def hook(call):
        if call.headers.get("asked") == "too much":
            raise RuntimeError("ours")

    with (
        served(**{where: hook}) as (echo, _, address),
        connected(address) as (unary, _),
        connected(address) as (other, _),
    ):
        waiting = other.future(b"wait", timeout=60)
        assert echo.begun.acquire(timeout=30)
        code, _ = refusal(unary, b"", metadata=[("asked", "too much")])
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "RuntimeError: ours" in caplog.text
        with connected(address) as (again, _):
            assert again(b"again", timeout=30) == b"again"
        echo.go.set()
        assert waiting.result() == b"wait"


def test_a_mistake_of_ours_between_calls_leaves_nobody_without_an_answer(monkeypatch, caplog):
    tidy, mistakes = GrpcServer._tidy, iter([RuntimeError("ours")])

    def broken(server, now):
        for mistake in mistakes:
            raise mistake
        tidy(server, now)

    monkeypatch.setattr(GrpcServer, "_tidy", broken)
    with served() as (_, _, address), connected(address) as (unary, _):
        deadline = time.monotonic() + 30
        while "RuntimeError: ours" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert unary(b"still", timeout=30) == b"still"


def test_every_request_waits_for_its_turn_without_a_thread():
    """Two are answered abreast, whatever the number of threads; others need no turn."""
    queued = {"abreast": 2, "read": lambda call: call.headers.get("asked") != "now"}
    before = threading.active_count()
    with served(threads=64, **queued) as (echo, _, address), connected(address) as (unary, _):
        waiting = [unary.future(b"wait %d" % number) for number in range(20)]
        both_begun(echo)
        assert unary(b"x", metadata=[("asked", "now")], timeout=30) == b"x"
        assert not echo.begun.acquire(timeout=0.2)
        assert threading.active_count() < before + 10
        echo.go.set()
        assert [each.result(30) for each in waiting] == [b"wait %d" % n for n in range(20)]


def test_a_call_whose_client_left_while_it_waited_for_its_turn_is_not_answered():
    queued = {"abreast": 1, "read": lambda call: True}
    with served(**queued) as (echo, server, address), connected(address) as (unary, _):

        def until(done):
            deadline = time.monotonic() + 30
            while not done():
                assert time.monotonic() < deadline
                time.sleep(0.01)

        first = unary.future(b"wait")
        assert echo.begun.acquire(timeout=30)
        second = unary.future(b"in vain")
        until(lambda: server._crew._queued)
        second.cancel()
        until(lambda: len(server._calls) == 1)
        echo.go.set()
        assert first.result(30) == b"wait"
        assert unary(b"after", timeout=30) == b"after"
        assert len(echo.contexts) == 2


def idle_streams(echo, stream, count: int) -> tuple[list, threading.Event]:
    """So many streams that have begun and ask nothing, until an event is set."""
    never = threading.Event()
    calls = [stream(iter(never.wait, True)) for _ in range(count)]
    for _ in calls:
        assert echo.begun.acquire(timeout=30)
    return calls, never


def cancel(calls, never: threading.Event, echo) -> None:
    for call in calls:
        call.cancel()
        assert echo.ended.acquire(timeout=30)
    never.set()


def test_streams_that_do_nothing_keep_no_thread_from_other_calls():
    """As the clients that watch the health of a server for as long as it is there."""
    with served(threads=2) as (echo, _, address), connected(address) as (unary, stream):
        watching, never = idle_streams(echo, stream, 10)
        waiting = unary.future(b"wait", timeout=30)
        assert echo.begun.acquire(timeout=30)
        assert unary(b"still", timeout=30) == b"still"
        cancel(watching, never, echo)
        assert unary(b"there", timeout=30) == b"there"
        echo.go.set()
        assert waiting.result() == b"wait"


def test_streams_that_are_over_leave_no_more_threads_to_other_calls():
    with served(threads=2) as (echo, _, address), connected(address) as (unary, stream):
        watching, never = idle_streams(echo, stream, 6)
        waiting = [unary.future(b"wait", timeout=60) for _ in range(4)]
        cancel(watching, never, echo)
        both_begun(echo)
        waiting += [unary.future(b"wait", timeout=60) for _ in range(4)]
        assert not echo.begun.acquire(timeout=0.5)
        assert next(stream(iter([b"at once"]), timeout=30)) == b"at once"
        echo.go.set()
        assert [each.result() for each in waiting] == [b"wait"] * 8


def test_bodies_of_refused_calls_are_not_sent():
    """Once one was refused, a client sends headers and waits to be told to go on."""
    full = threading.Event()

    def opened(call):
        if full.is_set():
            call.abort(grpc.StatusCode.UNAVAILABLE, "full")

    with served(opened=opened) as (_, server, address), connected(address) as (unary, _):
        assert len(unary(bytes(1 << 20))) == 1 << 20
        full.set()
        assert refusal(unary, b"") == (grpc.StatusCode.UNAVAILABLE, "full")
        (peer,) = server._peers
        allowed = peer.connection._allowed
        for _ in range(20):
            assert refusal(unary, bytes(1 << 20)) == (grpc.StatusCode.UNAVAILABLE, "full")
        assert peer.connection._allowed == allowed, "not one byte of 20 MiB"
        full.clear()
        assert len(unary(bytes(1 << 20), timeout=30)) == 1 << 20
        deadline = time.monotonic() + 30
        while peer.connection.narrow:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(unary(bytes(1 << 20), timeout=30)) == 1 << 20


@pytest.mark.long
def test_a_client_that_takes_no_answers_is_not_read_any_more():
    """Else what it asks for would pile up. That it is read is what ended its pings: there may be
    10,000, and here are more."""
    head = literal(":method", "POST") + literal(":path", UNARY)
    head += literal("content-type", "application/grpc")
    pings = 1000 * frame(Frame.PING, 0, 0, bytes(8))

    def send_pings(client):
        while True:
            client.sendall(pings)

    with served() as (_, _, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=2) as client:
            client.sendall(PREFACE + frame(Frame.SETTINGS, 0, 0, WIDE))
            client.sendall(frame(Frame.WINDOW_UPDATE, 0, 0, b"\x3f" + WIDE[3:6]))
            for number in range(1, 100, 2):
                client.sendall(frame(Frame.HEADERS, Flag.END_HEADERS, number, head))
                client.sendall(
                    frame(Frame.DATA, Flag.END_STREAM, number, prefixed(b"zeros 1000000"))
                )
            time.sleep(0.5)  # 50 MB are on their way, more than the sockets hold
            with pytest.raises(TimeoutError):
                send_pings(client)


# === The end ===


@pytest.mark.long
def test_no_call_is_lost_when_a_server_stops():
    """Clients ask on while five servers stop under them: each call is answered, or was never
    taken up, which is what UNAVAILABLE tells its client."""
    codes = []

    def ask(unary):
        while True:
            try:
                assert unary(bytes(100_000), timeout=30) == bytes(100_000)
                codes.append(None)
            except grpc.RpcError as error:
                codes.append(error)
                return

    for _ in range(5):
        with (
            served() as (_, server, address),
            ThreadPoolExecutor(4) as pool,
            connected(address) as (first, _),
            connected(address) as (second, _),
        ):
            asking = [pool.submit(ask, unary) for unary in (first, second, first, second)]
            time.sleep(0.2)
            assert server.stop(10).wait(20)
            for each in asking:
                each.result(30)
    errors = [error for error in codes if error is not None]
    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert all("refused" in error.details() for error in errors), "nobody listens any more"
    assert len(codes) > 100


def test_what_is_under_way_is_answered_before_a_server_ends_and_streams_are_cancelled():
    with served() as (echo, server, address), connected(address) as (unary, stream):
        under_way = unary.future(b"wait")
        held = threading.Event()
        streaming = stream(iter(held.wait, True), timeout=30)  # never sends anything
        both_begun(echo)
        stopped = server.stop(30)
        with pytest.raises(grpc.RpcError) as error:
            next(streaming)
        held.set()
        assert error.value.code() == grpc.StatusCode.CANCELLED
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address.split(":"), timeout=30)
        assert not stopped.is_set()
        echo.go.set()
        assert under_way.result(30) == b"wait"
        assert stopped.wait(10)


def test_calls_that_do_not_end_in_time_are_cut_off():
    with served() as (echo, server, address), connected(address) as (unary, _):
        under_way = unary.future(b"wait")
        assert echo.begun.acquire(timeout=30)
        assert server.stop(0.2).wait(10)
        assert under_way.code() == grpc.StatusCode.UNAVAILABLE


def test_a_server_that_ends_waits_for_nobody_who_has_said_nothing():
    with served() as (_, server, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as silent:
            while not server._peers:
                time.sleep(0.01)
            assert server.stop(60).wait(5)
            assert silent.recv(1000) == b""


def test_the_threads_of_a_server_end_with_it():
    before = set(threading.enumerate())
    with served() as (echo, _, address), connected(address) as (unary, _):
        waiting = [unary.future(b"wait") for _ in range(2)]
        both_begun(echo)
        echo.go.set()
        assert [each.result(30) for each in waiting] == [b"wait", b"wait"]
    deadline = time.monotonic() + 30
    while any(t.name.startswith("grpc") for t in set(threading.enumerate()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# === Ways to connect ===


def test_tls_takes_clients_that_speak_http_2_alone(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    _, authority = certificate(tmp_path, "authority")
    tls = Tls(*certificate(tmp_path, "localhost", "authority"))
    with served(tls=tls.context("h2")) as (_, _, address):
        port = address.rpartition(":")[2]
        credentials = grpc.ssl_channel_credentials(authority.encode())
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            unary = channel.unary_unary(UNARY)
            for size in (0, 20_000, 3_000_000):
                assert len(unary(bytes(size), timeout=30)) == size
            asked = [unary.future(bytes(100_000), timeout=30) for _ in range(100)]
            assert {each.result() for each in asked} == {bytes(100_000)}
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            code, _ = refusal(channel.unary_unary(UNARY), b"")
            assert code == grpc.StatusCode.UNAVAILABLE


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_a_peer_is_named_as_grpc_names_it():
    for family, prefix in ((socket.AF_INET, "ipv4:127.0.0.1:"), (socket.AF_INET6, "ipv6:[::1]:")):
        with served(family=family) as (echo, _, address), connected(address) as (unary, _):
            unary(b"")
            assert echo.contexts[0].peer().startswith(prefix)


def test_who_takes_it_for_a_rest_port_is_told(echo):
    with served() as (_, _, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(b"GET /v1/models/flowers HTTP/1.1\r\nHost: x\r\n\r\n")
            said = b"".join(iter(lambda: client.recv(1000), b""))
    assert said.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
    assert said.endswith(b"expected gRPC (HTTP/2); REST has a port of its own\n")


def test_curl_over_http_2_is_told_that_this_is_grpc():
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    with served() as (_, _, address):
        command = ["curl", "--silent", "--http2-prior-knowledge", "--write-out", "%{http_code}"]
        done = subprocess.run([*command, f"http://{address}/"], capture_output=True, timeout=60)
    assert done.stdout == b"415"


# === Words of the protocol ===


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12345678S", 12_345_678), ("123456789S", None),
     ("1H", 3600), ("2M", 120), ("3S", 3), ("100m", 0.1), ("5u", 5e-6), ("7n", 7e-9),
     (None, None), ("", None), ("5", None), ("m", None), ("-5m", None), ("x5m", None)],
)  # fmt: skip
def test_timeouts_are_read_in_every_unit(text, expected):
    assert seconds(text) == pytest.approx(expected)


def test_a_message_of_a_status_is_percent_encoded_where_headers_cannot_carry_it():
    assert b"100%25 \xc3".replace(b"\xc3", b"%C3%A4%0A") in trailers(13, "100% ä\n")
