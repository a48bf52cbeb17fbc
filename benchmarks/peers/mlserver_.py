"""The peer MLServer: KServe v2 over gRPC; one worker computes in the server's own process, which
saves it a copy, more of them in processes of their own.

    python mlserver_.py MODEL.onnx PORT WORKERS
"""

import asyncio
import os

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Classifier(MLModel):
    async def load(self) -> bool:
        from engine import Engine

        self._engine = Engine(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        scores = self._engine(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("scores", scores)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(path: str, port: int, workers: int) -> None:
    settings = Settings(
        host="127.0.0.1",
        grpc_port=port,
        http_port=port + 1,
        metrics_port=port + 2,
        parallel_workers=0 if workers == 1 else workers,
        grpc_max_message_length=-1,
        load_models_at_startup=False,
        debug=False,
    )
    server = MLServer(settings)
    model = ModelSettings(
        name="model", implementation=Classifier, parameters=ModelParameters(uri=path)
    )
    await server.start([model])


if __name__ == "__main__":
    from engine import asked

    os.environ["MLSERVER_LOGGING_LEVEL"] = "ERROR"
    asyncio.run(serve(*asked()))
