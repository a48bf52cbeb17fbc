"""TensorFlow Serving's gRPC services over the core: PredictionService and ModelService.

Codes and texts are TensorFlow Serving's, because clients read them; where it would end its process
or answer nonsense (a tensor of the wrong rank or size), this one refuses: see docs/serve.md.
"""

import functools
import logging
import time

import grpc

from striate.serve import protos, tensors
from striate.serve.core import Core, Request
from striate.serve.signatures import Signature, Tensors
from striate.serve.status import Code, ServingError, UnknownSignature, cut, invalid
from striate.serve.tfs_messages import (
    examples_of,
    fill_spec,
    metadata_of,
    status_of,
    target_of,
)

log = logging.getLogger("striate.serve")

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


def register(core: Core, server: grpc.Server) -> tuple[str, ...]:
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
        except ServingError as error:
            code, message = error.code, str(error)
        except Exception as error:  # a mistake of ours: the client gets one line, the log the rest
            log.exception("%s", method.__name__)
            code, message = Code.INTERNAL, f"{type(error).__name__}: {error}"
        context.abort(_STATUS[code], cut(message))

    return call


class PredictionService(protos.prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify and GetModelMetadata; a classifier has nothing for the others."""

    def __init__(self, core: Core):
        self._core = core

    @answered
    def Predict(self, request, context):
        answer = self._core.predict(
            Request(
                target_of(request),
                request.model_spec.signature_name,
                read=functools.partial(self._read, request.inputs),
                names=request.inputs.keys(),
                outputs=tuple(request.output_filter),
                deadline=_deadline(context),
            )
        )
        response = protos.predict_pb2.PredictResponse()
        fill_spec(response.model_spec, answer.model, answer.version, answer.signature)
        for name, array in answer.outputs.items():
            response.outputs[name].CopyFrom(tensors.to_proto(array))
        return response

    def _read(self, inputs, signature: Signature) -> Tensors:
        found = {}
        for name in signature.inputs:
            try:
                found[name] = tensors.from_proto(inputs[name], self._core.max_bytes)
            except ValueError as error:
                raise invalid(f"tensor parsing error: {name} ({error})") from None
        return found

    @answered
    def Classify(self, request, context):
        try:
            answer = self._core.predict(
                Request(
                    target_of(request),
                    request.model_spec.signature_name,
                    read=lambda _: {"inputs": examples_of(request.input)},
                    deadline=_deadline(context),
                    classify=True,
                )
            )
        except UnknownSignature as error:
            raise invalid(f"No signature was found with the name: {error.signature}") from None
        response = protos.classification_pb2.ClassificationResponse()
        fill_spec(response.model_spec, answer.model, answer.version, answer.signature)
        scores, classes = answer.outputs["scores"].tolist(), answer.outputs["classes"].tolist()
        for row_of_scores, row_of_labels in zip(scores, classes, strict=True):
            found = response.result.classifications.add()
            for score, label in zip(row_of_scores, row_of_labels, strict=True):
                found.classes.add(label=label.decode(), score=score)
        return response

    @answered
    def Regress(self, request, context):
        raise ServingError(
            Code.UNIMPLEMENTED,
            "Regress is not served: this model classifies, ask Predict or Classify",
        )

    @answered
    def MultiInference(self, request, context):
        raise ServingError(
            Code.UNIMPLEMENTED,
            "MultiInference is not served: ask Predict or Classify once a signature",
        )

    @answered
    def GetModelMetadata(self, request, context):
        return metadata_of(self._core, request)


class ModelService(protos.model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; models are configured at the start, so there is no reload."""

    def __init__(self, core: Core):
        self._core = core

    @answered
    def GetModelStatus(self, request, context):
        return status_of(self._core, request)

    @answered
    def HandleReloadConfigRequest(self, request, context):
        raise ServingError(
            Code.UNIMPLEMENTED,
            "HandleReloadConfigRequest is not served: restart with other options",
        )


def _deadline(context) -> float | None:
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left
