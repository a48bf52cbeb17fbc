"""The two sockets: a gRPC server and an HTTP server, started and drained alike.

Both answer on threads, as few at a time as compute; requests that wait for their turn have none,
unless they are computed in batches. There may be more of them than places in the scheduler, so that
whatever else is asked meanwhile (status, metadata, metrics) is answered at once.
"""

import contextlib
import errno
import logging
import os
import socket
import stat
import threading
import time
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from striate.errors import StriateError, UsageError
from striate.serve import text_configs
from striate.serve.behind import DaemonThreads
from striate.serve.calls import address
from striate.serve.core import Core
from striate.serve.grpc_server import GrpcServer, Limits
from striate.serve.grpc_server.http2 import LARGEST_WINDOW
from striate.serve.grpc_server.sockets import probe, unbind
from striate.serve.handshakes import Handshakes, watch
from striate.serve.options import LONGEST, ServerOptions
from striate.serve.protocols import oip_grpc, tfs_grpc
from striate.serve.protocols.grpc_calls import RecordedCalls
from striate.serve.protocols.oip_protos import BothPools
from striate.serve.secure import RenewedTls

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

log = logging.getLogger("striate.serve")

SPARE_FILES = 256  # beside connections: the libraries', models that are loaded, logs
SPARE_THREADS = 8  # for refusals, status, metadata and health while all places are taken

# gRPC's name for a limit -> the field of `Limits`, the unit
CHANNEL_ARGUMENTS = {
    "grpc.max_receive_message_length": ("message_bytes", 1),
    "grpc.max_concurrent_streams": ("streams", 1),
    "grpc.max_connection_age_ms": ("age", 1e-3),
    "grpc.max_connection_age_grace_ms": ("grace", 1e-3),
    "grpc.max_connection_idle_ms": ("idle", 1e-3),
}


def allow_files(options: ServerOptions) -> None:
    """Let this process have a file for every connection that may be: a shell allows 1024 of them
    at first, and more to those that ask. Beyond its own limit nobody could connect, no probe
    either, and no version be loaded; so that this one is too low is a line of the log."""
    if resource is None:
        return
    wanted = 2 * options.max_connections + SPARE_FILES  # of gRPC and of REST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # a sandbox may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < wanted:
        log.warning(
            "striate: %d open files are allowed, and max_connections %d may take %d: allow more "
            "(ulimit -n, LimitNOFILE), or set --max_connections lower",
            allowed,
            options.max_connections,
            wanted,
        )


def thread_count(core: Core) -> int:
    """One for every place in the scheduler, and some to refuse the rest with."""
    return core.scheduler.workers + core.scheduler.max_queue + SPARE_THREADS


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket bound to a port, not yet listening; `StriateError` when the port is taken.

    shared: with others that share it, each of which gets some of the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off for sockets that name TCP alone; on, a body waits 40 ms
    # for the client to acknowledge the head before it
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe(bound)  # and with it every connection that it takes
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise StriateError(
                f"port {port} is in use on {host}: stop what listens there, or choose another port"
            ) from None
        raise StriateError(f"cannot listen on {host}:{port} ({error.strerror})") from None
    return bound


def bind_unix(path: str) -> socket.socket:
    """A UNIX socket at a path, not yet listening; one that is left of a server is replaced, but not
    that of a server which still loads its models."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
            if is_socket and bound.connect_ex(path) and not _is_bound(path):
                os.unlink(path)  # nobody answers, and nobody is going to
        bound.bind(path)
    except OSError as error:
        bound.close()
        raise StriateError(f"cannot listen on unix:{path} ({error.strerror or error})") from None
    return bound


def _is_bound(path: str) -> bool:
    """Whether some process has a UNIX socket at a path, as far as the system tells."""
    try:
        lines = Path("/proc/net/unix").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    return any(line.split(maxsplit=7)[7:] == [path] for line in lines)


def channel_arguments(text: str) -> dict[str, str]:
    """`name=value,name=value`."""
    pairs = [argument.partition("=") for argument in text.split(",") if argument]
    if any(not (name and sign) for name, sign, _ in pairs):
        raise UsageError(f"expected grpc_channel_arguments name=value,..., got {text!r}")
    return {name: value for name, _, value in pairs}


def limits(options: ServerOptions) -> Limits:
    """What clients may ask, by the options and by those of gRPC's channel arguments that say it."""
    found = Limits(
        message_bytes=options.max_message_bytes,
        calls=options.max_connections,
        connections=options.max_connections,
        stall=options.stall_seconds or LONGEST,
    )
    for name, value in channel_arguments(options.grpc_channel_arguments).items():
        if name not in CHANNEL_ARGUMENTS:
            log.warning("striate: grpc_channel_arguments: %s has no effect here", name)
            continue
        field, unit = CHANNEL_ARGUMENTS[name]
        if field == "message_bytes" and value == "-1":  # gRPC's word for any number of them
            value = str(LARGEST_WINDOW)
        if not value.isdecimal():
            raise UsageError(f"expected grpc_channel_arguments {name} a number, got {value!r}")
        changed: dict[str, Any] = {field: int(value) * unit}
        found = replace(found, **changed)
    return found


