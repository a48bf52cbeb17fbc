"""Ask a server with TensorFlow Serving's own client code, which needs no change.

    python serving/ask_tensorflow_serving.py localhost:8500 mine picture.jpg

Prints the best three labels. It imports all of TensorFlow, as that client does;
`striate.serve.client` asks the same without.
"""

import sys

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def main(address: str, model: str, picture: str) -> None:
    with open(picture, "rb") as file:
        encoded = file.read()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([encoded]))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout=10).outputs
    scores = tf.make_ndarray(outputs["scores"])[0]
    classes = tf.make_ndarray(outputs["classes"])[0]
    for i in (-scores).argsort()[:3]:
        print(f"{scores[i]:.4f}  {classes[i].decode()}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: ask_tensorflow_serving.py HOST:PORT MODEL PICTURE")
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
