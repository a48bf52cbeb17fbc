"""Explanations that are numbers, as charts: uint8 [H, W, 3]."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

INCHES, DOTS = (7.2, 5.4), 110
MOST_BARS = 80  # that one chart shows: the longest of them
NAMED = 20  # classes that a scatter tells apart by colour and names


def scatter(points: np.ndarray, classes: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Points float [N, 2] in the colours of their classes int [N]; the most frequent are named."""
    import matplotlib

    colours = matplotlib.colormaps["tab20"].colors
    present, counts = np.unique(classes, return_counts=True)
    named = present[np.argsort(-counts, kind="stable")][:NAMED]
    figure, axes = _sheet()
    for index in present:
        x, y = points[classes == index].T
        known = index in named
        colour = colours[list(named).index(index) % len(colours)] if known else "0.8"
        axes.scatter(x, y, s=22, color=colour, label=labels[index] if known else None)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, markerscale=1.4)
    return _pixels(figure)


def contours(surface: np.ndarray, reach: float, label: str) -> np.ndarray:
    """Heights float [n, n] over a square from -reach to reach, rows up, on a logarithmic scale."""
    steps = np.linspace(-reach, reach, len(surface))
    figure, axes = _sheet()
    logs = np.log10(np.maximum(surface, 1e-6))
    filled = axes.contourf(steps, steps, logs, levels=16, cmap="viridis")
    lines = axes.contour(steps, steps, logs, levels=16, colors="white", linewidths=0.4)
    axes.clabel(lines, lines.levels[::3], fmt=lambda level: f"{10**level:.3g}", fontsize=8)
    axes.plot(0, 0, "+", color="white", markersize=12)
    axes.set(xlabel="along the second direction", ylabel="along the first", aspect="equal")
    figure.colorbar(filled, ax=axes, format=lambda level, _: f"{10**level:.3g}", label=label)
    return _pixels(figure)


def bars(values: Mapping[str, float], whole: float, label: str) -> np.ndarray:
    """A bar for each name, and a line at the value of the whole net."""
    longest = set(sorted(values, key=values.__getitem__, reverse=True)[:MOST_BARS])
    values = {name: value for name, value in values.items() if name in longest}
    figure, axes = _sheet(height=1.4 + 0.24 * len(values))
    axes.barh(range(len(values)), list(values.values()), height=0.7)
    axes.axvline(whole, color="black", linewidth=1)
    axes.annotate(f"whole: {whole:.3g}", (whole, 1), (4, 2), xycoords=("data", "axes fraction"),
                  textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(values)), list(values), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return _pixels(figure)


def curve(x: Sequence[float], y: Sequence[float], across: str, up: str) -> np.ndarray:
    """y over x, from 0 to 1."""
    figure, axes = _sheet()
    axes.plot(x, y, marker="o")
    axes.set(xlabel=across, ylabel=up, ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    return _pixels(figure)


def _sheet(height: float = INCHES[1]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES[0], height), dpi=DOTS, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _pixels(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
