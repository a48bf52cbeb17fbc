"""The peer BentoML: bytes in, bytes out, over an ASGI route, so that nothing is made JSON.

python bentoml_.py MODEL.onnx PORT WORKERS
"""

import os
import sys

import bentoml
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if __name__ == "__main__":
    from engine import asked

    path, port, workers = asked()
    os.environ |= {"PEER_MODEL": path, "PEER_WORKERS": str(workers)}
    here = os.path.dirname(os.path.abspath(__file__))
    command = ["-m", "bentoml", "serve", "bentoml_:Classifier", "--working-dir", here]
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.execv(sys.executable, [sys.executable, *command, "--host=127.0.0.1", f"--port={port}"])

app = Starlette()


@bentoml.service(workers=int(os.environ["PEER_WORKERS"]), traffic={"timeout": 60})
@bentoml.asgi_app(app, path="/raw")
class Classifier:
    def __init__(self):
        from engine import Engine

        self.engine = Engine(os.environ["PEER_MODEL"])
        app.router.routes.append(Route("/predict", self.predict, methods=["POST"]))

    async def predict(self, request: Request) -> Response:
        scores = await run_in_threadpool(self.engine.of_bytes, await request.body())
        return Response(scores, media_type="application/octet-stream")
