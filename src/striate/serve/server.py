"""The server process: options -> repository, scheduler, core -> sockets; signals -> drain."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from striate.errors import ArtifactError, StriateError, UsageError, did_you_mean
from striate.runtime import ENGINES
from striate.serve.calls import address
from striate.serve.canary import Limits
from striate.serve.core import Core
from striate.serve.keys import Keys
from striate.serve.listeners import GrpcListener, HttpListener, allow_files, metrics_paths
from striate.serve.loading import Loader
from striate.serve.observe.access_log import AccessLog
from striate.serve.observe.counters import Loads
from striate.serve.observe.request_log import RequestLog
from striate.serve.options import ModelConfig, ServerOptions
from striate.serve.repository import ENDING, Repository, Retries
from striate.serve.repository.model_config import find_models, read_config_file
from striate.serve.repository.servable import Servable
from striate.serve.rollout import Missing, parse, parse_canary
from striate.serve.scheduler import Scheduler
from striate.serve.secure import RenewedTls
from striate.serve.stderr import logged

if TYPE_CHECKING:
    from striate.serve.observe.tracing import Tracing

log = logging.getLogger("striate.serve")

FILES_SECONDS = 1.0  # between looks at the files of API keys and of TLS
CANARY_SECONDS = 1.0  # between judgements of canaries, and looks for the versions they name
# That a server which has said that it is going still takes requests: those who look at its health
# send it no more, and a kept connection of REST is not closed with a request on its way
LINGER = 0.5
SAYING = 1.0  # seconds for what is announced to be written


class Server:
    """A server in this process, on threads of its own.

    >>> with Server(ServerOptions("saved_models/mine", rest_api_port=8501)) as server:
    ...     print(*server.describe(), sep="\\n")

    `start` returns when every port answers; it raises `StriateError` when a port is taken, when
    there is no model, or when no version of any model could be loaded. `stop` drains.
    """

    def __init__(self, options: ServerOptions):
        self.options = options
        _check_engine(options.engine)
        loads = Loads()
        self.repository = Repository(
            [],
            Loader(options, loads).open,
            retries=Retries(options.max_num_load_retries, options.load_retry_interval_micros / 1e6),
            load_threads=options.num_load_threads,
            loads=loads,
        )
        self._request_log = RequestLog(options.request_log_dir, options.request_log_sampling_rate)
        canary, shadow = parse_canary(options.canary), parse(options.shadow, "shadow")
        self._missing = Missing({"canary": canary, "shadow": shadow}, self.repository.models)
        self.core = Core(
            self.repository,
            _scheduler(options),
            options.max_message_bytes,
            tensor_content=options.enable_serialization_as_tensor_content,
            check_methods=options.enable_signature_method_name_check,
            labels_first=options.allow_version_labels_for_unavailable_models,
            keys=Keys(options.api_keys_file) if options.api_keys_file else None,
            access_log=AccessLog(options.access_log) if options.access_log else None,
            request_log=self._request_log,
            tracing=_tracing() if options.tracing else None,
            canary=canary,
            limits=_limits(options),
            shadow=shadow,
        )
        metrics_paths(options)  # a file that is wrong ends the start
        self._configs = self._configured()
        self._listeners: list[GrpcListener | HttpListener] = []
        self._complaint = ""  # what was wrong with the configuration file at the last look

    def _configured(self) -> list[ModelConfig]:
        options = self.options
        if options.model_config_file:
            return read_config_file(options.model_config_file)
        return find_models(options.base_path, options.model_name, options.version_policy)

    def start(self) -> None:
        ssl_config = self.options.ssl_config_file
        tls = RenewedTls(ssl_config) if ssl_config else None
        bound: list[GrpcListener | HttpListener] = []
        try:
            if self.options.port or self.options.grpc_socket_path:
                bound.append(GrpcListener(self.core, self.options, tls))
            if self.options.rest_api_port:
                bound.append(HttpListener(self.core, self.options, tls))
            self._load()
            for listener in bound:
                listener.start()
                self._listeners.append(listener)
        except BaseException:
            for listener in bound:
                if listener not in self._listeners:
                    listener.abandon()
            self.stop()
            raise
        self._look_again_and_again(tls)

    def _look_again_and_again(self, tls: RenewedTls | None) -> None:
        """At what may change while the server serves: directories and files."""
        if self.options.file_system_poll_wait_seconds:
            self.repository.watch(self.options.file_system_poll_wait_seconds)
        if self.core.keys is not None:
            self.repository.every(FILES_SECONDS, self.core.keys.refresh)
        if tls is not None:
            self.repository.every(FILES_SECONDS, tls.refresh)
        if self.options.canary:
            self.repository.every(CANARY_SECONDS, self.core.canaries.look)
        if self.options.canary or self.options.shadow:
            self._missing.look()
            self.repository.every(CANARY_SECONDS, self._missing.look)
        poll = self.options.model_config_file_poll_wait_seconds
        if self.options.model_config_file and poll:
            self.repository.every(poll, self._reconfigure)

    def _load(self) -> None:
        self._request_log.configure(self._configs)
        events = self.repository.configure(self._configs)
        reasons = [event.text for event in events if event.failed] + self.repository.absent()
        if not any(model.available() for model in self.repository.configured()):
            where = self.options.model_config_file or self.options.base_path
            raise ArtifactError(f"{where}: {'; '.join(reasons)}")
        for reason in reasons:
            log.warning("%s", reason)
        self.repository.label(self._configs, allow_unavailable=self.core.labels_first)

    def _reconfigure(self) -> None:
        """Read the configuration file again; one that is broken changes nothing."""
        try:
            configs = self._configured()
            if configs != self._configs:
                self.core.reload(configs)
                self._configs = configs  # not before: what failed is tried again at the next look
            self._complaint = ""
        except StriateError as error:
            if str(error) != self._complaint:
                log.error("%s", error)
            self._complaint = str(error)

    def stop(self) -> None:
        """Take no new requests, let those in flight end, at most `drain_seconds` of them."""
        for listener in self._listeners:
            listener.retire()
        time.sleep(LINGER if self._listeners else 0)
        deadline = time.monotonic() + self.options.drain_seconds
        draining = [listener.drain(self.options.drain_seconds) for listener in self._listeners]
        for stopped in draining:
            stopped.wait(max(0.0, deadline - time.monotonic()) + 1)
        self._listeners.clear()
        self.core.scheduler.close()
        core = self.core
        for worker in (core.shadow, core.access_log, core.request_log, core.tracing):
            if worker is not None:
                worker.close()
        self.repository.close(max(ENDING, deadline - time.monotonic()))

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def describe(self) -> list[str]:
        """One line for each version that answers, one for each port."""
        lines = []
        for model in self.repository.configured():
            for number in model.available():
                if servable := model.serving(number):  # it may just have been replaced
                    lines.append(
                        f"{model.name} version {number}: {servable.engine} ({servable.kernel}), "
                        f"{_proof(servable)}{self.core.scheduler.workers} workers, "
                        f"loaded in {servable.seconds:.2f} s"
                    )
        options, host = self.options, self.options.host
        port, rest_port = address(host, options.port), address(host, options.rest_api_port)
        names = [model.name for model in self.repository.configured()]
        grpc_ports = [port] if options.port else []
        grpc_ports += [f"unix:{options.grpc_socket_path}"] if options.grpc_socket_path else []
        lines += [
            f"gRPC at {port} (PredictionService; models: {', '.join(names)})" for port in grpc_ports
        ]
        if options.rest_api_port:
            scheme = "https" if options.ssl_config_file and options.rest_api_ssl else "http"
            base = f"{scheme}://{rest_port}"
            near = base.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")
            lines.append(f"page at {near}/")
            lines += [f"REST at {base}/v1/models/{quote(name, safe='')}" for name in names]
        return lines


def _proof(servable: Servable) -> str:
    """How many classes there are, and how near the engine comes to the golden answers."""
    if servable.difference is None:
        return ""
    near = f"golden answers within {servable.difference:.0e}"
    return f"{near}, {len(servable.labels)} classes, "


def _scheduler(options: ServerOptions) -> Scheduler:
    if not options.enable_batching:
        return Scheduler(options.worker_count, options.max_queue)
    from striate.serve.batching import BatchingParameters, BatchingScheduler

    file = options.batching_parameters_file
    parameters = BatchingParameters.read(file) if file else BatchingParameters()
    return BatchingScheduler(options.worker_count, options.max_queue, parameters)


def _tracing() -> "Tracing":
    from striate.serve.observe.tracing import Tracing

    return Tracing()


def _limits(options: ServerOptions) -> Limits:
    return Limits(
        errors=options.canary_max_errors,
        agreement=options.canary_min_agreement,
        distance=options.canary_max_distance,
        least=options.canary_min_requests,
    )


def _check_engine(name: str | None) -> None:
    if name not in (None, "auto", *ENGINES):
        raise UsageError(
            f"expected an engine (auto, {', '.join(ENGINES)}), got {name!r}."
            f"{did_you_mean(str(name), ENGINES)}"
        )


def run_server(
    options: ServerOptions,
    *,
    announce: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain and return. A second signal ends at once,
    and so does the first while models are loaded for the start.

    announce is given each line that says what is served and where. Call it from the main thread.
    """
    with ExitStack() as serving:
        with _signals() as signals:
            try:
                with _at_once(signals):
                    server = Server(options)
                    allow_files(options)
                    server.start()
            except _Ended as ended:
                _say(announce, f"{ended}: stopped before anything was served")
                return
            serving.enter_context(logged())
            _say(announce, *server.describe())
            name = signal.Signals(_next(signals)).name
        _say(announce, f"{name}: finishing the requests in flight")
        server.stop()
    _say(announce, "stopped")


