"""TensorFlow Serving's gRPC services over the core: PredictionService and ModelService.

Codes and texts are TensorFlow Serving's, because clients read them; where it would end its process
or answer nonsense (a tensor of the wrong rank or size), this one refuses: see docs/serve.md.
"""

import functools
import time
from dataclasses import replace

import grpc

from striate.serve import protos, tensors
from striate.serve.core import Core, Request, Target
from striate.serve.grpc_server import GrpcServer
from striate.serve.protocols.tfs_inference import classify, multi_inference, regress
from striate.serve.protocols.tfs_messages import (
    about_examples,
    examples_request,
    fill_classes,
    fill_spec,
    fill_values,
    metadata_of,
    predict_request,
    status_of,
    target_of,
)
from striate.serve.repository.model_config import configs_from_request
from striate.serve.signatures import CLASSIFY
from striate.serve.status import cut, invalid
from striate.serve.unforeseen import told

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


def register(core: Core, server: GrpcServer) -> tuple[str, ...]:
    """Add the services to a gRPC server; returns their names."""
    protos.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(core), server
    )
    protos.model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(core), server)
    return SERVICES


def answered(method):
    """Turn what a method raises into the status of its call."""

    @functools.wraps(method)
    def call(self, request, context):
        try:
            return method(self, request, context)
        except Exception as error:
            refused = told(error, method.__name__)
        context.abort(_STATUS[refused.code], cut(str(refused)))

    return call


class PredictionService(protos.prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    def __init__(self, core: Core):
        self._core = core

    @answered
    def Predict(self, request, context):
        asked = predict_request(request, self._core.max_bytes)
        answer = self._core.predict(_in_call(asked, context))
        response = protos.predict_pb2.PredictResponse()
        fill_spec(response.model_spec, answer.model, answer.version, answer.signature)
        write = tensors.to_content if self._core.tensor_content else tensors.to_proto
        for name, array in answer.outputs.items():
            response.outputs[name].CopyFrom(write(array))
        return response

    @answered
    def Classify(self, request, context):
        asked = _in_call(examples_request(request), context)
        answer, classifications = classify(self._core, asked)
        response = protos.classification_pb2.ClassificationResponse()
        fill_spec(response.model_spec, answer.model, answer.version, answer.signature)
        fill_classes(response.result, classifications)
        return response

    @answered
    def Regress(self, request, context):
        asked = _in_call(examples_request(request), context)
        answer, values = regress(self._core, asked)
        response = protos.regression_pb2.RegressionResponse()
        fill_spec(response.model_spec, answer.model, answer.version, answer.signature)
        fill_values(response.result, values)
        return response

    @answered
    def MultiInference(self, request, context):
        tasks = [
            (target_of(task), task.model_spec.signature_name, task.method_name)
            for task in request.tasks
        ]

        def ask(target: Target, signature: str) -> Request:
            return _in_call(about_examples(request.input, target, signature), context)

        response = protos.inference_pb2.MultiInferenceResponse()
        for method, answer, found in multi_inference(self._core, tasks, ask):
            result = response.results.add()
            fill_spec(result.model_spec, answer.model, answer.version, answer.signature)
            if method == CLASSIFY:
                fill_classes(result.classification_result, found)
            else:
                fill_values(result.regression_result, found)
        return response

    @answered
    def GetModelMetadata(self, request, context):
        return metadata_of(self._core, request)


class ModelService(protos.model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus, and HandleReloadConfigRequest, which changes the models that are served."""

    def __init__(self, core: Core):
        self._core = core

    @answered
    def GetModelStatus(self, request, context):
        return status_of(self._core, request)

    @answered
    def HandleReloadConfigRequest(self, request, context):
        self._core.permit(None)
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported"
            )
        self._core.reload(configs_from_request(request.config))
        return protos.model_management_pb2.ReloadConfigResponse()


def _in_call(asked: Request, context) -> Request:
    """The same request, with the deadline of a call and a way to see that its client left."""
    left = context.time_remaining()
    deadline = None if left is None else time.monotonic() + left
    return replace(asked, deadline=deadline, gone=lambda: not context.is_active())
