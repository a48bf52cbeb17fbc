"""The small configuration files of tensorflow_model_server, in protobuf's text format.

Their messages are not among the modules of tensorflow-serving-api, so they are described here:
BatchingParameters, SSLConfig and MonitoringConfig, by the names and numbers of their fields.
"""

from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from striate.errors import UsageError

_INT64, _BOOL, _STRING = 3, 8, 9  # FieldDescriptorProto.Type
_MESSAGE = 11
_PACKAGE = "striate.serve.config"

# message -> its fields in the order of their numbers: name and type
_MESSAGES: dict[str, dict[str, int | str]] = {
    "BatchingParameters": {
        "max_batch_size": "google.protobuf.Int64Value",
        "batch_timeout_micros": "google.protobuf.Int64Value",
        "max_enqueued_batches": "google.protobuf.Int64Value",
        "num_batch_threads": "google.protobuf.Int64Value",
        "thread_pool_name": "google.protobuf.StringValue",
        "allowed_batch_sizes": _INT64,  # repeated
        "pad_variable_length_inputs": _BOOL,
        "enable_large_batch_splitting": "google.protobuf.BoolValue",
        "max_execution_batch_size": "google.protobuf.Int64Value",
    },
    "SSLConfig": {
        "server_key": _STRING,
        "server_cert": _STRING,
        "custom_ca": _STRING,
        "client_verify": _BOOL,
    },
    "PrometheusConfig": {"enable": _BOOL, "path": _STRING},
    "MonitoringConfig": {"prometheus_config": f"{_PACKAGE}.PrometheusConfig"},
}
_REPEATED = ("allowed_batch_sizes",)


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="striate/serve/config.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            described = message.field.add(name=field, number=number)
            described.label = 3 if field in _REPEATED else 1
            if isinstance(kind, str):
                described.type, described.type_name = _MESSAGE, f".{kind}"
            else:
                described.type = kind
    return file


_POOL = descriptor_pool.Default()
_POOL.Add(_described())


def read(path: str | Path, name: str) -> Any:
    """The message `name` in a text file; `UsageError` for a file that is not one."""
    kind = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
    try:
        return text_format.Parse(Path(path).read_text("utf-8"), kind())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Error parsing text-format tensorflow.serving.{name}: {path}:{error}"
        ) from None
