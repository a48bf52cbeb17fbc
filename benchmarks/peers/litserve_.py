"""The peer LitServe: bytes in, bytes out, `workers` processes that compute.

python litserve_.py MODEL.onnx PORT WORKERS
"""

from typing import Annotated

import litserve
from engine import Engine, asked
from fastapi import Body, Response

PATH, PORT, WORKERS = asked()


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.engine = Engine(PATH)

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        return request

    def predict(self, data: bytes) -> bytes:
        return self.engine.of_bytes(data)

    def encode_response(self, scores: bytes) -> Response:
        return Response(scores, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
