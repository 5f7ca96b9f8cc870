"""Frames to figures, one function per kind of plot. The only file that imports matplotlib.

Every figure shows each seed as a thin line, their mean as a thick one and, from two seeds on, the 95 %
Student-t band of the mean. Lines are named at their ends. An arm keeps its colour in every figure (Okabe and
Ito's palette, which colour-blind readers can tell apart). Equal input gives equal bytes under one version of
matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import ParamSpec

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from opd_lib.maths import stats

STYLE = Path(__file__).with_name("opd.mplstyle")
PANEL_WIDTH, PANEL_HEIGHT = 3.3, 2.5  # inches
LABEL_GAP = 0.085  # smallest distance between two line labels, as a share of the axis height

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#777777"
ARM_COLOURS = {"success": BLUE, "failure": VERMILLION, "same_size": GREEN, "larger": PURPLE}
FREE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)

Reference = Sequence[tuple[str, float]]
Label = tuple[float, str, str]  # height (data), name, colour
P = ParamSpec("P")


class Chart(Figure):
    """A matplotlib figure that a notebook shows as a picture without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        with _style():
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=144)
            return buffer.getvalue()


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
def curves(frame: pd.DataFrame, column: str, ylabel: str, reference: Reference = ()) -> Chart:
    """One quantity against the training step; `frame` has columns arm, seed, step and `column`.

    `reference` holds (name, value) pairs, drawn as dashed lines.
    """
    chart, (axes,) = _row(1)
    _label_ends(axes, _draw_curves(axes, frame, column, reference))
    axes.set(xlabel="training step", ylabel=ylabel)
    return chart


@styled
def panels(
    frame: pd.DataFrame,
    columns: Sequence[str],
    titles: Sequence[str],
    units: Sequence[str],
    reference_lines: Mapping[str, Reference] | None = None,
) -> Chart:
    """One axis per column, side by side, each with its title and its unit.

    `reference_lines` maps a column to (name, value) pairs, drawn as dashed lines.
    Raises ValueError when columns, titles and units differ in number.
    """
    if not len(columns) == len(titles) == len(units):
        raise ValueError(f"{len(columns)} columns, {len(titles)} titles, {len(units)} units: give one of each")
    chart, row = _row(len(columns))
    for axes, column, title, unit in zip(row, columns, titles, units, strict=True):
        _label_ends(axes, _draw_curves(axes, frame, column, (reference_lines or {}).get(column, ())))
        axes.set(xlabel="training step", ylabel=unit, title=title)
    return chart


@styled
def accuracy_panels(evals: pd.DataFrame, teacher_lines: Mapping[str, Mapping[str, float]] | None = None) -> Chart:
    """One axis per test set, on one scale; `teacher_lines` maps a name to test set → accuracy (dashed)."""
    test_sets = sorted(evals["test_set"].unique())
    chart, row = _row(len(test_sets), share_y=True)
    ends = []
    for axes, test_set in zip(row, test_sets, strict=True):
        lines = [(name, scores[test_set]) for name, scores in (teacher_lines or {}).items()]
        ends.append(_draw_curves(axes, evals[evals["test_set"] == test_set], "accuracy", lines))
        axes.set(xlabel="training step", title=test_set)
    for axes, labels in zip(row, ends, strict=True):  # only now is the common scale known
        _label_ends(axes, labels)
    row[0].set_ylabel("accuracy (share correct)")
    return chart


@styled
def beside_paper(
    ours: pd.DataFrame,
    column: str,
    paper: pd.DataFrame,
    ylabel: str,
    paper_title: str = "paper",
    our_title: str = "ours",
) -> Chart:
    """Left the paper's digitised curves, right ours, each on its own axes: shapes compare, levels do not.

    `ours` has columns arm, seed, step and `column`; `paper` arm, step and value (see `reference.curve`).
    """
    chart, (left, right) = _row(2)
    _label_ends(left, _draw_curves(left, paper.assign(seed=0), "value", (), marker="o"))
    _label_ends(right, _draw_curves(right, ours, column, ()))
    left.set(xlabel="training step", ylabel=ylabel, title=paper_title)
    right.set(xlabel="training step", title=our_title)
    return chart


