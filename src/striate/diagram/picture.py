"""From blocks to a picture: where everything stands, and its drawing with matplotlib.

Lengths are points, the unit of letters; y grows downwards.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from functools import cache
from math import ceil, floor
from pathlib import Path
from typing import Any

from striate.costs import count
from striate.diagram.boxes import TIMES, Box, Step, boxes
from striate.errors import UsageError
from striate.files import whole

INK, DIM, ACCENT, PAPER, LINE = "#22262a", "#767c80", "#0f6b77", "#fbfaf6", "#aaa697"
COLOURS = {"conv": "#bcdce1", "point": "#e0eff0", "depth": "#d0e5c9", "dense": "#f3d7c5"}
COLOURS |= {"pool": "#f4e6bd", "merge": "#ffffff", "other": "#e4dbee"}
LEGEND = {"conv": "convolution: kernel/stride, maps", "point": f"1{TIMES}1 convolution"}
LEGEND |= {"depth": "depthwise or separable", "pool": "pooling", "dense": "dense"}
# How wide a picture may get, and whether stages may stand side by side: the first that leaves it
# no more than TALL times as high as wide.
LAYOUTS = ((1000, False), (1000, True), (1300, True), (1700, True), (2200, True))
TALL = 1.7
CHIP, RISE, GAP, LANE = 19, 15, 10, 16  # a step's height, between steps, between paths, a shortcut
PAD, HEAD, WORDS = 12, 34, 13  # in a box: around, its name and the way in, a line of words
APART, BELOW, MARGIN, TOP = 30, 46, 40, 124  # between boxes and lines, at the sides, the title
SIZE, TITLE = 8.5, 17  # of letters
CENTRED = {"ha": "center", "va": "center_baseline", "zorder": 6}
FORMATS = (".png", ".svg", ".pdf")

Place = tuple[float, float, float]  # the middle of a step, x and y, and its width


@dataclasses.dataclass
class Laid:
    """A box with its size and, from its upper left corner, the middles and widths of its steps.

    way_in: x where its input arrives. lanes: x of the shortcut past the steps, for each step that
    also reads the input from further up. x, y, top, bottom: of the box and of its line, on paper.
    """

    box: Box
    words: list[tuple[str, str]]
    width: float
    height: float
    places: list[Place]
    way_in: float
    lanes: dict[int, float]
    x: float = 0
    y: float = 0
    top: float = 0
    bottom: float = 0


def draw(model: Any, *paths: str | os.PathLike) -> None:
    """Draw a functional or Sequential Keras model into files: PNG, SVG or PDF, by their endings.

    The model needs no values. `UsageError` for a file that cannot be written, and for a model that
    `striate.costs.count` refuses.
    """
    from matplotlib.figure import Figure

    files = [Path(path) for path in paths]
    for path in files:
        if path.suffix.lower() not in FORMATS:
            raise UsageError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    found = [_laid(box) for box in boxes(model)]
    width, height = _arrange(found)
    facts = _facts(model, found)
    title = max(_wide(model.name, TITLE, "bold"), _wide(facts, 9.5))
    width = max(width, title + 2 * MARGIN)
    figure = Figure(figsize=(width / 72, height / 72), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _draw_title(axes, model.name, facts, found)
    _draw_lines(axes, found)
    for laid in found:
        _draw_box(axes, laid)
    for path in files:
        with whole(path) as fresh:
            figure.savefig(fresh, dpi=150, facecolor=PAPER)


# === Where everything stands ===


def _laid(box: Box) -> Laid:
    """A box with its steps from top to bottom, each path in a column of its own."""
    ranks, columns, lanes = _columns(box.steps)
    needs = [(18 if s.kind == "merge" else 14) + _wide(_text(s)) for s in box.steps]
    widths = _widest(needs, columns)
    paths = sum(widths) + GAP * max(0, len(widths) - 1)
    inner = paths + LANE * len(lanes)
    words = _words(box)
    width = 2 * PAD + max(
        inner, _wide(_title(box), 9.5, "bold") + 8, *(_wide(text) for text, _ in words)
    )
    left, top = (width - inner) / 2, PAD + (HEAD if box.steps else HEAD / 2)
    middles = [left + sum(widths[:n]) + n * GAP + widths[n] / 2 for n in range(len(widths))]
    places: list[Place] = []
    for step, need, rank, column in zip(box.steps, needs, ranks, columns, strict=True):
        x = (middles[floor(column)] + middles[ceil(column)]) / 2
        wide = need if step.kind == "merge" else widths[floor(column)]
        places.append((x, top + (rank - 1) * (CHIP + RISE) + CHIP / 2, wide))
    bottom = top + max(ranks, default=0) * (CHIP + RISE) - (4 if box.steps else 0)
    return Laid(
        box=box,
        words=words,
        width=width,
        height=bottom + len(words) * WORDS + PAD,
        places=_centred(places, box.steps),
        way_in=left + paths / 2,
        lanes={step: left + paths + (i + 0.6) * LANE for i, step in enumerate(lanes)},
    )


def _widest(needs: Sequence[float], columns: Sequence[float]) -> list[float]:
    """The width of each column: that of the widest step in it."""
    widths: dict[int, float] = {}
    for need, column in zip(needs, columns, strict=True):
        widths[floor(column)] = max(need, widths.get(floor(column), 0))
    return [widths[n] for n in sorted(widths)]


def _centred(places: list[Place], steps: Sequence[Step]) -> list[Place]:
    """Every step that two below it read, or more from anywhere, above the middle of them.

    Its neighbours move aside; where there is no room for that, all stay as they are.
    """
    moved = list(places)
    for i, (_, y, wide) in enumerate(places):
        readers = [moved[j] for j, step in enumerate(steps) if i in step.sources]
        below = [place for place in readers if place[1] == y + CHIP + RISE]
        if len(readers) > 2 or len(below) == len(readers) == 2:
            moved[i] = (sum(x for x, _, _ in readers) / len(readers), y, wide)
    for y in {y for _, y, _ in places}:
        line = [i for i, place in enumerate(moved) if place[1] == y]
        line.sort(key=moved.__getitem__)
        for i, j in itertools.pairwise(line):
            least = moved[i][0] + (moved[i][2] + moved[j][2]) / 2 + GAP
            moved[j] = (max(moved[j][0], least), *moved[j][1:])
    room = max((x + wide / 2 for x, _, wide in places), default=0)
    return moved if all(x + wide / 2 <= room for x, _, wide in moved) else places


def _columns(steps: Sequence[Step]) -> tuple[list[int], list[float], list[int]]:
    """Of each step its row and column; and the steps that a shortcut from the input leads to.

    A step stands below the first of its sources whose column nothing has gone on in yet, or else
    in a new column; where the last paths meet is in the middle.
    """
    ranks: list[int] = []
    columns: list[float] = []
    ends: list[int] = []  # the last step of each column
    for i, step in enumerate(steps):
        ranks.append(1 + max((ranks[j] for j in step.sources if j >= 0), default=0))
        free = [columns[j] for j in step.sources if j >= 0 and ends[floor(columns[j])] == j]
        column = floor(free[0]) if free else len(ends)
        ends[column : column + 1] = [i]
        columns.append(column)
    if steps and len([j for j in steps[-1].sources if j >= 0]) > 1:
        met = [columns[j] for j in steps[-1].sources if j >= 0]
        columns[-1] = (min(met) + max(met)) / 2
        ranks[-1] = max(ranks[:-1]) + 1
    lanes = [i for i, step in enumerate(steps) if -1 in step.sources and ranks[i] > 1]
    return ranks, columns, lanes


def _words(box: Box) -> list[tuple[str, str]]:
    """The lines below the steps of a box, each with its colour."""
    first, last = box.outputs
    shape = f" {TIMES} ".join(map(str, first)) + (f" to {last[-1]}" if last != first else "")
    lines = [(shape, ACCENT)]
    if box.parameters:
        lines.append((f"{box.parameters:,} parameters", DIM))
    if box.quiet:
        lines.append((", ".join(box.quiet), DIM))
    if any(not step.sources for step in box.steps):
        lines.append(("too many paths to draw", DIM))
    if box.back not in ((), (1,)):
        lines.append((_reads(box), DIM))
    return lines


def _reads(box: Box) -> str:
    """Where a box takes its input from, when it is not only the box before it."""
    if box.count > 1:
        return f"reads {_listed([str(n) for n in box.back])} blocks back"
    return f"reads {_listed([_short(n) if n.startswith(box.row) else _full(n) for n in box.reads])}"


def _listed(words: Sequence[str]) -> str:
    """a, b and c; of many only the first."""
    shown = [*words[:4], "more"] if len(words) > 5 else list(words)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _title(box: Box) -> str:
    name = _short(box.name)
    if box.count == 1:
        return name
    word, _, number = name.partition(" ")
    last = _short(box.last_name).partition(" ")[2]
    return f"{word}s {number} to {last}  ({TIMES} {box.count})"


def _short(name: str) -> str:
    """stage3_block2 -> block 2."""
    name = name.rpartition("_")[2] if name.startswith("stage") else name.replace("_", " ")
    letters = name.rstrip("0123456789")
    return f"{letters.strip()} {name[len(letters) :]}".strip()


def _full(name: str) -> str:
    """stage3_block2 -> stage 3 block 2."""
    return " ".join(_short(part) for part in name.split("_"))


def _text(step: Step) -> str:
    return step.label + (f"  {TIMES} {step.times}" if step.times > 1 else "")


@cache
def _wide(text: str, size: float = SIZE, weight: str = "normal") -> float:
    """How wide a text is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(size=size, weight=weight)
    return float(TextPath((0, 0), text, prop=font).get_extents().width)


