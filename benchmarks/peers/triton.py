"""The peer Triton, by nvidia-pytriton: KServe v2 over gRPC, `workers` processes that compute.

python triton.py MODEL.onnx PORT WORKERS
"""

import numpy as np
from engine import Engine, asked
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    path, port, workers = asked()
    engines = [Engine(path) for _ in range(workers)]

    def answering(engine: Engine):
        @batch
        def scores(image: np.ndarray) -> dict[str, np.ndarray]:
            return {"scores": engine(image)}

        return scores

    config = TritonConfig(
        grpc_address="127.0.0.1",
        http_address="127.0.0.1",
        grpc_port=port,
        http_port=port + 1,
        allow_metrics=False,
    )
    with Triton(config=config) as server:
        server.bind(
            "model",
            [answering(engine) for engine in engines],
            inputs=[Tensor(name="image", dtype=np.uint8, shape=engines[0].shape)],
            outputs=[Tensor(name="scores", dtype=np.float32, shape=(engines[0].classes,))],
            config=ModelConfig(max_batch_size=1),
        )
        server.serve()