def _say(announce: Callable[[str], None], *lines: str) -> None:
    """Announce lines, unless whoever reads them is gone, or is busy for more than a moment: nobody
    is left without an answer for that."""

    def say() -> None:
        try:
            for line in lines:
                announce(line)
        except OSError as error:
            log.warning("cannot say %r (%s)", lines[0], error)

    saying = threading.Thread(target=say, name="announce", daemon=True)
    saying.start()
    saying.join(SAYING)


class _Ended(BaseException):
    """A signal before anything was served; no version fails for it."""


@contextmanager
def _at_once(signals: SimpleQueue) -> Iterator[None]:
    """Within the block a signal raises `_Ended`. Without any handler SIGTERM would do nothing to
    the first process of a container, which the system spares."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        signals.put(number)  # for later, should nobody hear of what is raised
        raise _Ended(signal.Signals(number).name)

    with _handled(end):
        yield


def _next(signals: SimpleQueue) -> int:
    """The next signal. The system may hand one to any thread, and then only a main thread that
    runs takes note of it; so this one does not wait for ever."""
    while True:
        try:
            return signals.get(timeout=0.5)
        except Empty:
            continue


@contextmanager
def _signals() -> Iterator[SimpleQueue]:
    """A queue that receives the signals that end a server; `put` is safe in a signal handler."""
    received: SimpleQueue[int] = SimpleQueue()
    with _handled(lambda number, frame: received.put(number)):
        yield received


def _endings() -> list[signal.Signals]:
    """SIGTERM, SIGINT, and the end of the terminal, unless nohup or the like has it ignored."""
    found = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block what asks a server to end goes to a handler."""
    before = {number: signal.signal(number, handler) for number in _endings()}
    try:
        yield
    finally:
        for number, its in before.items():
            signal.signal(number, its)