@styled
def bars(frame: pd.DataFrame, column: str, ylabel: str, reference: Mapping[str, float] | None = None) -> Chart:
    """One bar per arm (mean over seeds) with a dot per seed and the 95 % interval as a whisker.

    `frame` has columns arm, seed and `column`, one row each; `reference` maps arms to the paper's value.
    """
    arms = list(frame["arm"].unique())
    colours = colours_of(arms)
    chart, (axes,) = _row(1, width=0.9 + 0.85 * len(arms))
    for place, arm in enumerate(arms):
        values = frame[frame["arm"] == arm][column]
        found = stats.t_interval(list(values))
        axes.bar(place, found.estimate, width=0.6, color=colours[arm], alpha=0.35, gid=f"mean:{arm}")
        if found.n > 1:
            axes.vlines(place, found.low, found.high, color=colours[arm], linewidth=1.6)
        spread = [place + 0.2 * (i / max(1, found.n - 1) - 0.5) for i in range(found.n)]
        axes.plot(spread, values, "o", color=colours[arm], markersize=3.5, gid=f"seeds:{arm}")
        if arm in (reference or {}):
            axes.hlines(
                (reference or {})[arm],
                place - 0.38,
                place + 0.38,
                color=BLACK,
                linewidth=1.1,
                linestyle=(0, (3, 1.5)),
            )
    if reference:
        axes.set_title("dashed: the paper", fontweight="normal", fontsize=8, color=GREY, loc="right")
    axes.axhline(0, color=GREY, linewidth=0.7)
    axes.set_xticks(range(len(arms)), [arm.replace("_", "\n") for arm in arms])
    axes.set_ylabel(ylabel)
    axes.tick_params(axis="x", length=0)
    return chart


def colours_of(arms: Sequence[str]) -> dict[str, str]:
    """arm → colour: its own for a known arm; a new arm takes the next colour that no arm here has."""
    taken = {ARM_COLOURS[arm] for arm in arms if arm in ARM_COLOURS}
    free = cycle([colour for colour in FREE_COLOURS if colour not in taken] or FREE_COLOURS)
    return {arm: ARM_COLOURS.get(arm) or next(free) for arm in arms}


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


def _row(n: int, width: float = PANEL_WIDTH, share_y: bool = False) -> tuple[Chart, list[Axes]]:
    chart = Chart(figsize=(n * width, PANEL_HEIGHT))
    return chart, list(chart.subplots(1, n, squeeze=False, sharey=share_y)[0])


def _draw_curves(axes: Axes, frame: pd.DataFrame, column: str, reference: Reference, marker: str = "") -> list[Label]:
    """Seeds, mean and band of every arm, and where to write its name; the mean line's gid is `mean:ARM`."""
    labels: list[Label] = []
    for arm, colour in colours_of(list(frame["arm"].unique())).items():
        table = frame[frame["arm"] == arm].pivot(index="step", columns="seed", values=column).sort_index()
        found = [stats.t_interval(list(row)) for row in table.to_numpy()]
        mean = [interval.estimate for interval in found]
        if table.shape[1] > 1:
            axes.plot(table.index, table, color=colour, linewidth=0.6, alpha=0.35)
            low, high = [i.low for i in found], [i.high for i in found]
            axes.fill_between(table.index, low, high, color=colour, alpha=0.14, linewidth=0)
        axes.plot(table.index, mean, color=colour, marker=marker, markersize=2.5, gid=f"mean:{arm}")
        labels.append((mean[-1], arm.replace("_", " "), colour))
    for name, value in reference:
        axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), gid=f"reference:{name}")
        labels.append((value, name, GREY))
    return labels


def _label_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Name each line to the right of its end, pushed apart where two ends are close."""
    bottom, top = axes.get_ylim()
    ordered = sorted(labels)
    heights = [(value - bottom) / (top - bottom) for value, _, _ in ordered]
    for height, (_, name, colour) in zip(spread(heights, LABEL_GAP), ordered, strict=True):
        axes.text(1.02, height, name, color=colour, transform=axes.transAxes, va="center", fontsize=8)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The sorted heights moved apart to at least `gap`, each as little as its group allows, order kept."""
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) - _top(groups[-2], gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group, gap) + place * gap for group in groups for place in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return _bottom(group, gap) + gap * (len(group) - 1)
