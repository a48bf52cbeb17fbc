"""From a version's directory to a servable: whose it is, which engine answers, and its warm-up."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from striate.artifact import MANIFEST
from striate.errors import ArtifactError, UsageError
from striate.serve import protos
from striate.serve.core import Request, feeds_for, signature_for
from striate.serve.observe.counters import Loads
from striate.serve.options import ServerOptions
from striate.serve.protocols.tfs_messages import (
    about_examples,
    examples_request,
    predict_request,
    target_of,
)
from striate.serve.repository.foreign import SavedModelServable, TensorFlowProcess
from striate.serve.repository.servable import Servable, open_artifact
from striate.serve.signatures import CLASSIFY, REGRESS
from striate.serve.status import Code, ServingError

WARMUP = "assets.extra/tf_serving_warmup_requests"
MOST_RECORDS = 1000


class Loader:
    """Opens versions as a server's options say, and takes note of warm-ups in `loads`."""

    def __init__(self, options: ServerOptions, loads: Loads | None = None):
        self._options, self._loads = options, loads or Loads()
        self._tensorflow = TensorFlowProcess(options.worker_count)  # begins with its first model

    def open(self, path: Path) -> Servable:
        """Load the version in a directory, prove it, and warm it up.

        Raises `ArtifactError` and its kin for one that is not fit to be served.
        """
        options = self._options
        servable = self._open(path)
        try:
            if options.enable_model_warmup:
                start = time.monotonic()
                times = max(1, options.num_request_iterations_for_warmup)
                if count := warm_up(path, servable, times):
                    self._loads.warmed(str(path), time.monotonic() - start, count)
        except Exception:
            servable.close()
            raise
        return servable

    def _open(self, path: Path) -> Servable:
        options, workers = self._options, self._options.worker_count
        lite = path / "model.tflite"
        if (path / MANIFEST).is_file():
            lite_first = "litert" if options.prefer_tflite_model and lite.is_file() else None
            return open_artifact(
                path,
                engine=options.engine or lite_first,
                workers=workers,
                threads=options.thread_count,
            )
        if lite.is_file() and (options.prefer_tflite_model or not _has_graph(path)):
            from striate.serve.repository.foreign_lite import LiteRtServable

            return LiteRtServable(lite, workers=workers, threads=options.thread_count)
        if not _has_graph(path):
            from striate.serve.repository.foreign_onnx import OnnxServable

            return OnnxServable(path / "model.onnx", threads=options.thread_count)
        session = {
            "threads": options.thread_count,
            "inter_threads": options.tensorflow_inter_op_parallelism or 1,
            "tags": options.saved_model_tags.split(","),
            "config": _text(options.tensorflow_session_config_file),
        }
        return SavedModelServable(self._tensorflow, path, session)


def _has_graph(path: Path) -> bool:
    return (path / "saved_model.pb").is_file()


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8") if path else ""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def warm_up(path: Path, servable: Servable, times: int) -> int:
    """Answer the requests that a version brings for this, each so many times; returns their number.

    Raises `ArtifactError` for a record that cannot be read or is not answered.
    """
    file = path / WARMUP
    number = -1
    if not file.is_file():
        return 0
    for number, record in enumerate(records(file)):
        if number == MOST_RECORDS:
            raise ArtifactError(
                f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}"
            )
        try:
            entry = protos.prediction_log_pb2.PredictionLog.FromString(record)
            for _ in range(times):
                replay(servable, entry)
        except Exception as error:
            raise ArtifactError(f"{file}: warm-up record {number} is refused ({error})") from error
    return number + 1


def replay(servable: Servable, entry: Any) -> None:
    """Answer the request of a PredictionLog, as if it had come over the network."""
    kind = entry.WhichOneof("log_type")
    if kind not in ("predict_log", "classify_log", "regress_log", "multi_inference_log"):
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    for asked in _requests(getattr(entry, kind).request, kind):
        signature = signature_for(servable.signatures, asked)
        feeds, _ = feeds_for(servable, signature, asked, max_bytes=1 << 40)
        servable.run(signature.ask, feeds)


def _requests(request: Any, kind: str) -> list[Request]:
    if kind == "predict_log":
        return [predict_request(request, max_bytes=1 << 40)]
    if kind == "multi_inference_log":
        return [
            about_examples(request.input, target_of(task), task.model_spec.signature_name)
            for task in request.tasks
        ]
    method = CLASSIFY if kind == "classify_log" else REGRESS
    return [replace(examples_request(request), method=method)]


def records(file: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, the bytes, their checksum.

    The checksums are not verified: what is damaged is no PredictionLog. Raises `ArtifactError` for
    a file that ends before its last record does, or is none of these at all.
    """
    with file.open("rb") as stream:
        while header := stream.read(12):
            length = int.from_bytes(header[:8], "little")
            left = os.fstat(stream.fileno()).st_size - stream.tell()
            if length + 4 > left:  # before memory is taken for it
                raise ArtifactError(f"{file}: expected TFRecords, whole ones; one is cut off")
            yield stream.read(length)
            stream.read(4)
