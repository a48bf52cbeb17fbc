"""SavedModels that striate did not write, as TensorFlow Serving runs them: signatures and tensors.

    python -m striate.runtime.session FD WORKERS

is a process of its own that a server starts and asks over a socket. Some tensors end TensorFlow's
whole process (a picture without its batch dimension, through oneDNN); this way they end only this
one. It ends when the other end of the socket closes, so a server that is killed leaves no child
behind.

A message is (number, verb, ...) and its answer (number, value) or (number, code, text):

    load   key, directory, options of `Session`   -> serialized SignatureDefs by name, the kernel
    run    key, signature, tensors by name        -> tensors by name
    close  key                                    -> None
"""

import gc
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]

INTERNAL, UNAVAILABLE = 13, 14


class Refused(Exception):
    """What TensorFlow said to a question: its code (google.rpc.Code) and its message."""

    def __init__(self, code: int, message: str):
        super().__init__(code, message)
        self.code, self.message = code, message


class Channel:
    """Messages over a socket. Tensors travel as they lie in memory, beside what names them.

    A message is the number of its parts, their lengths, and the parts: a pickle and its buffers.
    """

    def __init__(self, end: socket.socket):
        self._end = end

    def send(self, message: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, 5, buffer_callback=buffers.append)
        parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
        self._end.sendall(struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(len, parts)))
        for part in parts:
            self._end.sendall(part)

    def recv(self) -> Any:
        """The next message; `EOFError` when there is none, because the other end closed."""
        (count,) = struct.unpack("<Q", self._read(8))
        lengths = struct.unpack(f"<{count}Q", self._read(8 * count))
        body, *buffers = [self._read(length) for length in lengths]
        return pickle.loads(body, buffers=buffers)

    def close(self) -> None:
        """Both ends see it, even while they read."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()

    def _read(self, size: int) -> bytearray:
        found = bytearray(size)
        rest = memoryview(found)
        while rest:
            count = self._end.recv_into(rest)
            if count == 0:
                raise EOFError
            rest = rest[count:]
        return found


class Session:
    """The meta graph of a SavedModel in a TensorFlow session; many threads may call `run`."""

    def __init__(
        self,
        directory: str | Path,
        *,
        tags: Sequence[str] = ("serve",),
        threads: int = 0,
        inter_threads: int = 0,
        config: str = "",
    ):
        from google.protobuf import text_format
        from tensorflow.core.protobuf import config_pb2
        from tensorflow.python.client import session
        from tensorflow.python.framework import errors_impl, ops, versions
        from tensorflow.python.saved_model import loader_impl

        settings = config_pb2.ConfigProto()
        text_format.Parse(config, settings)
        settings.intra_op_parallelism_threads = threads or settings.intra_op_parallelism_threads
        settings.inter_op_parallelism_threads = (
            inter_threads or settings.inter_op_parallelism_threads
        )
        settings.gpu_options.allow_growth = True
        self._error = errors_impl.OpError
        self._options = config_pb2.CallableOptions
        self._session = session.Session(graph=ops.Graph(), config=settings)
        with self._session.graph.as_default():
            loaded = loader_impl.load(self._session, list(tags), str(directory))
        self.definitions = dict(loaded.signature_def)
        devices = {device.device_type for device in self._session.list_devices()}
        self.kernel = f"tensorflow {versions.__version__} {'gpu' if 'GPU' in devices else 'cpu'}"
        self._callable = cache(self._make_callable)

    def _make_callable(self, name: str) -> Any:
        """The signature as a call of the session itself: `Session.run` of Python would check the
        shapes that a graph declares, which TensorFlow Serving does not."""
        definition = self.definitions[name]
        options = self._options(
            feed=[info.name for info in definition.inputs.values()],
            fetch=[info.name for info in definition.outputs.values()],
        )
        return self._session._make_callable_from_options(options)

    def close(self) -> None:
        self._callable.cache_clear()
        self._session.close()

    def run(self, name: str, feeds: Tensors) -> Tensors:
        """The outputs of a signature; `Refused` with what TensorFlow says to the inputs."""
        definition = self.definitions[name]
        try:
            found = self._callable(name)(*(feeds[alias] for alias in definition.inputs))
        except self._error as error:
            raise Refused(error.error_code, error.message) from None
        return dict(zip(definition.outputs, map(np.asarray, found), strict=True))


class Sessions:
    """The models of this process, and the verbs that they are asked by."""

    def __init__(self) -> None:
        self._loaded: dict[int, Session] = {}

    def load(self, key: int, directory: str, options: dict[str, Any]) -> tuple[dict, str]:
        session = Session(directory, **options)
        self._loaded[key] = session
        definitions = {n: d.SerializeToString() for n, d in session.definitions.items()}
        return definitions, session.kernel

    def run(self, key: int, name: str, feeds: Tensors) -> Tensors:
        if key not in self._loaded:
            raise Refused(UNAVAILABLE, "The model is being loaded again; try again later")
        return self._loaded[key].run(name, feeds)

    def close(self, key: int) -> None:
        self._loaded.pop(key).close()
        gc.collect()


def serve(channel: Channel, workers: int) -> None:
    """Answer messages, `workers` at a time, until the socket ends."""
    sessions, turn = Sessions(), Lock()

    def answer(number: int, verb: str, *arguments: Any) -> None:
        try:
            found: tuple[Any, ...] = (number, getattr(sessions, verb)(*arguments))
        except Refused as error:
            found = (number, error.code, error.message)
        except Exception as error:  # whatever TensorFlow raises for a file that it cannot read
            found = (number, INTERNAL, str(error).strip() or repr(error))
        with turn:
            channel.send(found)

    with ThreadPoolExecutor(workers) as pool:
        while True:
            pool.submit(answer, *channel.recv())


def main() -> None:
    for number in ("SIGTERM", "SIGINT", "SIGHUP"):
        # systemd, say, sends one to every process of a service; the server still drains then, and
        # closes the socket when it has
        signal.signal(getattr(signal, number), signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    with _quiet():
        _take_only_sessions()
    try:
        serve(channel, int(sys.argv[2]))
    except (EOFError, OSError):
        os._exit(0)  # whoever asked is gone, and so may be what is still computed


def _take_only_sessions() -> None:
    """Import TensorFlow's sessions without its own __init__, which loads Keras and all that no
    session needs: a fifth of the time, and 240 MB less."""
    found = find_spec("tensorflow")
    bare = ModuleType("tensorflow")
    bare.__path__ = list(found.submodule_search_locations or ()) if found else []
    sys.modules["tensorflow"] = bare
    from tensorflow.python.client import session  # noqa: F401
    from tensorflow.python.platform import tf_logging

    tf_logging.set_verbosity(tf_logging.ERROR)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that TensorFlow's libraries write while they are loaded."""
    with open(os.devnull, "w") as null:
        kept = os.dup(2)
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


if __name__ == "__main__":
    main()
