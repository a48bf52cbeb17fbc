"""The plain server that people write: grpcio, a thread a call, TensorFlow's SavedModel.

    python grpc_tensorflow.py DIRECTORY PORT WORKERS

Answers PredictionService.Predict, whose messages it takes from tensorflow-serving-api.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, directory: str):
        self._model = tf.saved_model.load(directory)
        self._predict = self._model.signatures["serving_default"]

    def Predict(self, request, context):
        image = tf.constant(tf.make_ndarray(request.inputs["image"]))
        scores = self._predict(image=image)["scores"].numpy()
        response = predict_pb2.PredictResponse()
        response.outputs["scores"].CopyFrom(tf.make_tensor_proto(scores))
        return response


def main(directory: str, port: str, workers: str) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    server = grpc.server(ThreadPoolExecutor(int(workers)))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Predictions(directory), server
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
