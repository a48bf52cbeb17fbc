"""A sample of the requests and their answers, as PredictionLog in TFRecord files.

    DIRECTORY/MODEL-20261121T180000.000000.tfrecord

What share is kept, and where, a model's `logging_config` says, else the directory and the share of
all models.

Whatever protocol brought a request, it is logged as the Predict that would ask the same, so a file
can be replayed (`serving/replay.py`) or put into a version as its warm-up. A thread of its own
writes: where it cannot keep up, or the disk is full, records are lost and counted, and requests go
on. Files are begun anew at `FILE_BYTES`; of each model the last `FILES` are kept.
"""

import errno
import os
import random
import struct
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from queue import Queue
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from striate.errors import UsageError
from striate.serve import protos, tensors
from striate.serve.behind import Behind
from striate.serve.options import ModelConfig, Sampling
from striate.serve.seldom import Seldom
from striate.serve.signatures import Tensors
from striate.serve.status import Code, invalid

FILE_BYTES = 64 << 20
FILES = 16
WAITING = 64  # requests that are not written yet; more are lost, for they hold pictures


class Logged(NamedTuple):
    """A request that was answered: who by, when (`time.time()`), and the tensors of both."""

    model: str
    version: int
    signature: str
    time: float
    inputs: Tensors
    outputs: Tensors


class RequestLog:
    """Writes a share of the requests, from 0 to 1, under a directory; none where that is empty.

    counts: how many records were written (OK) and lost (UNAVAILABLE), by model. Raises `UsageError`
    for a directory that cannot be written to.
    """

    def __init__(
        self,
        directory: str | Path,
        share: float,
        *,
        file_bytes: int = FILE_BYTES,
        files: int = FILES,
    ):
        self._directory = Path(directory) if str(directory) else None
        self._file_bytes, self._files = file_bytes, files
        self._of_all = Sampling(share if self._directory else 0.0)
        self._of: dict[str, Sampling] = {}
        self._current: dict[Path, Path] = {}
        self.counts: Counter[tuple[str, Code]] = Counter()
        if self._directory is not None:
            _make(self._directory)
        self._log = Seldom()
        self._behind = Behind("request-log", WAITING, self._work)

    def configure(self, configs: Iterable[ModelConfig]) -> None:
        """Log models as their configurations say, and those that say nothing like all.

        Raises `ServingError` (INVALID_ARGUMENT) for one that says nothing of where.
        """
        found = {config.name: config.logged for config in configs if config.logged is not None}
        for name, sampling in found.items():
            if (
                sampling.share
                and self._directory is None
                and not Path(sampling.prefix).is_absolute()
            ):
                raise invalid(
                    f"Model {name}: expected an absolute filename_prefix in its logging_config, or "
                    f"--request_log_dir, got {sampling.prefix!r}"
                )
        self._of = found

    def sample(self, model: str) -> Sampling | None:
        """How the next request of a model is to be logged; None where it is not of the sample."""
        sampling = self._of.get(model, self._of_all)
        return sampling if random.random() < sampling.share else None

    def write(self, logged: Logged, sampling: Sampling) -> None:
        """Have a request of the sample written; never waits."""
        if not self._behind.offer((logged, sampling)):
            self.counts[logged.model, Code.UNAVAILABLE] += 1

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for so many seconds at most."""
        self._behind.close(seconds)

    def _work(self, waiting: Queue[tuple[Logged, Sampling] | None]) -> None:
        while (entry := waiting.get()) is not None:
            logged, sampling = entry
            stem = self._stem(logged.model, sampling)
            try:
                self._append(stem, record(encoded(logged, sampling.share)))
                self.counts[logged.model, Code.OK] += 1
            except Exception as error:  # a full disk, a tensor that has no proto: the next goes on
                self.counts[logged.model, Code.UNAVAILABLE] += 1
                self._log.warn("request log %s: a record is lost (%s)", stem, error)

    def _stem(self, model: str, sampling: Sampling) -> Path:
        """What the paths of a model's files begin with."""
        return (self._directory or Path()) / (sampling.prefix or quote(model, safe=""))

    def _append(self, stem: Path, data: bytes) -> None:
        path = self._current.get(stem)
        size = path.stat().st_size if path is not None and path.exists() else None
        if path is None or size is None or size + len(data) > self._file_bytes:
            path, size = self._next(stem), 0
        with path.open("ab", buffering=0) as file:
            if file.write(data) < len(data):
                file.truncate(size)  # half a record would spoil what follows
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _next(self, stem: Path) -> Path:
        """A new file of those that begin alike; the oldest of them go."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        path = stem.with_name(f"{stem.name}-{now}.tfrecord")
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = sorted(stem.parent.glob(f"{escape(stem.name)}-????????T??????.??????.tfrecord"))
        for old in mine[: max(0, len(mine) + 1 - self._files)]:
            old.unlink(missing_ok=True)
        self._current[stem] = path
        return path


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"request_log_dir {directory}: {error.strerror}") from None
    if not os.access(directory, os.W_OK):
        raise UsageError(f"request_log_dir {directory}: cannot be written")


def encoded(logged: Logged, share: float) -> bytes:
    """A PredictionLog of a request and its answer."""
    entry = protos.prediction_log_pb2.PredictionLog()
    entry.log_metadata.sampling_config.sampling_rate = share
    entry.log_metadata.timestamp_secs = int(logged.time)
    predict = entry.predict_log
    for spec in (
        entry.log_metadata.model_spec,
        predict.request.model_spec,
        predict.response.model_spec,
    ):
        spec.name, spec.signature_name = logged.model, logged.signature
    # The request names no version: replayed, or as a warm-up, it asks the one that is there
    predict.response.model_spec.version.value = logged.version
    entry.log_metadata.model_spec.version.value = logged.version
    _fill(predict.request.inputs, logged.inputs)
    _fill(predict.response.outputs, logged.outputs)
    return entry.SerializeToString()


def _fill(messages, arrays: Tensors) -> None:
    for name, array in arrays.items():
        write = tensors.to_proto if array.dtype.kind == "O" else tensors.to_content
        messages[name].CopyFrom(write(array))


def record(data: bytes) -> bytes:
    """Bytes as a record of a TFRecord file: length, its checksum, the bytes, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


