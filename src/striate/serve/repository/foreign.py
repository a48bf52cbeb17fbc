"""Models that striate did not write: SavedModels with signatures of their own.

They have no manifest, so they are proven by what they bring: they load, and their warm-up requests
are answered. All of them compute in one other process (`striate.runtime.session`), because an input
can end TensorFlow's process; it is started again then, and the requests it took with it are told.
"""

import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from striate.errors import ArtifactError
from striate.runtime.session import Channel
from striate.serve import protos, tensors
from striate.serve.signatures import PREDICT, Signature, Tensors, TensorSpec
from striate.serve.status import Code, ServingError

log = logging.getLogger("striate.serve")

INIT = "__saved_model_init_op"  # what prepares the graph is no question


class TensorFlowProcess:
    """TensorFlow in a process of its own, from the first model that is loaded to the last.

    workers: questions that it answers at a time.
    """

    def __init__(self, workers: int):
        self._workers = workers
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._pending: dict[int, Future] = {}
        self._models: dict[int, tuple[str, dict[str, Any]]] = {}
        self._channel: Channel | None = None

    def load(self, directory: Path, options: dict[str, Any]) -> tuple[int, dict[str, bytes], str]:
        """A model's key, its SignatureDefs, and the kernel that answers.

        Raises `ArtifactError` when TensorFlow cannot load it.
        """
        key = next(self._numbers)
        with self._lock:
            self._models[key] = (str(directory), options)
            if self._channel is None:
                self._start()
        try:
            definitions, kernel = self.ask("load", key, str(directory), options)
        except ServingError as error:
            self._forget(key)
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{directory}: TensorFlow cannot load it ({reason})") from None
        return key, definitions, kernel

    def close(self, key: int) -> None:
        """Let go of a model, and of the process with the last one."""
        if not self._forget(key):
            with contextlib.suppress(ServingError):  # it just ended, and the model with it
                self.ask("close", key)

    def _forget(self, key: int) -> bool:
        """Whether that was the last model; then the process is ended."""
        with self._lock:
            del self._models[key]
            if not self._models:
                self._stop()
            return not self._models

    def ask(self, *message: Any) -> Any:
        """What the process answers; `ServingError` with what it says instead."""
        number, answer = next(self._numbers), Future[Any]()
        with self._lock:
            if self._channel is None:
                raise ServingError(
                    Code.UNAVAILABLE, "TensorFlow is being started again; try again later"
                )
            self._pending[number] = answer
            with contextlib.suppress(OSError):  # it just ended: `_read` fails what is pending
                self._channel.send((number, *message))
        value, *text = answer.result()
        if text:
            raise ServingError(Code(value), text[0])
        return value

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "striate.runtime.session",
                str(theirs.fileno()),
                str(self._workers),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the server, which drains first
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        theirs.close()
        self._channel = Channel(ours)
        threading.Thread(target=self._read, args=(self._channel,), daemon=True).start()

    def _stop(self) -> None:
        with self._lock:
            stopped, self._channel = self._channel, None
            if stopped is not None:
                stopped.close()
                self._process.kill()
                self._process.wait()

    def _read(self, channel: Channel) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, *answer = channel.recv()
                self._pending.pop(number).set_result(answer)
        with self._lock:
            if channel is not self._channel:
                return  # it was stopped
            self._stop()
            lost, self._pending = self._pending, {}
        message = f"TensorFlow's process ended ({self._process.returncode}) on this request"
        for answer in lost.values():
            answer.set_result((Code.INTERNAL, message))
        self._restart()

    def _restart(self) -> None:
        log.error("TensorFlow's process ended (%s); it is started again", self._process.returncode)
        with self._lock:
            models = dict(self._models)
            if models and self._channel is None:
                self._start()
        for key, (directory, options) in models.items():
            try:
                self.ask("load", key, directory, options)
            except ServingError as error:
                log.error("%s: TensorFlow cannot load it again (%s)", directory, error)


class SavedModelServable:
    """A SavedModel in TensorFlow's process.

    options: of `striate.runtime.session.Session`.
    """

    engine = "tensorflow"
    item_bytes = 0
    artifact = None
    difference: float | None = None
    labels: list[str] = []  # noqa: RUF012

    def __init__(self, process: TensorFlowProcess, directory: Path, options: dict[str, Any]):
        start = time.monotonic()
        self._process = process
        self._key, definitions, self.kernel = process.load(directory, options)
        self.signatures = signatures_in(definitions)
        self.seconds = time.monotonic() - start

    def run(self, ask: str, feeds: Tensors) -> Tensors:
        return self._process.ask("run", self._key, ask, feeds)

    def close(self) -> None:
        self._process.close(self._key)


def signatures_in(definitions: dict[str, bytes]) -> dict[str, Signature]:
    """Signatures of serialized SignatureDefs; those with tensors that no protocol carries are left
    out."""
    found = {}
    for name, serialized in definitions.items():
        definition = protos.meta_graph_pb2.SignatureDef.FromString(serialized)
        try:
            if name != INIT:
                found[name] = signature_of(name, definition)
        except KeyError as error:
            log.warning("signature %s is not served: dtype %s is not supported", name, error)
    return found


def signature_of(name: str, definition: Any) -> Signature:
    """A SignatureDef as a signature; `KeyError` for a dtype that is not supported."""
    return Signature(
        name,
        definition.method_name or PREDICT,
        {alias: spec_of(info) for alias, info in definition.inputs.items()},
        {alias: spec_of(info) for alias, info in definition.outputs.items()},
        ask=name,
        defaults={
            alias: tensors.from_proto(proto, max_bytes=1 << 30)
            for alias, proto in definition.defaults.items()
        },
        exact=False,
        definition=definition,
    )


def spec_of(info: Any) -> TensorSpec:
    """dtype and shape of a TensorInfo."""
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
    return TensorSpec(tensors.dtype_of(info.dtype), sizes, info.name)
