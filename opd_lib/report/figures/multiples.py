"""Small multiples: where many arms on one axis would hide each other, each has an axis of its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pandas as pd
from matplotlib.axes import Axes

from opd_lib.report.figures.canvas import Chart, Label, label_ends, nothing, shown, styled
from opd_lib.report.figures.colours import GREY, colours_of
from opd_lib.report.figures.lines import require_equally_many
from opd_lib.report.figures.strokes import (
    GEOMETRIC,
    STEP,
    STEP_LABEL,
    Reference,
    curve_of,
    draw_curves,
    ends,
    intervals_of,
)

WIDTH, HEIGHT = 1.55, 1.55  # inches of an axis where each column has a row
WIDE, HIGH = 2.3, 1.8  # and where there is one column alone
IN_A_ROW = 3
OTHERS = "#C4C4C4"


@styled
def multiples(
    frame: pd.DataFrame,
    columns: Sequence[str],
    titles: Sequence[str],
    units: Sequence[str],
    reference: Reference = (),
    x: str = STEP,
    xlabel: str = STEP_LABEL,
    log: Collection[str] = (),
) -> Chart:
    """An axis per arm, with its seeds, mean and band, before the means of all other arms in grey; one scale for all.

    `frame` and `x` are as in `curves`; of several columns each is a row of axes. `reference` holds (name, value) pairs,
    drawn as dashed lines; columns in `log` have a logarithmic axis and their geometric mean.
    Raises ValueError when columns, titles and units differ in number.
    """
    require_equally_many(columns, titles, units)
    if frame.empty:
        return nothing()
    arms = list(frame["arm"].unique())
    chart, rows = _grid(len(arms), len(columns))
    colours = colours_of(arms)
    for column, title, unit, places in zip(columns, titles, units, rows, strict=True):
        for axes, arm in zip(places, arms, strict=True):
            _draw_others(axes, frame[frame["arm"] != arm], column, x, column in log)
            draw_curves(axes, frame[frame["arm"] == arm], column, reference, x=x, log=column in log, colours=colours)
            if places is rows[0]:
                axes.set_title(shown(arm), color=colours[arm])
            axes.set_xlabel(xlabel)
            axes.set_ylabel("\n".join(words for words in (title, unit + GEOMETRIC * (column in log)) if words.strip()))
            axes.label_outer(remove_inner_ticks=False)
        lines = [Label(x=math.inf, y=value, name=name, colour=GREY) for name, value in reference]
        label_ends(places[-1], lines)
    if len(columns) == 1:
        _label_lowest(rows[0], xlabel)
    parts = dict(zip(titles if len(columns) > 1 else [""], columns, strict=True))
    return chart.captioned(ends(frame, parts, tuple(log), x))


def _grid(n_arms: int, n_columns: int) -> tuple[Chart, list[list[Axes]]]:
    """The axes of each column, an axis per arm: in rows of at most three if there is one column, else in one row."""
    if n_columns > 1:
        chart = Chart(figsize=(0.7 + WIDTH * n_arms, HEIGHT * n_columns))
        grid = chart.subplots(n_columns, n_arms, squeeze=False, sharex=True, sharey="row")
        return chart, [list(row) for row in grid]
    wide, high = min(n_arms, IN_A_ROW), math.ceil(n_arms / IN_A_ROW)
    chart = Chart(figsize=(1.2 + WIDE * wide, HIGH * high))
    places = list(chart.subplots(high, wide, squeeze=False, sharex=True, sharey=True).flat)
    for unused in places[n_arms:]:
        unused.remove()
    return chart, [places[:n_arms]]


def _label_lowest(places: Sequence[Axes], xlabel: str) -> None:
    """Name the ticks of each axis that has none below it, though it may not stand in the lowest row."""
    for axes in places[-IN_A_ROW:]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(xlabel)


def _draw_others(axes: Axes, frame: pd.DataFrame, column: str, x: str, log: bool) -> None:
    for _, rows in frame.groupby("arm", sort=False):
        xs, ys = curve_of(rows, x, column)
        means = [interval.estimate for interval in intervals_of(ys, log)]
        axes.plot(list(xs.mean(axis=1)), means, color=OTHERS, linewidth=0.8, zorder=1.5)
