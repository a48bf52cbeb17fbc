"""`striate bench`: how fast every form of an artifact is here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.console import Json, emit, listed, note, progress, table
from striate.errors import EngineError

if TYPE_CHECKING:
    from striate.bench import Timing


def bench(
    artifact: Annotated[Path, typer.Argument(help="Artifact directory, NAME or NAME/VERSION.")],
    engines: Annotated[
        str | None,
        typer.Option(help="Only these, separated by commas [default: all that are installed]."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="For one call.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time, throughput.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="In each, every engine in turn.")] = 15,
    chart: Annotated[Path | None, typer.Option(help="Draw the table as a PNG here.")] = None,
    as_json: Json = False,
) -> None:
    """Time every form of an artifact in every engine.

    Each engine has a process of its own and they take turns. Latency is of one picture, throughput
    of batches; both are medians, with quartiles. Answers are compared with the goldens.
    """
    from striate.artifact import load
    from striate.bench import bench as measure
    from striate.bench.chart import draw
    from striate.files import check_writable
    from striate.libraries import need

    loaded = load(artifact)
    if chart:
        need("--chart", "matplotlib")
        check_writable(chart, ending=".png")
    with progress("rounds") as advance:
        rows = measure(
            loaded,
            engines=None if engines is None else listed(engines, "--engines"),
            threads=threads,
            batch=batch_size,
            rounds=rounds,
            on_progress=advance,
            on_refusal=lambda reason: note(f"striate: left out: {reason}"),
        )
    if not rows:
        raise EngineError(f"{loaded.path}: none of its forms can be timed here")
    how = f"{_counted(threads, 'thread')}, {_counted(rounds, 'round')}"
    if as_json:
        emit([row.to_dict() for row in rows])
    else:
        _print(rows, f"{loaded.path}: {how}", batch_size)
    if chart:
        note(f"chart: {draw(rows, chart, title=f'{loaded.name}, {how}')}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _print(rows: list["Timing"], title: str, batch: int) -> None:
    speed = ["ms", "quartiles", f"a second, by {batch}", "quartiles"]
    table(
        ["engine", *speed, "file MB", "peak MB", "|difference|", "top-1", "kernel"],
        [
            [
                row.engine,
                row.latency_ms,
                "{:.2f} to {:.2f}".format(*row.latency_quartiles),
                round(row.images_per_second, 1),
                "{:.1f} to {:.1f}".format(*row.throughput_quartiles),
                round(row.bytes / 1e6, 2),
                round(row.peak_mb),
                f"{row.max_abs_diff:.1e}",
                f"{row.top1_agreement:.0%}",
                row.kernel,
            ]
            for row in rows
        ],
        title=title,
        spare=["kernel", "quartiles"],
    )
