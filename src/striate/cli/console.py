"""What every verb prints with: one JSON document, or tables and lines for a person."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from striate.errors import UsageError
from striate.files import whole

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def emit(document: Any) -> None:
    """Print the one JSON document of a verb on standard output, indented for a person."""
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def made_folder(path: Path) -> Path:
    """A folder for what a verb finds, made where there is none; `UsageError` where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written to ({error.strerror})") from None
    return path


def write_json(document: Any, path: Path) -> None:
    """Write a JSON document, indented, whole or not at all."""
    with whole(path) as fresh:
        fresh.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def note(text: str) -> None:
    """Say something to the person at the terminal, on standard error."""
    print(text, file=sys.stderr, flush=True)


def listed(text: str, option: str) -> list[str]:
    """The names that an option gives, separated by commas; `UsageError` where it gives none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option}: expected names separated by commas, got {text!r}")
    return names


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a table; numbers to the right. Without a terminal, plain and as wide as it needs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [list(row) for row in rows]
    drawn = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], (int, float)) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    # Cells are what a person called a class or a file: neither markup nor :smile: means more there.
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    console.print(drawn)


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
    """Import TensorFlow, where there is one, without its announcements; `import keras` follows."""
    with quiet_libraries(), contextlib.suppress(ModuleNotFoundError):
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