def metrics_paths(options: ServerOptions) -> tuple[str, ...]:
    """Where metrics are: at /metrics, and where a MonitoringConfig enables them."""
    from striate.serve.observe import metrics

    if not options.monitoring_config_file:
        return (metrics.PATH,)
    found = text_configs.read(options.monitoring_config_file, "MonitoringConfig").prometheus_config
    if not found.enable:
        return (metrics.PATH,)
    path = found.path or metrics.TENSORFLOW_SERVING_PATH
    if not path.startswith("/"):
        raise UsageError(f"expected a prometheus_config path that begins with /, got {path!r}")
    return (metrics.PATH, path)


class GrpcListener:
    """All services, health and reflection on one port."""

    def __init__(self, core: Core, options: ServerOptions, tls: RenewedTls | None = None):
        recorded = RecordedCalls(core)
        self._server = GrpcServer(
            options.grpc_max_threads or thread_count(core),
            limits(options),
            abreast=core.scheduler.abreast,
            opened=recorded.opened,
            read=recorded.read,
            wrapped=recorded.wrapped,
            unshaken=Handshakes("GRPC", core.counters).failed,
        )
        self._retired = threading.Event()
        services = tfs_grpc.register(core, self._server)
        services += oip_grpc.register(core, self._server, self._retired.is_set)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        named = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(named, self._server, pool=BothPools())
        self._tls = tls
        self._sockets = []
        if options.port:
            self._sockets.append(bind(options.host, options.port, shared=options.reuse_port))
        if options.grpc_socket_path:
            self._sockets.append(bind_unix(options.grpc_socket_path))

    def start(self) -> None:
        tls = self._tls.context("h2") if self._tls else None
        for bound in self._sockets:
            self._server.listen(bound, tls)
        self._server.start()

    def abandon(self) -> None:
        """Leave the ports, of a server that does not start."""
        for bound in self._sockets:
            unbind(bound)

    def retire(self) -> None:
        """Say NOT_SERVING, and answer as before."""
        self._retired.set()
        self._health.enter_graceful_shutdown()

    def drain(self, seconds: float) -> threading.Event:
        """Take no new calls, let the others end; then the event is set."""
        return self._server.stop(seconds)


# Whose connection it is that a thread of asyncio has to do with
CONNECTED: ContextVar[str] = ContextVar("CONNECTED", default="a client")


class Listening(socket.socket):
    """A listening socket that leaves word of who connects, which asyncio tells nobody before the
    handshake of TLS is over. What asyncio does for a connection has the context of its `accept`."""

    def accept(self) -> tuple[socket.socket, Any]:
        connected, where = super().accept()
        CONNECTED.set(address(*where[:2]))
        return connected, where


class HttpListener:
    """The REST API on one port, in a thread with an event loop of its own."""

    def __init__(self, core: Core, options: ServerOptions, tls: RenewedTls | None = None):
        from striate.serve.http_server import HttpServer, configuration
        from striate.serve.protocols.http import application

        bound = bind(options.host, options.rest_api_port, shared=options.reuse_port)
        self._socket = Listening(bound.family, bound.type, bound.proto, bound.detach())
        self._retired = threading.Event()
        self._executor = DaemonThreads(options.rest_api_num_threads or thread_count(core), "http")
        app = application(
            core,
            self._executor,
            timeout_seconds=options.rest_api_timeout_in_ms / 1000 or LONGEST,
            retired=self._retired.is_set,
            crowded=lambda: self._server.connections > options.max_connections,
            cors=options.rest_api_enable_cors_support,
            metrics_paths=metrics_paths(options),
        )
        config = configuration(app)
        if tls is not None and options.rest_api_ssl:
            config.ssl = tls.context()
            handshakes = Handshakes("REST", core.counters)
            watch(config.ssl, lambda error: handshakes.failed(CONNECTED.get(), error))
        self._server = HttpServer(config, options.stall_seconds or LONGEST)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            if self._stopped.is_set():
                raise StriateError("the REST server did not start; its log says why")
            time.sleep(0.005)

    def abandon(self) -> None:
        """Leave the port, of a server that does not start."""
        unbind(self._socket)
        self._executor.shutdown(wait=False)

    def retire(self) -> None:
        """Say that it is not ready, and answer as before."""
        self._retired.set()

    def drain(self, seconds: float) -> threading.Event:
        """Take no new connections, let the requests in flight end; then the event is set."""
        self._server.end_within(seconds)
        return self._stopped

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._executor.shutdown(wait=False)
            self._stopped.set()
