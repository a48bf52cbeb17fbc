"""The server process: options -> repository, scheduler, core -> sockets; signals -> drain."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import TracebackType

from striate.errors import ArtifactError, UsageError, did_you_mean
from striate.runtime import ENGINES
from striate.serve.core import Core
from striate.serve.listeners import GrpcListener, HttpListener
from striate.serve.options import ServerOptions
from striate.serve.repository import Repository, find_models
from striate.serve.scheduler import Scheduler
from striate.serve.servable import open_servable

log = logging.getLogger("striate.serve")


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
        models = find_models(options.base_path, options.model_name, options.version_policy)
        workers = options.worker_count
        self.repository = Repository(
            models,
            lambda path: open_servable(
                path, engine=options.engine, workers=workers, threads=options.threads
            ),
        )
        self.core = Core(
            self.repository, Scheduler(workers, options.max_queue), options.max_message_bytes
        )
        self._listeners: list[GrpcListener | HttpListener] = []

    def start(self) -> None:
        listeners: list[GrpcListener | HttpListener] = []
        if self.options.port:
            listeners.append(GrpcListener(self.core, self.options))
        if self.options.rest_api_port:
            listeners.append(HttpListener(self.core, self.options))
        failures = [event for event in self.repository.refresh() if event.failed]
        if not any(model.available() for model in self.repository.models.values()):
            reasons = "; ".join(event.text for event in failures)
            raise ArtifactError(
                f"{self.options.base_path}: "
                f"{reasons or 'none of the versions there is one that the policy wants'}"
            )
        for event in failures:
            event.log()
        for listener in listeners:
            listener.start()
            self._listeners.append(listener)
        if self.options.file_system_poll_wait_seconds:
            self.repository.watch(self.options.file_system_poll_wait_seconds)

    def stop(self) -> None:
        """Take no new requests, let those in flight end, at most `drain_seconds` of them."""
        deadline = time.monotonic() + self.options.drain_seconds
        draining = [listener.drain(self.options.drain_seconds) for listener in self._listeners]
        for stopped in draining:
            stopped.wait(max(0.0, deadline - time.monotonic()) + 1)
        self._listeners.clear()
        self.repository.close()

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
        for model in self.repository.models.values():
            for number in model.available():
                with self.repository.lease(model.name, number) as lease:
                    servable = lease.servable
                    lines.append(
                        f"{model.name} version {number}: {servable.engine} ({servable.kernel}), "
                        f"{len(servable.artifact.labels)} classes, {self.core.scheduler.workers} "
                        f"workers, loaded in {servable.seconds:.2f} s"
                    )
        host, names = self.options.host, ", ".join(self.repository.models)
        if self.options.port:
            lines.append(f"gRPC at {host}:{self.options.port} (PredictionService; models: {names})")
        if self.options.rest_api_port:
            base = f"http://{host}:{self.options.rest_api_port}/v1/models"
            lines += [f"REST at {base}/{name}" for name in self.repository.models]
        return lines


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
    """Serve until SIGTERM or SIGINT, then drain and return. A second signal ends at once.

    announce is given each line that says what is served and where. Call it from the main thread.
    """
    server = Server(options)
    server.start()
    _log_to_stderr()
    with _signals() as signals:
        for line in server.describe():
            announce(line)
        name = signal.Signals(signals.get()).name
    announce(f"{name}: finishing the requests in flight")
    server.stop()
    announce("stopped")


def _log_to_stderr() -> None:
    """Let what happens to versions from now on be seen: loaded, refused, let go."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


@contextmanager
def _signals() -> Iterator[SimpleQueue]:
    """A queue that receives SIGTERM and SIGINT; `put` is safe in a signal handler."""
    received: SimpleQueue[int] = SimpleQueue()
    before = {
        number: signal.signal(number, lambda number, frame: received.put(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
