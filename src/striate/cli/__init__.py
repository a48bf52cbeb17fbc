"""The command line: `striate VERB ...`, one file a verb.

A verb's module imports nothing heavy at its top, so that `--help`, `models` and a mistake in the
configuration answer in well under a second.
"""

import io
import os
import sys

import typer

from striate import __version__
from striate.errors import StriateError
from striate.libraries import missing_library

app = typer.Typer(
    name="striate",
    help="From a folder of images to a classifier that answers over the network or on a phone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing boxes takes longer to load than all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"striate {__version__}")
        raise typer.Exit


@app.callback()
def _striate(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reads it when it is imported
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if os.path.expanduser("~") == "~":  # of a user whom nobody knows; libraries end without a home
        os.environ["HOME"] = "/"  # what container runtimes give such a user


def _add_verbs() -> None:
    from striate.cli import (
        adopt,
        bench,
        doctor,
        ensemble,
        evaluate,
        explain,
        export,
        finetune,
        info,
        models,
        predict,
        quickstart,
        recipes,
        report,
        search,
        serve,
        train,
    )

    verbs = [
        ("quickstart", quickstart),
        ("models", models),
        ("info", info),
        ("recipes", recipes),
        ("train", train),
        ("finetune", finetune),
        ("adopt", adopt),
        ("evaluate", evaluate),
        ("report", report),
        ("predict", predict),
        ("explain", explain),
        ("export", export),
        ("serve", serve),
        ("bench", bench),
        ("doctor", doctor),
    ]
    for name, module in verbs:
        settings = getattr(module, "SETTINGS", {})
        app.command(name, **settings)(getattr(module, name))
    app.add_typer(ensemble.ensemble, name="ensemble")
    app.add_typer(search.search, name="search")


_add_verbs()


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be in no coding at all
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except StriateError as error:
        print(f"striate: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("striate: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `striate ... | head`
        sys.exit(0)
    except ModuleNotFoundError as error:
        if (message := missing_library(error)) is None:
            raise
        print(f"striate: {message}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a folder that nobody may write to, a full disk
        print(f"striate: {error}", file=sys.stderr)
        sys.exit(1)
