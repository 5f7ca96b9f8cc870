"""Curves over training steps and over settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
from matplotlib.ticker import NullLocator

from opd_lib.report.figures import captions
from opd_lib.report.figures.canvas import Chart, label_ends, nothing, rows_of_axes, shown, styled
from opd_lib.report.figures.captions import Caption
from opd_lib.report.figures.strokes import (
    GEOMETRIC,
    STEP,
    STEP_LABEL,
    Reference,
    curve_of,
    draw_curves,
    ends,
    intervals_of,
    names_in,
)

IN_PAPER = "in the paper"


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
    return chart.captioned(ends(frame, {"": column}, x=x))


@styled
def panels(
    frame: pd.DataFrame,
    columns: Sequence[str],
    titles: Sequence[str],
    units: Sequence[str],
    reference_lines: Mapping[str, Reference] | None = None,
    log: Collection[str] = (),
    share_y: bool = False,
    band_from: int = 2,
) -> Chart:
    """One axis per column, in rows of at most three (four as two by two), each with its title and its unit.

    `reference_lines` maps a column to (name, value) pairs, drawn as dashed lines. Columns in `log` are drawn on a
    logarithmic axis, with their geometric mean; with `share_y` all axes have one scale. An arm of fewer seeds than
    `band_from` has no band.
    Raises ValueError when columns, titles and units differ in number.
    """
    require_equally_many(columns, titles, units)
    references = reference_lines or {}
    longest = max((references.get(column, ()) for column in columns), key=len)
    chart, places = rows_of_axes(len(columns), names_in(frame, longest), share_y)
    drawn = []
    for axes, column, title, unit in zip(places, columns, titles, units, strict=True):
        reference = references.get(column, ())
        drawn.append(draw_curves(axes, frame, column, reference, log=column in log, band_from=band_from))
        axes.set(xlabel=STEP_LABEL, ylabel=(unit + GEOMETRIC if column in log else unit).strip(), title=title)
    for axes, labels in zip(places, drawn, strict=True):  # only now is a common scale known
        label_ends(axes, labels)
        if share_y:
            axes.label_outer(remove_inner_ticks=False)
    return chart.captioned(ends(frame, dict(zip(titles, columns, strict=True)), tuple(log)))


def require_equally_many(columns: Sequence[str], titles: Sequence[str], units: Sequence[str]) -> None:
    """Raise ValueError when columns, titles and units differ in number."""
    if not len(columns) == len(titles) == len(units):
        raise ValueError(f"{len(columns)} columns, {len(titles)} titles, {len(units)} units: give one of each")


@styled
def accuracy_panels(evals: pd.DataFrame, teacher_lines: Mapping[str, Mapping[str, float]] | None = None) -> Chart:
    """One axis per test set, on one scale; `teacher_lines` maps a name to test set → accuracy (dashed)."""
    if evals.empty:
        return nothing()
    test_sets = {name: evals[evals["test_set"] == name] for name in sorted(evals["test_set"].unique())}
    teachers = teacher_lines or {}
    chart, places = rows_of_axes(len(test_sets), [*names_in(evals), *teachers], share_y=True)
    drawn = []
    for axes, (test_set, rows) in zip(places, test_sets.items(), strict=True):
        lines = [(name, scores[test_set]) for name, scores in teachers.items()]
        drawn.append(draw_curves(axes, rows, "accuracy", lines))
        axes.set(xlabel=STEP_LABEL, title=test_set)
    for axes, labels in zip(places, drawn, strict=True):  # only now is the common scale known
        label_ends(axes, labels)
    places[0].set_ylabel("accuracy (share correct)")
    each = [ends(rows, {test_set: "accuracy"}) for test_set, rows in test_sets.items()]
    return chart.captioned(captions.joined(each))


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
    theirs, found = ends(paper.assign(seed=0), {IN_PAPER: "value"}), ends(ours, {"": column})
    return chart.captioned(Caption(parts={**found.parts, **theirs.parts}, n=found.n, point=found.point))


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
    return chart.captioned(_from_first_to_last(named, x, column, ylabel))


def _from_first_to_last(named: pd.DataFrame, x: str, column: str, ylabel: str) -> Caption:
    """The means of each series (`ylabel`, if there is one without a name) at its smallest and its largest setting."""
    parts, n = {}, set()
    for arm in named["arm"].unique():
        xs, ys = curve_of(named[named["arm"] == arm], x, column)
        first, last = (captions.figure(interval.estimate) for interval in intervals_of(ys.iloc[[0, -1]]))
        parts[shown(arm) or ylabel] = {"": f"{first} at {xs.index[0]:g}, {last} at {xs.index[-1]:g}"}
        n.add(ys.shape[1])
    return Caption(parts=parts, n=frozenset(n))