def _lines(found: Sequence[Laid], width: float, pack: bool) -> Iterator[list[Laid]]:
    """The boxes line by line: a new one for each stage, or where a stage does not fit whole.

    A stage wider than all is broken where the line is full.
    """
    line: list[Laid] = []
    used = 0.0
    for _, stage in itertools.groupby(found, key=lambda laid: laid.box.row):
        boxes_of_it = list(stage)
        wide = sum(laid.width + APART for laid in boxes_of_it)
        after_input = line and line[-1].box.row == "input"
        if line and not after_input and (not pack or used + wide > width):
            yield line
            line, used = [], 0.0
        for laid in boxes_of_it:
            if line and used + laid.width > width:
                yield line
                line, used = [], 0.0
            line.append(laid)
            used += laid.width + APART
    yield line


def _arrange(found: Sequence[Laid]) -> tuple[float, float]:
    """Give every box its place; the size of the whole picture."""
    for limit, pack in LAYOUTS:
        y, width = float(TOP), 460.0
        for line in _lines(found, limit, pack):
            x, high = float(MARGIN), max(laid.height for laid in line)
            for laid in line:
                laid.x, laid.y = x, y + (high - laid.height) / 2
                laid.top, laid.bottom = y, y + high
                x += laid.width + APART
            y += high + BELOW
            width = max(width, x)
        if y < TALL * width:
            break
    return width, y


