"""The Open Inference Protocol over gRPC: `inference.GRPCInferenceService`."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict

from striate.serve.calls import current
from striate.serve.core import Core
from striate.serve.grpc_server import GrpcServer
from striate.serve.protocols import oip, oip_about
from striate.serve.protocols.oip_protos import SERVICE, message, service
from striate.serve.protocols.tfs_grpc import answered
from striate.serve.status import cut, invalid
from striate.serve.unforeseen import told

FINAL = "triton_final_response"  # the last one to a request of a stream; clients wait for it

# Datatype -> the field of InferTensorContents for its values; FP16 and BF16 travel raw only
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def register(
    core: Core, server: GrpcServer, retired: Callable[[], bool] = lambda: False
) -> tuple[str, ...]:
    """Add the service to a gRPC server; returns its name. retired: whether the latter is going."""
    servicer = InferenceService(core, retired)
    handlers = {method.name: _handler(method, servicer) for method in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return (SERVICE,)


def _handler(method: Any, servicer: "InferenceService") -> grpc.RpcMethodHandler:
    stream = method.client_streaming
    make = grpc.stream_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
    return make(
        getattr(servicer, method.name),
        request_deserializer=message(method.input_type.name).FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )


class InferenceService:
    """One method for each of the service's; the core answers, in Triton's words."""

    def __init__(self, core: Core, retired: Callable[[], bool]):
        self._core, self._retired = core, retired

    @answered
    def ServerLive(self, request, context):
        return message("ServerLiveResponse")(live=True)

    @answered
    def ServerReady(self, request, context):
        ready = self._core.repository.ready() and not self._retired()
        return message("ServerReadyResponse")(ready=ready)

    @answered
    def ModelReady(self, request, context):
        target = oip.target_of(request.name, request.version)
        return message("ModelReadyResponse")(ready=oip_about.model_ready(self._core, target))

    @answered
    def ServerMetadata(self, request, context):
        return ParseDict(oip_about.server_metadata(), message("ServerMetadataResponse")())

    @answered
    def ModelMetadata(self, request, context):
        found = oip_about.model_metadata(self._core, oip.target_of(request.name, request.version))
        return ParseDict(found, message("ModelMetadataResponse")())

    @answered
    def ModelConfig(self, request, context):
        found = oip_about.model_config(self._core, oip.target_of(request.name, request.version))
        return ParseDict({"config": found}, message("ModelConfigResponse")())

    @answered
    def ModelStatistics(self, request, context):
        target = oip.target_of(request.name, request.version)
        found = {"model_stats": oip_about.statistics(self._core, target)}
        return ParseDict(found, message("ModelStatisticsResponse")())

    @answered
    def RepositoryIndex(self, request, context):
        found = {"models": oip_about.repository_index(self._core, only_ready=request.ready)}
        return ParseDict(found, message("RepositoryIndexResponse")())

    @answered
    def RepositoryModelLoad(self, request, context):
        raise oip_about.control_refused()

    @answered
    def RepositoryModelUnload(self, request, context):
        raise oip_about.control_refused()

    @answered
    def ModelInfer(self, request, context):
        return self._infer(request, context)

    def ModelStreamInfer(self, requests, context) -> Iterator[Any]:
        """One answer for each request, in order; what goes wrong with one does not end the rest."""
        for request in requests:
            response = message("ModelStreamInferResponse")()
            try:
                response.infer_response.CopyFrom(self._infer(request, context))
                response.infer_response.parameters[FINAL].bool_param = True
            except Exception as error:
                response.error_message = cut(str(told(error, "ModelStreamInfer")))
                response.infer_response.id = request.id
            yield response

    def _infer(self, request, context) -> Any:
        current().named(request.id)
        raw = bool(request.raw_input_contents)
        left = context.time_remaining()
        asked = oip.Inference(
            oip.target_of(request.model_name, request.model_version),
            inputs=_inputs(request),
            outputs={
                output.name: oip.class_count(_parameters(output.parameters))
                for output in request.outputs
            },
            parameters=_parameters(request.parameters),
            deadline=None if left is None else time.monotonic() + left,
            gone=lambda: not context.is_active(),
        )
        found = oip.infer(self._core, asked)
        response = message("ModelInferResponse")(
            model_name=found.model, model_version=found.version, id=request.id
        )
        _fill(response, found.outputs, raw=raw)
        return response


def _inputs(request) -> list[oip.Input]:
    """The tensors of a request: all of them as raw bytes, or all as typed values."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(
            f"expected raw_input_contents for each of the {len(request.inputs)} inputs of model "
            f"'{request.model_name}', got {len(raw)}"
        )
    found = []
    for i, tensor in enumerate(request.inputs):
        if raw and tensor.HasField("contents"):
            raise invalid(
                "contents field must not be specified when using raw_input_contents for "
                f"'{tensor.name}' for model '{request.model_name}'"
            )
        read = partial(oip.from_raw, raw[i]) if raw else partial(_typed, tensor)
        found.append(oip.Input(tensor.name, tensor.datatype, tuple(tensor.shape), read))
    return found


def _typed(tensor, dtype: np.dtype) -> np.ndarray:
    """The typed values of a tensor; halves of floats have no field of their own."""
    if tensor.datatype not in _CONTENTS:
        raise ValueError(f"{tensor.datatype} travels in raw_input_contents")
    values = getattr(tensor.contents, _CONTENTS[tensor.datatype])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        wide = np.array(values, np.uint64 if dtype.kind == "u" else np.int64)
        if wide.size and not limits.min <= wide.min() <= wide.max() <= limits.max:
            raise ValueError(f"expected values from {limits.min} to {limits.max}")
        return wide.astype(dtype)
    return oip.objects(list(values)) if dtype.kind == "O" else np.array(values, dtype)


def _fill(response, outputs, *, raw: bool) -> None:
    """Write tensors as the request's were written, or raw where typed values cannot carry one."""
    raw = raw or any(oip.datatype(array.dtype) not in _CONTENTS for array in outputs.values())
    for name, array in outputs.items():
        word = oip.datatype(array.dtype)
        tensor = response.outputs.add(name=name, datatype=word, shape=array.shape)
        if raw:
            response.raw_output_contents.append(oip.to_raw(array))
        else:
            getattr(tensor.contents, _CONTENTS[word]).extend(array.ravel().tolist())


def _parameters(given) -> dict[str, Any]:
    """The parameters of a message as Python's values."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in given.items()
        if value.WhichOneof("parameter_choice")
    }
