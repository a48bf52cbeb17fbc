"""`striate serve`: an artifact as a service, by tensorflow_model_server's flags."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    directory: Annotated[
        Path | None,
        typer.Argument(help="A model directory, one version of it, or a directory of models."),
    ] = None,
    model_base_path: Annotated[
        Path | None, typer.Option("--model_base_path", help="The same, as a flag.")
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--model_name", help="What requests call it [default: its directory]."),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="gRPC; 0 for none.")] = 8500,
    rest_api_port: Annotated[int, typer.Option("--rest_api_port", help="REST; 0 for none.")] = 0,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "0.0.0.0",
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="onnx, litert, tensorflow, keras, or auto to race them [default: the first "
            "of these that the version holds].",
        ),
    ] = None,
    version_policy: Annotated[
        str, typer.Option("--version_policy", help="latest, latest:N, all, or numbers: 3,5.")
    ] = "latest",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Calls that compute at once [default: one a core]."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of one call.")] = 1,
    max_queue: Annotated[
        int, typer.Option("--max_queue", help="Requests that may wait; more are refused at once.")
    ] = 64,
    max_message_bytes: Annotated[
        int, typer.Option("--max_message_bytes", help="The largest request.")
    ] = 64 << 20,
    file_system_poll_wait_seconds: Annotated[
        float,
        typer.Option(
            "--file_system_poll_wait_seconds", help="How often to look for versions; 0: once."
        ),
    ] = 1.0,
    rest_api_timeout_in_ms: Annotated[
        int, typer.Option("--rest_api_timeout_in_ms", help="How long a REST request may wait.")
    ] = 30_000,
    drain_seconds: Annotated[
        float, typer.Option("--drain_seconds", help="For requests in flight after SIGTERM.")
    ] = 30.0,
) -> None:
    """Answer over TensorFlow Serving's gRPC and REST.

    Until SIGTERM, which lets requests in flight end. New versions are found and loaded.
    """
    from striate.errors import UsageError
    from striate.serve import ServerOptions, VersionPolicy

    base = model_base_path or directory
    if base is None or (model_base_path and directory):
        raise UsageError("expected the models once: striate serve DIRECTORY, or --model_base_path")
    options = ServerOptions(
        model_base_path=base,
        model_name=model_name,
        port=port,
        rest_api_port=rest_api_port,
        host=host,
        engine=engine,
        version_policy=VersionPolicy.parse(version_policy),
        workers=workers,
        threads=threads,
        max_queue=max_queue,
        max_message_bytes=max_message_bytes,
        file_system_poll_wait_seconds=file_system_poll_wait_seconds,
        rest_api_timeout_in_ms=rest_api_timeout_in_ms,
        drain_seconds=drain_seconds,
    )
    from striate.serve.server import run_server

    run_server(options)
