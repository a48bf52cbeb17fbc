"""The two sockets: a gRPC server and an HTTP server, started and drained alike.

Both answer on threads. There are more of them than places in the scheduler, so that a request over
the limit is refused at once instead of waiting for a thread.
"""

import errno
import functools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from striate.errors import StriateError, UsageError
from striate.serve import oip_grpc, text_configs, tfs_grpc
from striate.serve.core import Core
from striate.serve.grpc_calls import CallInterceptor
from striate.serve.oip_protos import BothPools
from striate.serve.options import ServerOptions
from striate.serve.secure import Tls

SPARE_THREADS = 8  # for refusals, status, metadata and health while all places are taken


def thread_pool(core: Core, name: str, threads: int | None) -> ThreadPoolExecutor:
    """`threads`, or one for every place in the scheduler and some to refuse the rest with."""
    places = core.scheduler.workers + core.scheduler.max_queue
    return ThreadPoolExecutor(threads or places + SPARE_THREADS, thread_name_prefix=name)


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket bound to a port, not yet listening; `StriateError` when the port is taken.

    shared: with others that share it, each of which gets some of the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off for sockets that name TCP alone; on, a body waits 40 ms
    # for the client to acknowledge the head before it
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """`name=value,name=value` as gRPC takes it: whole numbers as such, the rest as text."""
    pairs = [argument.partition("=") for argument in text.split(",") if argument]
    if any(not (name and sign) for name, sign, _ in pairs):
        raise UsageError(f"expected grpc_channel_arguments name=value,..., got {text!r}")
    return [(n, int(v) if v.lstrip("-").isdecimal() else v) for n, _, v in pairs]


def metrics_paths(options: ServerOptions) -> tuple[str, ...]:
    """Where metrics are: at /metrics, and where a MonitoringConfig enables them."""
    from striate.serve import metrics

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

    def __init__(self, core: Core, options: ServerOptions):
        if options.port:
            # gRPC's own refusal takes several lines
            bind(options.host, options.port, shared=options.reuse_port).close()
        self._streams = _OpenStreams()
        self._server = grpc.server(
            thread_pool(core, "grpc", options.grpc_max_threads),
            interceptors=[self._streams, CallInterceptor(core)],
            maximum_concurrent_rpcs=options.max_connections,
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Not by itself, or a second server would silently take half of the requests
                ("grpc.so_reuseport", int(options.reuse_port)),
                *channel_arguments(options.grpc_channel_arguments),
            ],
        )
        services = tfs_grpc.register(core, self._server) + oip_grpc.register(core, self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        named = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(named, self._server, pool=BothPools())
        self._addresses = [f"{options.host}:{options.port}"] if options.port else []
        if options.grpc_socket_path:
            self._addresses.append(f"unix:{options.grpc_socket_path}")
        self._tls = Tls.read(options.ssl_config_file) if options.ssl_config_file else None

    def start(self) -> None:
        for address in self._addresses:
            try:
                self._listen(address)
            except RuntimeError as error:
                raise StriateError(f"cannot listen on {address} ({error})") from None
        self._server.start()

    def _listen(self, address: str) -> None:
        if self._tls is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, self._tls.credentials())

    def retire(self) -> None:
        """Say NOT_SERVING, and answer as before."""
        self._health.enter_graceful_shutdown()

    def drain(self, seconds: float) -> threading.Event:
        """Take no new calls, let the others end; then the event is set."""
        stopped = self._server.stop(seconds)
        self._streams.cancel()
        return stopped


class _OpenStreams(grpc.ServerInterceptor):
    """Remembers the streaming calls (health Watch, reflection): they would hold up a drain."""

    def __init__(self):
        self._contexts: set[grpc.ServicerContext] = set()

    def cancel(self) -> None:
        for context in list(self._contexts):
            context.cancel()

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None or not handler.response_streaming:
            return handler
        kind = "stream_stream" if handler.request_streaming else "unary_stream"
        return handler._replace(**{kind: self._remembered(getattr(handler, kind))})

    def _remembered(self, behaviour):
        @functools.wraps(behaviour)
        def call(request, context, *more):
            self._contexts.add(context)
            context.add_callback(lambda: self._contexts.discard(context))
            return behaviour(request, context, *more)

        return call


class HttpListener:
    """The REST API on one port, in a thread with an event loop of its own."""

    def __init__(self, core: Core, options: ServerOptions):
        import uvicorn

        from striate.serve.http import application

        self._socket = bind(options.host, options.rest_api_port, shared=options.reuse_port)
        self._retired = threading.Event()
        app = application(
            core,
            thread_pool(core, "http", options.rest_api_num_threads),
            timeout_seconds=options.rest_api_timeout_in_ms / 1000,
            retired=self._retired.is_set,
            cors=options.rest_api_enable_cors_support,
            metrics_paths=metrics_paths(options),
        )
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=round(options.drain_seconds),
            limit_concurrency=options.max_connections + 1,  # the one that is refused counts, too
        )
        config.load()
        if options.ssl_config_file and options.rest_api_ssl:
            config.ssl = Tls.read(options.ssl_config_file).context()
        self._server = uvicorn.Server(config)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            if self._stopped.is_set():
                raise StriateError("the REST server did not start; its log says why")
            time.sleep(0.005)

    def retire(self) -> None:
        """Say that it is not ready, and answer as before."""
        self._retired.set()

    def drain(self, seconds: float) -> threading.Event:
        """Take no new connections, let the requests in flight end; then the event is set."""
        self._server.should_exit = True
        return self._stopped

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._stopped.set()
