"""What every figure shares: its style, its axes in rows, names at the ends of lines, and how it is written."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from opd_lib.report.figures.captions import Caption
from opd_lib.report.figures.captions import shown as shown
from opd_lib.report.figures.colours import LineStyle

STYLE = Path(__file__).parents[1] / "opd.mplstyle"
PANEL_WIDTH, PANEL_HEIGHT = 3.3, 2.5  # inches
LONE_AXIS = 0.8  # inches wider if it is the only one
PANELS_IN_A_ROW = 3
LABEL_GAP = 0.085  # smallest distance between two line labels, as a share of the axis height of PANEL_HEIGHT
LABEL_TOP = 0.96  # the highest place of a label, which leaves the title alone
LABELS_THAT_FIT = 10  # labels beside an axis of PANEL_HEIGHT; more make it taller
LABEL_SIZE = 8  # points
CHARACTER = 0.066  # inches, the mean width of one at LABEL_SIZE
NO_RUNS = "no such runs at this profile"
KEY = "     "  # room before a name for a piece of its line, where lines of one colour differ in their dashes
KEY_WIDTH, KEY_LINE = 0.3, 1.5  # inches of that piece, and points of its line
LEADER = "_leader"
"""The label of a dotted line from the end of a curve that ends early to its name."""
LEADERS = "Dotted: from a line's end to its name."
CLOSE = 0.05  # a line that ends nearer to the right border, as a share of the axis width, ends there

P = ParamSpec("P")


class Label(NamedTuple):
    """A name to write beside its line's end, which is at (x, y) in data; x = inf: the line has no end.

    `dash`: the line's dashes, a piece of which is drawn before the name; None: colours tell lines apart.
    """

    x: float
    y: float
    name: str
    colour: str
    dash: LineStyle | None = None


class Chart(Figure):
    """A matplotlib figure that a notebook shows as a picture without pyplot and its global state.

    `caption`: what stands under it; whoever draws it says that with `said`.
    """

    caption: Caption = Caption(parts={})

    def captioned(self, caption: Caption) -> Chart:
        """The chart with this caption, which also says what dotted lines are, if there are any."""
        has_leaders = any(line.get_label() == LEADER for axes in self.axes for line in axes.lines)
        marks = f"{caption.marks} {LEADERS}".lstrip() if has_leaders else caption.marks
        self.caption = replace(caption, marks=marks)
        return self

    def png(self) -> bytes:
        """The figure as a PNG file."""
        with _style():
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=144)
            return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(fname=STYLE)


def styled(draw: Callable[P, Chart]) -> Callable[P, Chart]:
    """Draw under our style and nothing else: a user's own matplotlibrc changes no byte."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Chart:
        with _style():
            return draw(*args, **kwargs)

    return drawn


@styled
def save(chart: Chart, path: Path) -> Chart:
    """Write the figure as SVG, whole or not at all, and return it. Equal figures give equal bytes."""
    drawing = io.BytesIO()
    chart.savefig(drawing, format="svg", metadata={"Date": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(drawing.getvalue())
    part.replace(path)
    return chart


def rows_of_axes(n: int, names: Sequence[str], share_y: bool = False) -> tuple[Chart, list[Axes]]:
    """n axes in rows of at most three (four as two by two), with room for these names at the ends of their lines."""
    columns = 2 if n == 4 else min(n, PANELS_IN_A_ROW)
    rows = math.ceil(n / columns)
    width = max(PANEL_WIDTH, 2.4 + CHARACTER * max(map(len, names), default=0)) + (LONE_AXIS if n == 1 else 0)
    height = PANEL_HEIGHT * crowding(len(names))
    chart = Chart(figsize=(columns * width, rows * height))
    axes = list(chart.subplots(rows, columns, squeeze=False, sharey=share_y).flat)
    for unused in axes[n:]:
        unused.remove()
    return chart, axes[:n]


def crowding(n: int) -> float:
    """How many times taller than usual an axis must be for n names beside it; at least 1."""
    return max(1.0, n / LABELS_THAT_FIT)


def label_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Name each line to the right of its end. Call it last: the limits of the axis must not change afterwards.

    Where ends are close, names move apart and a thin line leads to each; a dotted one where a line ends early.
    """
    ordered = sorted((label for label in labels if math.isfinite(label.y)), key=lambda label: (label.y, label.name))
    heights = heights_of(axes, [label.y for label in ordered])
    gap = LABEL_GAP / crowding(len(labels))
    for height, place, label in zip(heights, spread(heights, gap), ordered, strict=True):
        end = axes.transAxes.inverted().transform(axes.transData.transform((label.x, label.y)))[0]
        if end < 1 - CLOSE:
            _draw(axes, (end, 1.0), (height, height), label.colour, ":").set_label(LEADER)
        if abs(height - place) > gap / 8:
            _draw(axes, (1.0, 1.035), (height, place), label.colour, "-")
        indent = 0.0
        if label.dash is not None:
            indent = KEY_WIDTH * axes.figure.dpi / axes.bbox.width
            _draw(axes, (1.045, 1.02 + indent), (place, place), label.colour, label.dash, linewidth=KEY_LINE)
        write_beside(axes, place, label.name, label.colour, indent)


def heights_of(axes: Axes, values: Sequence[float]) -> list[float]:
    """Where values lie on the y axis, which may be logarithmic: 0 at its lower end, 1 at its upper end."""
    scale = axes.yaxis.get_transform()
    bottom, top = (float(end) for end in scale.transform(axes.get_ylim()))
    return [(float(scale.transform([value])[0]) - bottom) / (top - bottom) for value in values]


def write_beside(axes: Axes, height: float, text: str, colour: str, indent: float = 0.0) -> None:
    """Text to the right of an axis, at a height between 0 and 1."""
    axes.text(1.04 + indent, height, text, color=colour, transform=axes.transAxes, va="center", fontsize=LABEL_SIZE)


def say_empty(axes: Axes) -> None:
    """Say in place of what would be drawn that there is nothing to draw."""
    axes.text(0.5, 0.5, NO_RUNS, transform=axes.transAxes, ha="center", va="center", fontsize=LABEL_SIZE, gid="empty")


def nothing() -> Chart:
    """A chart that says that there is nothing to draw."""
    chart, (axes,) = rows_of_axes(1, [])
    axes.set_axis_off()
    say_empty(axes)
    return chart


def _draw(
    axes: Axes, xs: tuple[float, float], ys: tuple[float, float], colour: str, style: Any, linewidth: float = 0.6
) -> Line2D:
    """A line in parts of the axis, which may leave it: none of the data."""
    line = Line2D(xs, ys, color=colour, linewidth=linewidth, linestyle=style, transform=axes.transAxes, clip_on=False)
    axes.add_artist(line)
    return line


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The sorted heights moved apart to at least `gap`, each as little as its group allows, order kept.

    Groups stay between 0 and LABEL_TOP as long as they fit there.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) - _top(groups[-2], gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group, gap) + place * gap for group in groups for place in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    height = gap * (len(group) - 1)
    return max(0.0, min(sum(group) / len(group) - height / 2, LABEL_TOP - height))


def _top(group: Sequence[float], gap: float) -> float:
    return _bottom(group, gap) + gap * (len(group) - 1)
