"""What a server is told at the start, by tensorflow_model_server's names where it has them.

Plain data: importing this file costs nothing, so `striate serve --help` may.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate.errors import UsageError
from striate.serve.processors import processors

MEBIBYTE = 1 << 20
LONGEST = 1 << 31  # seconds that every system can wait


@dataclass(frozen=True)
class VersionPolicy:
    """Which of a model's versions on disk are served at the same time.

    kind: `latest` (the `count` highest numbers), `all`, or `specific` (the numbers in `versions`).
    A request that names no version is answered by the highest one that is loaded.

    >>> VersionPolicy("latest", count=2).choose([1, 2, 5])
    {2, 5}
    """

    kind: str = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "VersionPolicy":
        """The policy written `latest`, `latest:N`, `all`, or as numbers: `3` or `3,5`."""
        word, _, number = text.strip().partition(":")
        if word == "all" and not number:
            return cls("all")
        if word == "latest" and (not number or (number.isdecimal() and int(number) > 0)):
            return cls("latest", count=int(number or 1))
        numbers = [part.strip() for part in text.split(",")]
        if all(part.isdecimal() for part in numbers):
            return cls("specific", versions=tuple(int(part) for part in numbers))
        raise UsageError(
            f"expected a version policy latest, latest:N, all or numbers (3,5), got {text!r}"
        )

    def choose(self, numbers: list[int]) -> set[int]:
        """Those of `numbers`, the versions that could be served, that this policy wants."""
        if self.kind == "all":
            return set(numbers)
        if self.kind == "specific":
            return set(numbers) & set(self.versions)
        return set(sorted(numbers)[-self.count :])


def is_name(text: str) -> bool:
    """Whether a model can be called so: in requests, in lines of the log, in the metrics."""
    return bool(text) and text.isprintable()


@dataclass(frozen=True)
class Sampling:
    """The share of a model's requests that is logged, from 0 to 1, and what the names of the files
    begin with, below `request_log_dir` unless it is absolute; empty for the model's name."""

    share: float
    prefix: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve: what requests call it, where its versions are, which of them, by what
    labels (label -> version) they can be asked as well; what is logged, None for what is of all."""

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: dict[str, int] = field(default_factory=dict)
    logged: Sampling | None = None


def flag(
    default: Any, group: str, help: str, *, kind: type | None = None, unit: str | None = None
) -> Any:
    """A field of `ServerOptions` and the flag of `striate serve` with its name.

    kind: of its value, where the default is None. unit: what the help calls the value.
    """
    kind = type(default) if kind is None else kind
    about = {"group": group, "help": help, "kind": kind, "unit": unit}
    return field(default=default, metadata=about)


MODELS, PORTS, COMPUTE, BATCHING, LIMITS = "Models", "Ports", "Compute", "Batching", "Limits"
OBSERVING = "Keys and logs"


@dataclass(frozen=True)
class ServerOptions:
    """Everything that `striate serve` can be told: each field is a flag, its help beside it.

    model_base_path: a model directory (versions 1, 2, ... in it), one version directory (only that
    version is served), or a directory of model directories (all of them are served).
    """

    model_base_path: str | os.PathLike = flag(
        "", MODELS, "a model directory, a version in one, or a directory of models", kind=str
    )
    model_name: str | None = flag(
        None, MODELS, "what requests call the model [its directory's name]", kind=str
    )
    model_config_file: str = flag(
        "", MODELS, "several models, by a ModelServerConfig in protobuf's text format"
    )
    model_config_file_poll_wait_seconds: float = flag(
        0.0, MODELS, "how often that file is read again; 0: only once"
    )
    version_policy: VersionPolicy = flag(
        VersionPolicy(), MODELS, "versions to serve: latest, latest:N, all, or numbers: 3,5"
    )
    canary: str = flag("", MODELS, "versions for shares of the clients: MODEL:LABEL=PERCENT,...")
    canary_max_errors: float = flag(
        5.0,
        MODELS,
        "hold a canary that fails for so many more of 100 requests than the first label",
        unit="PERCENT",
    )
    canary_min_agreement: float = flag(
        0.0, MODELS, "or whose shadow has the same best class less often", unit="PERCENT"
    )
    canary_max_distance: float = flag(
        1.0, MODELS, "or whose shadow's scores differ by more, in the mean", unit="SCORE"
    )
    canary_min_requests: int = flag(50, MODELS, "requests, or items, that such a judgement takes")
    shadow: str = flag("", MODELS, "versions that are only compared: MODEL:LABEL=PERCENT,...")
    file_system_poll_wait_seconds: float = flag(
        1.0, MODELS, "how often to look for versions; 0: only once"
    )
    allow_version_labels_for_unavailable_models: bool = flag(
        False, MODELS, "let a new label name a version that is not loaded yet"
    )
    max_num_load_retries: int = flag(
        5, MODELS, "how often a version that failed to load is tried again"
    )
    load_retry_interval_micros: int = flag(60_000_000, MODELS, "and after how long")
    num_load_threads: int = flag(0, MODELS, "versions that are loaded at the same time; 0: one")
    enable_model_warmup: bool = flag(
        True, MODELS, "replay assets.extra/tf_serving_warmup_requests before a version is served"
    )
    num_request_iterations_for_warmup: int = flag(1, MODELS, "how often each of them")
    saved_model_tags: str = flag(
        "serve", MODELS, "of the graph in a SavedModel that striate did not write, with commas"
    )
    prefer_tflite_model: bool = flag(
        False, MODELS, "of such a model, take model.tflite where there is one"
    )
    enable_signature_method_name_check: bool = flag(
        False, MODELS, "Classify and Regress only signatures whose method name says so"
    )
    port: int = flag(8500, PORTS, "gRPC; 0 for none")
    rest_api_port: int = flag(0, PORTS, "REST; 0 for none")
    host: str = flag("0.0.0.0", PORTS, "the address to listen on; 0.0.0.0 is every interface")
    reuse_port: bool = flag(
        False, PORTS, "share the ports with other servers that do, which take turns at connections"
    )
    grpc_socket_path: str = flag("", PORTS, "a UNIX socket for gRPC, beside the port")
    ssl_config_file: str = flag(
        "", PORTS, "TLS on all ports, by an SSLConfig in protobuf's text format"
    )
    rest_api_ssl: bool = flag(
        True, PORTS, "whether that holds for REST too; tensorflow_model_server's has no TLS"
    )
    rest_api_timeout_in_ms: int = flag(
        30_000, PORTS, "how long a REST request may wait once it is read; 0: for ever"
    )
    rest_api_num_threads: int | None = flag(
        None, PORTS, "that answer REST [enough to fill the queue]", kind=int
    )
    rest_api_enable_cors_support: bool = flag(False, PORTS, "let pages of other sites ask")
    grpc_max_threads: int | None = flag(
        None, PORTS, "that answer gRPC [enough to fill the queue]", kind=int
    )
    grpc_channel_arguments: str = flag(
        "", PORTS, "of the gRPC server: grpc.max_connection_age_ms=2000,..."
    )
    enable_serialization_as_tensor_content: bool = flag(
        False, PORTS, "answer Predict with tensor_content instead of typed values"
    )
    monitoring_config_file: str = flag(
        "", PORTS, "metrics at its path too, by a MonitoringConfig in protobuf's text format"
    )
    access_log: str = flag(
        "", OBSERVING, "a file for one line of JSON a call; - for standard output"
    )
    request_log_dir: str = flag(
        "", OBSERVING, "a directory for a sample of requests and answers, as PredictionLog"
    )
    request_log_sampling_rate: float = flag(
        0.01,
        OBSERVING,
        "the share of requests in it, from 0 to 1, of models without a logging_config",
        unit="SHARE",
    )
    tracing: bool = flag(
        False, OBSERVING, "spans of calls for OpenTelemetry, sent as its environment variables say"
    )
    api_keys_file: str = flag(
        "", OBSERVING, "who may ask which models, in YAML; without it, everybody all"
    )
    engine: str | None = flag(
        None,
        COMPUTE,
        "onnx, litert, packed, openvino, tensorflow or keras, of rounded forms onnx-int8, "
        "litert-int8 or litert-float16; auto races the quick ones "
        "[the first that the version holds and that is installed]",
        kind=str,
    )
    workers: int | None = flag(None, COMPUTE, "calls that compute at once [one a core]", kind=int)
    threads: int = flag(1, COMPUTE, "of one call")
    tensorflow_session_parallelism: int = flag(0, COMPUTE, "the same, by TensorFlow's name")
    tensorflow_intra_op_parallelism: int = flag(0, COMPUTE, "the same")
    tensorflow_inter_op_parallelism: int = flag(
        0, COMPUTE, "operators of one call at a time, of SavedModels that striate did not write"
    )
    tensorflow_session_config_file: str = flag(
        "", COMPUTE, "of the same, a ConfigProto in protobuf's text format"
    )
    enable_batching: bool = flag(
        False, BATCHING, "compute requests together; on a CPU, one call a core is faster"
    )
    batching_parameters_file: str = flag(
        "", BATCHING, "how, by BatchingParameters in protobuf's text format"
    )
    max_queue: int = flag(64, LIMITS, "requests that may wait; more are refused at once")
    max_message_bytes: int = flag(
        64 * MEBIBYTE, LIMITS, "of one request, encoded or decoded, gRPC or REST"
    )
    max_connections: int = flag(
        1000, LIMITS, "connections of each protocol, and calls over gRPC; more are refused at once"
    )
    stall_seconds: float = flag(
        30.0, LIMITS, "that a client may pause within a request, or take for headers; 0: for ever"
    )
    drain_seconds: float = flag(30.0, LIMITS, "for requests in flight after SIGTERM")

    def __post_init__(self) -> None:
        if self.host[:1] == "[" and self.host[-1:] == "]":  # as an IPv6 address is in a URL
            object.__setattr__(self, "host", self.host[1:-1])
        _expect(self.host, "host", "that is an address or a name", self)
        for name in ("port", "rest_api_port"):
            _expect(0 <= getattr(self, name) <= 65535, name, "from 0 to 65535", self)
        ports = self.port or self.rest_api_port or self.grpc_socket_path
        _expect(ports, "port", "or rest_api_port other than 0", self)
        apart = not self.port or self.port != self.rest_api_port
        _expect(apart, "port", "other than rest_api_port", self)
        models = str(self.model_base_path) or self.model_config_file
        _expect(models, "model_base_path", "that is a directory", self)
        named = self.model_name is None or is_name(self.model_name)
        _expect(named, "model_name", "of characters that can be printed, at least one", self)
        threads = ("threads", "workers", "rest_api_num_threads", "grpc_max_threads")
        for name in (*threads, "max_message_bytes", "max_connections", "canary_min_requests"):
            value = getattr(self, name)
            _expect(value is None or value >= 1, name, "of at least 1", self)
        waits = (
            "file_system_poll_wait_seconds",
            "model_config_file_poll_wait_seconds",
            "drain_seconds",
            "stall_seconds",
        )
        for name in (*waits, "max_queue", "rest_api_timeout_in_ms", "max_num_load_retries"):
            _expect(getattr(self, name) >= 0, name, "of at least 0", self)
        for name in waits:
            _expect(getattr(self, name) <= LONGEST, name, f"of at most {LONGEST}", self)
        for name in ("canary_max_errors", "canary_min_agreement"):
            _expect(0 <= getattr(self, name) <= 100, name, "from 0 to 100", self)
        _expect(0 <= self.canary_max_distance <= 1, "canary_max_distance", "from 0 to 1", self)
        rate = self.request_log_sampling_rate
        _expect(0 <= rate <= 1, "request_log_sampling_rate", "from 0 to 1", self)
        if self.batching_parameters_file and not self.enable_batching:
            raise UsageError("You supplied --batching_parameters_file without --enable_batching")

    @property
    def base_path(self) -> Path:
        return Path(self.model_base_path)

    @property
    def worker_count(self) -> int:
        return self.workers or processors()

    @property
    def thread_count(self) -> int:
        """Threads of one call, by whichever name they were given."""
        named = (self.tensorflow_intra_op_parallelism, self.tensorflow_session_parallelism)
        return next((count for count in named if count), self.threads)


def _expect(holds: object, name: str, wanted: str, options: ServerOptions) -> None:
    if not holds:
        raise UsageError(f"expected {name} {wanted}, got {getattr(options, name)!r}")
