"""Ask a server again what another one was asked, and compare the answers.

    python serving/replay.py localhost:8500 requests/mine-*.tfrecord

The files are those of `striate serve --request_log_dir`, or any PredictionLog in TFRecords with the
answers in it, TensorFlow Serving's too. Prints how many requests were answered, how far the numbers
are from those of then, how often the best class is the same, and how long it took.
"""

import sys
import time
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from striate.errors import StriateError
from striate.serve.loading import records
from striate.serve.protos import prediction_log_pb2, prediction_service_pb2_grpc
from striate.serve.tensors import from_proto


def main(address: str, *files: str) -> None:
    seconds, refused, same, largest = [], 0, [], 0.0
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        # All of them first: the server that is asked may be adding to these very files
        for data in [data for file in files for data in records(Path(file))]:
            logged = prediction_log_pb2.PredictionLog.FromString(data).predict_log
            start = time.monotonic()
            try:
                answer = stub.Predict(logged.request, timeout=60)
            except grpc.RpcError as error:
                refused += 1
                print(f"{error.code().name}: {error.details()}", file=sys.stderr)
                continue
            seconds.append(time.monotonic() - start)
            for before, now in scores(logged.response, answer):
                same += list(before.argmax(axis=-1) == now.argmax(axis=-1))
                largest = max(largest, float(np.abs(before - now).max()))
    print(f"{len(seconds)} requests were answered, {refused} refused")
    if same:
        print(f"the best class is the same of {np.mean(same):.1%}; scores within {largest:.1e}")
    if seconds:
        print(f"half of them within {1000 * np.median(seconds):.1f} ms")


def scores(before, now):
    """The outputs `scores` of two answers, where both have one of the same shape."""
    pair = [answer.outputs.get("scores") for answer in (before, now)]
    if all(proto is not None for proto in pair):
        arrays = [from_proto(proto, max_bytes=1 << 30) for proto in pair]
        if arrays[0].shape == arrays[1].shape and arrays[0].ndim == 2:
            yield arrays


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: replay.py HOST:PORT FILE...")
    try:
        main(*sys.argv[1:])
    except StriateError as error:
        sys.exit(str(error))
    except DecodeError as error:
        sys.exit(f"expected records of PredictionLog ({error})")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