# === Drawing ===


def _facts(model, found: Sequence[Laid]) -> str:
    """The line below the title: the inputs, the parameters and the work."""
    shape = " and ".join(f" {TIMES} ".join(map(str, x.shape[1:])) for x in model.inputs)
    macs = count(model).totals().macs
    parameters = sum(laid.box.parameters for laid in found)
    return f"{shape}    {parameters:,} parameters    {macs:,} multiply-adds"


def _draw_title(axes, name: str, facts: str, found: Sequence[Laid]) -> None:
    axes.text(MARGIN, 30, name, size=TITLE, weight="bold", color=INK, va="center")
    axes.text(MARGIN, 52, facts, size=9.5, color=DIM, va="center")
    x = float(MARGIN)
    used = {step.kind for laid in found for step in laid.box.steps}
    for kind, words in LEGEND.items():
        if kind in used:
            _draw_card(axes, (x, 69, 14, 10), COLOURS[kind], 3, 5)
            axes.text(x + 19, 74.5, words, size=8, color=DIM, va="center_baseline")
            x += 19 + _wide(words, 8) + 16


def _draw_lines(axes, found: Sequence[Laid]) -> None:
    """The names of the rows and the arrows from box to box."""
    before = None
    for laid in found:
        row = laid.box.row
        if before is not None and row not in ("stem", before.box.row):
            name, above = _short(row), laid.y - 9
            axes.text(laid.x + 2, above, name, size=9.5, color=DIM, va="center_baseline")
        if before is not None and 1 in laid.box.back:
            _draw_arrow(axes, before, laid)
        before = laid


