"""What a person sees while a run is under way, on stderr: a bar on a terminal, lines elsewhere."""

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
EVERY = 10.0  # seconds between lines about one long epoch where there is no terminal


class Watcher(Protocol):
    """Told about a run as it goes."""

    def say(self, line: str) -> None:
        """Something worth a line."""

    def steps(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        """Pass items on while counting them; `done` of `total` are already behind."""

    def busy(self, what: str) -> AbstractContextManager[Any]:
        """Work of a length that nobody knows, by its name for as long as it takes."""


class Silent:
    """Says nothing."""

    def say(self, line: str) -> None:
        pass

    def steps(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        yield from items

    def busy(self, what: str) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()


class Lines:
    """Plain lines, for files and pipes."""

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def steps(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        last = time.monotonic()
        for i, item in enumerate(items, start=done + 1):
            yield item
            if time.monotonic() - last > EVERY:
                last = time.monotonic()
                self.say(f"{what}: {i} of {total}")

    def busy(self, what: str) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()


class Bar:
    """A bar that the next line replaces."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        # Words stay whole, and so does a path, which somebody may copy.
        width = self._console.width
        lines = textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
        self._console.print("\n".join(lines), markup=False, soft_wrap=True)

    def steps(self, items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)

    def busy(self, what: str) -> AbstractContextManager[Any]:
        return self._console.status(what, spinner="line")


def watcher(progress: bool) -> Watcher:
    """What suits stderr as it is; silence where progress is not wanted."""
    if not progress:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


def row_line(row: dict[str, Any], epochs: int) -> str:
    """An epoch's row of `metrics.jsonl` as a line for a person, hardly ever longer than 80."""
    parts = [f"{row['phase']} {row['epoch']}/{epochs}" if row.get("epoch") else row["phase"]]
    for name, digits in (("loss", 4), ("accuracy", 3)):
        held_out = f" (val {row[f'val_{name}']:.{digits}f})" if f"val_{name}" in row else ""
        parts.append(f"{name} {row[name]:.{digits}f}{held_out}")
    return "  ".join([*parts, f"{row['seconds']:.1f} s"])
