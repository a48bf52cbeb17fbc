"""What every verb prints with: one JSON document, or tables and lines for a person."""

import codecs
import contextlib
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from striate.errors import UsageError
from striate.files import whole
from striate.libraries import is_installed

BACKENDS = ("tensorflow", "jax")  # of Keras, on which striate runs

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def emit(document: Any) -> None:
    """Print the one JSON document of a verb on standard output, indented for a person; in ASCII
    where the output is not in UTF-8, as JSON has to be."""
    indent = 2 if sys.stdout.isatty() else None
    coding = codecs.lookup(sys.stdout.encoding or "ascii").name
    print(json.dumps(_finite(document), indent=indent, ensure_ascii=coding != "utf-8"))


def _finite(value: Any) -> Any:
    """A document in which null stands for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(document: Any, path: Path) -> None:
    """Write a JSON document, indented, whole or not at all."""
    with whole(path) as fresh:
        fresh.write_text(json.dumps(_finite(document), indent=2) + "\n", "utf-8")


def note(text: str) -> None:
    """Say something to the person at the terminal, on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_path(path: Path) -> None:
    """Print where an artifact is, for whatever reads standard output; a person has been told."""
    if not sys.stdout.isatty() or not sys.stderr.isatty():
        print(path)


def keras_backend() -> str:
    """What Keras will run on: the environment says it, or else Keras' own file."""
    home = os.path.expanduser("~")  # as Keras looks for it; `~` itself for a user without a home
    base = home if os.access(home, os.W_OK) else "/tmp"
    file = Path(os.environ.get("KERAS_HOME") or Path(base, ".keras"), "keras.json")
    try:
        configured = json.loads(file.read_text("utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):  # none, or none that Keras would understand
        configured = None
    return os.environ.get("KERAS_BACKEND") or configured or "tensorflow"


def backend_problem() -> str | None:
    """Why nothing can be computed with Keras here: it is to run on what is not installed, or on
    what striate is not made for."""
    backend = keras_backend()
    if not is_installed(backend):
        more = ' (pip install "striate[jax]")' if backend == "jax" else ""
        why = f"which is not installed{more}"
    elif backend not in BACKENDS:
        why = "for which striate is not made"
    else:
        return None
    return f"Keras is to run on {backend}, {why}; KERAS_BACKEND names another: tensorflow or jax"


def listed(text: str, option: str) -> list[str]:
    """The names that an option gives, separated by commas; `UsageError` where it gives none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option}: expected names separated by commas, got {text!r}")
    return names


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    spare: Sequence[str] = (),
) -> None:
    """Print a table; numbers to the right. Without a terminal, plain and as wide as it needs.

    spare: columns to do without, in this order, where the terminal is too narrow; a line says so.
    """
    from rich.console import Console

    columns, rows = list(columns), list(rows)
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
    # Cells are what a person called a class or a file: neither markup nor :smile: means more there.
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000
    kept = list(range(len(columns)))
    left_out = []
    for name in spare:
        if _width(columns, cells, numeric, kept) <= console.width:
            break
        kept = [i for i in kept if columns[i] != name]
        left_out.append(name)
    console.print(_drawn(columns, cells, numeric, kept, title))
    if left_out:
        note(f"(a wider terminal shows more: {', '.join(left_out)})")


WRAPS = 30  # characters of text that stay on one line before a column is left out


def _width(columns: list[str], cells: list[list[str]], numeric: list[bool], kept: list[int]) -> int:
    """How wide these columns are together, long texts wrapped."""
    from rich.cells import cell_len

    longest = [max(cell_len(row[i]) for row in [columns, *cells]) for i in kept]
    return (
        3 * len(kept)
        - 1
        + sum(
            width if numeric[i] else min(width, WRAPS)
            for i, width in zip(kept, longest, strict=True)
        )
    )


def _drawn(
    columns: list[str],
    cells: list[list[str]],
    numeric: list[bool],
    kept: list[int],
    title: str,
) -> Any:
    from rich import box
    from rich.table import Table

    drawn = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i in kept:
        drawn.add_column(
            columns[i],
            justify="right" if numeric[i] else "left",
            no_wrap=numeric[i],
            overflow="fold",
        )
    for row in cells:
        drawn.add_row(*(row[i] for i in kept))
    return drawn


def facts(lines: Mapping[str, str], *, indent: int = 0) -> None:
    """Print names and what there is to say of each, wrapped between words on a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    margin = max(map(len, lines), default=0) + indent
    for name, text in lines.items():
        wrapped = textwrap.wrap(
            text,
            max(width - margin - 2, 20),
            break_long_words=False,
            break_on_hyphens=False,
        )
        print(f"{name:>{margin}}  " + f"\n{' ' * (margin + 2)}".join(wrapped or [""]))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)


@contextlib.contextmanager
def progress(label: str, *, ends: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, one line at the end elsewhere; it yields `advance(done, total)`.

    ends: whether that line is written, for a total that means something to a person.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: note(f"{label}: {total}") if ends and done == total else None
        return
    from rich.console import Console
    from rich.progress import Progress

    # A stream of its own, so that it stays visible while libraries are quiet.
    with (
        os.fdopen(os.dup(2), "w") as terminal,
        Progress(console=Console(file=terminal, force_terminal=True), transient=True) as bar,
    ):
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what native libraries write to standard error while they load from the person.

    TensorFlow and LiteRT announce themselves there, past Python's logging; errors still raise.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def load_tensorflow() -> None:
    """Import TensorFlow, where there is one, without its announcements; `import keras` follows.

    `UsageError` where Keras is told to run on what it cannot run on here.
    """
    if problem := backend_problem():
        raise UsageError(problem)
    with waiting("loading TensorFlow"), quiet_libraries(), contextlib.suppress(ModuleNotFoundError):
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal what it is that takes some seconds, for as long as it does."""
    if sys.stderr.isatty():
        print(f"{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
