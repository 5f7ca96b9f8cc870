"""Curves over training steps and over settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from opd_lib.maths import stats
from opd_lib.maths.stats import Interval
from opd_lib.report.figures.canvas import Chart, Label, label_ends, nothing, rows_of_axes, say_empty, shown, styled
from opd_lib.report.figures.colours import GREY, colours_of, dashes_of

STEP = "step"
STEP_LABEL = "training step"
MEAN_WIDTH, LONE_WIDTH = 1.8, 1.3  # points: a mean of seeds, a single seed
CLEAR_ARMS = 4  # with more arms, seeds and bands become fainter
THOUSANDS = 10_000  # from here on 20k instead of 20000

Reference = Sequence[tuple[str, float]]


@styled
def curves(
    frame: pd.DataFrame,
    column: str,
    ylabel: str,
    reference: Reference = (),
    x: str = STEP,
    xlabel: str = STEP_LABEL,
) -> Chart:
    """One quantity against the training step; `frame` has columns arm, seed, step and `column`.

    `reference` holds (name, value) pairs, drawn as dashed lines. Any numeric column may be `x`; if the frame has steps
    as well, the mean over seeds is taken at equal steps, in both directions.
    """
    chart, (axes,) = rows_of_axes(1, names_in(frame, reference))
    label_ends(axes, draw_curves(axes, frame, column, reference, x=x))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return chart


@styled
def panels(
    frame: pd.DataFrame,
    columns: Sequence[str],
    titles: Sequence[str],
    units: Sequence[str],
    reference_lines: Mapping[str, Reference] | None = None,
) -> Chart:
    """One axis per column, in rows of at most three (four as two by two), each with its title and its unit.

    `reference_lines` maps a column to (name, value) pairs, drawn as dashed lines.
    Raises ValueError when columns, titles and units differ in number.
    """
    if not len(columns) == len(titles) == len(units):
        raise ValueError(f"{len(columns)} columns, {len(titles)} titles, {len(units)} units: give one of each")
    references = reference_lines or {}
    longest = max((references.get(column, ()) for column in columns), key=len)
    chart, places = rows_of_axes(len(columns), names_in(frame, longest))
    for axes, column, title, unit in zip(places, columns, titles, units, strict=True):
        label_ends(axes, draw_curves(axes, frame, column, references.get(column, ())))
        axes.set(xlabel=STEP_LABEL, ylabel=unit, title=title)
    return chart


@styled
def accuracy_panels(evals: pd.DataFrame, teacher_lines: Mapping[str, Mapping[str, float]] | None = None) -> Chart:
    """One axis per test set, on one scale; `teacher_lines` maps a name to test set → accuracy (dashed)."""
    if evals.empty:
        return nothing()
    test_sets = sorted(evals["test_set"].unique())
    teachers = teacher_lines or {}
    chart, places = rows_of_axes(len(test_sets), [*names_in(evals), *teachers], share_y=True)
    ends = []
    for axes, test_set in zip(places, test_sets, strict=True):
        lines = [(name, scores[test_set]) for name, scores in teachers.items()]
        ends.append(draw_curves(axes, evals[evals["test_set"] == test_set], "accuracy", lines))
        axes.set(xlabel=STEP_LABEL, title=test_set)
    for axes, labels in zip(places, ends, strict=True):  # only now is the common scale known
        label_ends(axes, labels)
    places[0].set_ylabel("accuracy (share correct)")
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
    chart, (left, right) = rows_of_axes(2, max(names_in(ours), names_in(paper), key=len))
    label_ends(left, draw_curves(left, paper.assign(seed=0), "value", marker="o"))
    label_ends(right, draw_curves(right, ours, column))
    left.set(xlabel=STEP_LABEL, ylabel=ylabel, title=paper_title)
    right.set(xlabel=STEP_LABEL, title=our_title)
    return chart


@styled
def sweep(
    frame: pd.DataFrame,
    x: str,
    column: str,
    xlabel: str,
    ylabel: str,
    reference: Reference = (),
    log_x: bool = False,
) -> Chart:
    """An outcome against a setting: a dot per seed, the mean as a line with its interval, a line per series.

    `frame` has columns series, seed, `x` and `column`, one row per seed and setting. `reference` holds (name, value)
    pairs, drawn as dashed lines. Raises ValueError for a setting ≤ 0 on a logarithmic axis.
    """
    if log_x and not (frame[x] > 0).all():
        raise ValueError(f"{x} has values ≤ 0, which a logarithmic axis cannot show; leave out log_x")
    named = frame[["series", "seed", x, column]].rename(columns={"series": "arm"})
    chart, (axes,) = rows_of_axes(1, names_in(named, reference))
    if log_x:
        axes.set_xscale("log")
        settings = sorted(frame[x].unique())
        axes.set_xticks(settings, [f"{value:g}" for value in settings])
        axes.xaxis.set_minor_locator(NullLocator())
    label_ends(axes, draw_curves(axes, named, column, reference, x=x, dots=True))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return chart


def names_in(frame: pd.DataFrame, reference: Reference = ()) -> list[str]:
    """What stands at the ends of the lines: the arms and the reference lines."""
    return [*frame["arm"].unique(), *(name for name, _ in reference)]


def draw_curves(
    axes: Axes,
    frame: pd.DataFrame,
    column: str,
    reference: Reference = (),
    x: str = STEP,
    marker: str = "",
    dots: bool = False,
) -> list[Label]:
    """Seeds, mean and band of every arm, and where to write its name; the mean line's gid is `mean:ARM`.

    With `dots` the seeds are dots and each interval also a whisker, for settings are few and need no curve between.
    An empty frame leaves the axes to the reference lines, and they say so.
    """
    if frame.empty:
        say_empty(axes)
    arms = list(frame["arm"].unique())
    colours, dashes = colours_of(arms), dashes_of(arms)
    faint = min(1.0, CLEAR_ARMS / max(1, len(arms)))
    labels = []
    for arm in arms:
        xs, ys = curve_of(frame[frame["arm"] == arm], x, column)
        place, found = list(xs.mean(axis=1)), [stats.t_interval(list(row)) for row in ys.to_numpy()]
        mean = [interval.estimate for interval in found]
        width = MEAN_WIDTH if ys.shape[1] > 1 else LONE_WIDTH
        (line,) = axes.plot(place, mean, color=colours[arm], linestyle=dashes[arm], linewidth=width, gid=f"mean:{arm}")
        line.set(marker="o" if dots else marker, markersize=2.5)
        if ys.shape[1] > 1:
            _draw_seeds(axes, xs, ys, colours[arm], faint, dots)
            _draw_band(axes, place, found, colours[arm], faint, dots)
        labels.append(_end_of(place, mean, shown(arm), colours[arm]))
    for name, value in reference:
        axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), gid=f"reference:{name}")
        labels.append(Label(x=np.inf, y=value, name=name, colour=GREY))
    if x != STEP and axes.get_xscale() == "linear" and max(axes.get_xlim()) >= THOUSANDS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return labels


def _draw_seeds(axes: Axes, xs: pd.DataFrame, ys: pd.DataFrame, colour: str, faint: float, dots: bool) -> None:
    if dots:
        axes.plot(xs, ys, "o", color=colour, markersize=2.6, alpha=0.5, markeredgewidth=0)
    else:
        axes.plot(xs, ys, color=colour, linewidth=0.6, alpha=0.35 * faint, zorder=1.9)


def _draw_band(
    axes: Axes, place: Sequence[float], found: Sequence[Interval], colour: str, faint: float, whiskers: bool
) -> None:
    """A band that does not widen the axis: the seeds set the scale, a wide interval runs out of it. Whiskers do."""
    low, high = [interval.low for interval in found], [interval.high for interval in found]
    if whiskers:
        axes.vlines(place, low, high, color=colour, linewidth=1.0)
    limits = axes.dataLim.frozen()
    axes.fill_between(place, low, high, color=colour, alpha=0.14 * faint, linewidth=0)
    axes.dataLim.set(limits)


def _end_of(x: Sequence[float], mean: Sequence[float], name: str, colour: str) -> Label:
    known = [(place, value) for place, value in zip(x, mean, strict=True) if np.isfinite(value)]
    place, value = known[-1] if known else (np.nan, np.nan)
    return Label(x=place, y=value, name=name, colour=colour)


def curve_of(rows: pd.DataFrame, x: str, column: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One arm's points as two tables, places and values, a row per point and a column per seed.

    A point is a step if a seed has each step once, else a value of `x`; where no seed has a value there is none, so
    that a line runs through the steps at which something was measured.
    Raises ValueError when a seed has a point twice.
    """
    key = STEP if STEP in rows and not rows.duplicated(["seed", STEP]).any() else x
    if rows.duplicated(["seed", key]).any():
        raise ValueError(
            f"arm {rows['arm'].iloc[0]!r} has several {column} at one {key} of one seed; average them first"
        )
    xs, ys = (rows.pivot(index=key, columns="seed", values=name).sort_index() for name in (x, column))
    is_there = ys.notna().any(axis=1) | ys.isna().all(axis=None)
    return xs[is_there], ys[is_there]
