"""TensorFlow Serving's protobuf messages, without TensorFlow.

`tensorflow_serving.apis` imports `tensorflow.core.*`, and that runs TensorFlow's own `__init__`
first: 10 seconds and 700 MB for messages that weigh 39 MB and load in a third of a second. The
messages themselves need nothing of it. So while they are imported, and no longer, the name
`tensorflow` stands for a bare package that only knows the folder to look in.

Afterwards the name is free again: a process may import the real TensorFlow later (the tensorflow
engine does) and shares these very message classes with it. Where TensorFlow is imported already,
nothing of this happens.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

from striate.libraries import need

_one_at_a_time = threading.Lock()


@contextmanager
def _bare_tensorflow() -> Iterator[None]:
    """Let `tensorflow.core.*` be imported without running TensorFlow's own __init__."""
    with _one_at_a_time:
        if "tensorflow" in sys.modules:
            yield
            return
        need("serving", "tensorflow", "tensorflow_serving")
        found = find_spec("tensorflow")
        bare = ModuleType("tensorflow")
        bare.__path__ = list(found.submodule_search_locations or ()) if found else []
        sys.modules["tensorflow"] = bare
        try:
            yield
        finally:
            if sys.modules.get("tensorflow") is bare:
                del sys.modules["tensorflow"]


with _bare_tensorflow():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        input_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "classification_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "tensor_pb2",
    "types_pb2",
]
