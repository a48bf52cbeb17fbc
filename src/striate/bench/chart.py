"""The rows of a bench as bars: latency, throughput, size and memory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from striate.errors import UsageError
from striate.files import whole

PANELS = {
    "one picture, ms": ("latency_ms", "latency_quartiles"),
    "pictures a second": ("images_per_second", "throughput_quartiles"),
    "file, MB": ("bytes", None),
    "peak memory, MB": ("peak_mb", None),
}
COLOURS = {"fp32": "C0", "int8": "C1", "fp16 weights": "C2", "1 bit": "C3"}


def draw(rows: Sequence[Any], path: str | os.PathLike, *, title: str = "") -> Path:
    """Write a chart of `Timing`s; bars are medians, the lines on them go to the quartiles."""
    from matplotlib.figure import Figure

    path = Path(path)
    figure = Figure(figsize=(11, 1.6 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (label, (key, quartiles)) in zip(axes, PANELS.items(), strict=True):
        values = [getattr(row, key) / (1e6 if key == "bytes" else 1) for row in rows]
        colours = [COLOURS[row.precision] for row in rows]
        panel.barh(range(len(rows)), values, color=colours, height=0.7)
        for y, (row, value) in enumerate(zip(rows, values, strict=True)):
            low, high = getattr(row, quartiles) if quartiles else (value, value)
            panel.plot((low, high), (y, y), color="black", linewidth=1)
            panel.annotate(
                f"{value:.3g}", (max(value, high), y), (4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        panel.set_title(label, fontsize=10, loc="left")
        panel.margins(x=0.2)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), [row.engine for row in rows])
    axes[0].invert_yaxis()
    used = {row.precision: COLOURS[row.precision] for row in rows}
    handles = [axes[0].barh(0, 0, color=colour) for colour in used.values()]
    figure.legend(
        handles, used, loc="outside lower center", ncols=len(used), frameon=False, fontsize=9
    )
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    try:
        with whole(path) as fresh:
            figure.savefig(fresh, dpi=120)
    except ValueError as error:  # of matplotlib, for a name that ends in no format
        raise UsageError(f"{path}: the chart cannot be written there ({error})") from None
    return path
