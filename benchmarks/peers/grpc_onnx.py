"""What Python's gRPC leaves of the engine: one method that computes, and nothing else.

    python grpc_onnx.py MODEL.onnx PORT WORKERS

Answers PredictionService.Predict. No server over grpcio can be quicker, so what striate loses
beside it is striate's own.
"""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from engine import Engine, asked

from striate.serve import tensors
from striate.serve.protos import predict_pb2, prediction_service_pb2_grpc


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, path: str):
        self._engine = Engine(path)

    def Predict(self, request, context):
        pixels = np.frombuffer(request.inputs["image"].tensor_content, np.uint8)
        scores = self._engine(pixels.reshape(1, *self._engine.shape))
        response = predict_pb2.PredictResponse()
        response.outputs["scores"].CopyFrom(tensors.to_proto(scores))
        return response


if __name__ == "__main__":
    path, port, workers = asked()
    server = grpc.server(ThreadPoolExecutor(workers))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictions(path), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()