LANES = 1024  # parts of the data whose checksums are taken side by side


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of at least four bytes, by numpy: a picture's in a millisecond.

    The state after a byte is linear in the state before it and in the byte. So the parts of the
    data can be summed apart, each from 0, and joined: what comes before a part goes through as many
    zero bytes as the part is long. What that does to each of the 32 bits of a state is found on the
    way, in 32 more lanes.
    """
    data = bytes(255 - byte for byte in data[:4]) + data[4:]  # the state begins as ones
    size = -(-len(data) // LANES)
    parts = np.frombuffer(data.rjust(size * LANES, b"\0"), np.uint8).reshape(LANES, size)
    columns = np.vstack([parts, np.zeros((32, size), np.uint8)]).T
    states = np.concatenate([np.zeros(LANES, np.uint32), np.uint32(1) << np.arange(32, dtype="u4")])
    for column in columns:
        states = _TABLE[(states ^ column) & 255] ^ (states >> 8)
    found, zeros = states[:LANES], states[LANES:]
    while len(found) > 1:
        found = _through(zeros, found[::2]) ^ found[1::2]
        zeros = _through(zeros, zeros)
    return int(found[0]) ^ 0xFFFFFFFF


def _through(zeros: np.ndarray, states: np.ndarray) -> np.ndarray:
    """States after the zero bytes that do `zeros[i]` to bit i."""
    bits = (states[:, np.newaxis] >> np.arange(32, dtype=np.uint32)) & 1
    return np.bitwise_xor.reduce(np.where(bits, zeros, np.uint32(0)), axis=1)


def _table() -> np.ndarray:
    states = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        states = np.where(states & 1, (states >> 1) ^ np.uint32(0x82F63B78), states >> 1)
    return states


_TABLE = _table()
