"""Ask a server again what another one was asked, and compare the answers.

    python serving/replay.py localhost:8500 requests/mine-*.tfrecord
    python serving/replay.py host:8500 FILE... --cacert ca.pem --header "authorization=Bearer KEY"

The files are those of `striate serve --request_log_dir`, or any PredictionLog in TFRecords with the
answers in it, TensorFlow Serving's too. Prints how many requests were answered, how far the numbers
are from those of then, how often the best class is the same, and how long it took. Ends with 1
where a request was refused.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from striate.errors import StriateError
from striate.serve.client import channel
from striate.serve.loading import records
from striate.serve.protos import prediction_log_pb2, prediction_service_pb2_grpc
from striate.serve.tensors import from_proto


def main(asked: argparse.Namespace) -> None:
    headers = [header.partition("=") for header in asked.header]
    metadata = [(name.lower(), value) for name, _, value in headers]
    seconds, refused, same, largest = [], Counter(), [], 0.0
    with channel(asked.address, credentials(asked)) as connected:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(connected)
        # All of them first: the server that is asked may be adding to these very files
        for data in [data for file in asked.files for data in records(file)]:
            logged = prediction_log_pb2.PredictionLog.FromString(data).predict_log
            start = time.monotonic()
            try:
                answer = stub.Predict(logged.request, timeout=60, metadata=metadata)
            except grpc.RpcError as error:
                refused[f"{error.code().name}: {error.details()}"] += 1
                continue
            seconds.append(time.monotonic() - start)
            for before, now in scores(logged.response, answer):
                same += list(before.argmax(axis=-1) == now.argmax(axis=-1))
                largest = max(largest, float(np.abs(before - now).max()))
    print(f"{len(seconds)} requests were answered, {refused.total()} refused")
    if same:
        print(f"the best class is the same of {np.mean(same):.1%}; scores within {largest:.1e}")
    if seconds:
        print(f"half of them within {1000 * np.median(seconds):.1f} ms")
    for why, count in refused.most_common(1):
        sys.exit(f"{count} of {len(seconds) + refused.total()} requests were refused: {why}")
    if not seconds:
        sys.exit("expected requests in the files, got none")


def credentials(asked: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """Those of TLS, where anything is said of it."""
    files = (asked.cacert, asked.key, asked.cert)
    if not asked.tls and not any(files):
        return None
    return grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))


def scores(before, now):
    """The outputs `scores` of two answers, where both have one of the same shape."""
    pair = [answer.outputs.get("scores") for answer in (before, now)]
    if all(proto is not None for proto in pair):
        arrays = [from_proto(proto, max_bytes=1 << 30) for proto in pair]
        if arrays[0].shape == arrays[1].shape and arrays[0].ndim == 2:
            yield arrays


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", metavar="HOST:PORT", help="of the server, gRPC")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="TFRecords")
    parser.add_argument(
        "--header", action="append", default=[], help='NAME=VALUE, "authorization=Bearer KEY"'
    )
    parser.add_argument("--tls", action="store_true", help="by the system's authorities")
    parser.add_argument("--cacert", type=Path, help="TLS by the authority in this file, PEM")
    parser.add_argument("--cert", type=Path, help="the client's certificate, PEM")
    parser.add_argument("--key", type=Path, help="and its key")
    found = parser.parse_args()
    if not all("=" in header for header in found.header):
        parser.error(f"expected --header NAME=VALUE, got {', '.join(found.header)}")
    if bool(found.cert) != bool(found.key):
        parser.error("expected --cert and --key, got one of them")
    return found


if __name__ == "__main__":
    try:
        main(arguments())
    except StriateError as error:
        sys.exit(str(error))
    except DecodeError as error:
        sys.exit(f"expected records of PredictionLog ({error})")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
