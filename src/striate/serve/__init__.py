"""TensorFlow Serving's protocol from `pip install`: gRPC and REST over whichever engine is fastest.

    striate serve saved_models/mine --port 8500 --rest_api_port 8501

    from striate.serve import ServerOptions, Server, serve
    serve("saved_models/mine", rest_api_port=8501)          # until SIGTERM
    with Server(ServerOptions("saved_models/mine")) as server: ...

A core that knows no protocol (`core`, `scheduler`, `signatures`) over the models on disk
(`repository`), with thin faces over it (`protocols`): TensorFlow Serving's, the Open Inference
Protocol's, pictures as bodies, a page; `grpc_server` knows no models; `observe` sees it all.
Nothing here imports TensorFlow unless its engine is asked for.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

from striate.lazy import Verb
from striate.serve.options import ServerOptions, VersionPolicy

if TYPE_CHECKING:
    from striate.serve.server import Server, run_server

__all__ = ["Server", "ServerOptions", "VersionPolicy", "run_server", "serve"]


def serve(path: str | os.PathLike, **options: Any) -> None:
    """Serve a model directory, a version of it, or a directory of models, until SIGTERM or SIGINT.

    options: fields of `ServerOptions` (port, rest_api_port, model_name, engine, ...).
    """
    from striate.serve.server import run_server

    run_server(ServerOptions(model_base_path=path, **options))


def __getattr__(name: str) -> Any:
    """`Server` and `run_server` need gRPC, so they are imported when they are first used."""
    if name in ("Server", "run_server"):
        from striate.serve import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = Verb  # `striate.serve(...)` is `serve(...)`
