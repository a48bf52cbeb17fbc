"""`striate serve`: models as a service, by tensorflow_model_server's flags.

The flags are the fields of `ServerOptions`, read by `striate.serve.flags`: they are written in
TensorFlow's way, which is not that of the other verbs.
"""

from typing import Annotated

import typer

# Typer hands everything over as it is, `--help` too.
SETTINGS = {
    "add_help_option": False,
    "context_settings": {"ignore_unknown_options": True, "help_option_names": []},
}


def serve(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[DIRECTORY] [--flag=value]...")
    ] = None,
) -> None:
    """Answer over TensorFlow Serving's gRPC and REST, and KServe v2."""
    from striate import __version__
    from striate.serve.flags import help_text, parse
    from striate.serve.options import ServerOptions

    arguments = list(arguments or [])
    if {"-h", "--help"} & set(arguments):
        typer.echo(help_text())
        return
    if "--version" in arguments:
        typer.echo(f"striate {__version__}, a server of TensorFlow Serving's protocol")
        return
    found, notes = parse(arguments)
    options = ServerOptions(**found)
    for note in notes:
        typer.echo(f"striate: {note}", err=True)
    from striate.serve.server import run_server

    run_server(options)