def _draw_arrow(axes, before: Laid, laid: Laid) -> None:
    start = (before.x + before.width, before.y + before.height / 2)
    end = (laid.x, laid.y + laid.height / 2)
    corners = [start, end]
    if laid.top != before.top:
        out, into, below = start[0] + APART / 2, end[0] - APART / 2, laid.top - BELOW + APART / 2
        corners = [start, (out, start[1]), (out, below), (into, below), (into, end[1]), end]
    axes.plot(*zip(*corners, strict=True), color=LINE, lw=1.3, zorder=1, solid_joinstyle="round")
    head = [(end[0], end[1]), (end[0] - 6, end[1] - 3.5), (end[0] - 6, end[1] + 3.5)]
    axes.fill(*zip(*head, strict=True), color=LINE, lw=0, zorder=3)


def _draw_box(axes, laid: Laid) -> None:
    box, x, y = laid.box, laid.x, laid.y
    for offset in (6, 3, 0) if box.count > 1 else (0,):
        _draw_card(axes, (x + offset, y + offset, laid.width, laid.height), "#ffffff", 7, 2)
    middle = x + laid.width / 2
    axes.text(middle, y + PAD + 3, _title(box), size=9.5, weight="bold", color=INK, **CENTRED)
    if any(step.sources for step in box.steps):
        _draw_paths(axes, laid)
    for i, step in enumerate(box.steps):
        _draw_step(axes, step, laid, i)
    below = y + laid.height - PAD - len(laid.words) * WORDS + WORDS / 2
    for n, (text, colour) in enumerate(laid.words):
        axes.text(middle, below + n * WORDS, text, size=SIZE, color=colour, **CENTRED)


def _draw_card(axes, place: tuple[float, ...], colour: str, corner: float, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, width, height = place
    style = f"round,pad=0,rounding_size={corner}"
    card = FancyBboxPatch((x, y), width, height, boxstyle=style, fc=colour, ec=LINE, lw=0.8)
    card.set_zorder(order)
    axes.add_patch(card)


def _draw_step(axes, step: Step, laid: Laid, i: int) -> None:
    x, y, width = laid.places[i]
    place = (laid.x + x - width / 2, laid.y + y - CHIP / 2, width, CHIP)
    corner = CHIP / 2 if step.kind == "merge" else 4
    _draw_card(axes, place, COLOURS[step.kind], corner, 5)
    axes.text(laid.x + x, laid.y + y, _text(step), size=SIZE, color=INK, **CENTRED)


def _draw_paths(axes, laid: Laid) -> None:
    """The lines between the steps of a box, from its way in to its way out."""
    way_in = (laid.way_in, float(PAD + HEAD - RISE))
    axes.plot(laid.x + way_in[0], laid.y + way_in[1], "o", ms=3.5, color=LINE, zorder=4)
    for i, step in enumerate(laid.box.steps):
        x, y, _ = laid.places[i]
        end = (x, y - CHIP / 2)
        for source in step.sources:
            start, lane = way_in, laid.lanes.get(i, x)
            if source >= 0:
                start = (laid.places[source][0], laid.places[source][1] + CHIP / 2)
                lane = x if _is_blocked(laid, start, end) else start[0]
            _draw_curve(axes, [(laid.x + a, laid.y + b) for a, b in _bends(start, lane, end)])


def _is_blocked(laid: Laid, start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Whether another step stands straight below the start of a line, before its end."""
    return any(abs(x - start[0]) < wide / 2 and start[1] < y < end[1] for x, y, wide in laid.places)


def _bends(start, lane: float, end) -> list[tuple[float, float]]:
    """The corners of a line that runs down in a lane between its start and its end."""
    if end[1] - start[1] < 2 * RISE:
        return [start, end]
    points = [start, (lane, start[1] + RISE), (lane, end[1] - RISE), end]
    return [p for p, before in zip(points, [None, *points], strict=False) if p != before]


def _draw_curve(axes, points: Sequence[tuple[float, float]]) -> None:
    """A line through points that leaves and reaches each of them straight down."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        middle = (y + to_y) / 2
        vertices += [(x, middle), (to_x, middle), (to_x, to_y)]
        codes += [Curve.CURVE4] * 3
    axes.add_patch(PathPatch(Curve(vertices, codes), fc="none", ec=LINE, lw=1.1, zorder=3))
