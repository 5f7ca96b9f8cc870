"""Outcomes of arms as bars, and estimates with their intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from opd_lib.maths import stats
from opd_lib.report.figures import captions
from opd_lib.report.figures.canvas import LABEL_SIZE, Chart, nothing, shown, styled
from opd_lib.report.figures.captions import Caption
from opd_lib.report.figures.colours import BLACK, BLUE, GREY, colours_of, tint
from opd_lib.report.verdicts import JudgedInterval

NAME_WIDTH = 12  # characters that fit under a bar
BESIDE, BELOW = 0.24, 0.27  # how far a verdict's interval lies from the bar's middle, or below the row
TICK, SHORT_TICK = 0.16, 0.07  # half the length of the tick at a claimed bound: in a row, beside a bar
THIN = 0.8  # points
SAID = 8  # estimates that a caption names

Judged = Mapping[str, JudgedInterval]


@styled
def bars(
    frame: pd.DataFrame,
    column: str,
    ylabel: str,
    reference: Mapping[str, float] | None = None,
    judged: Judged | None = None,
) -> Chart:
    """One bar per arm (mean over seeds) with a dot per seed and the 95 % interval as a whisker.

    `frame` has columns arm, seed and `column`, one row each; `reference` maps arms to the paper's value, `judged` to
    the interval of the claim that is about this very mean, a thin line beside the whisker. An arm with a seed whose
    value is undefined says so and has no bar. Raises ValueError for a claim about something else.
    """
    if frame.empty:
        return nothing()
    arms = list(frame["arm"].unique())
    chart = Chart(figsize=(0.9 + 0.85 * len(arms), 2.5))
    axes = chart.subplots()
    names, means, n = [], {}, set()
    for place, (arm, colour) in enumerate(colours_of(arms).items()):
        values = frame[frame["arm"] == arm][column]
        found = stats.t_interval(list(values))
        axes.bar(place, found.estimate, width=0.6, color=tint(colour), gid=f"mean:{arm}")
        spread = place + np.linspace(-0.18, 0.18, found.n) if found.n > 1 else [place]
        axes.plot(spread, values, "o", color=colour, markersize=3.2, markeredgewidth=0, gid=f"seeds:{arm}")
        if found.n > 1:
            axes.errorbar(place, found.estimate, found.half_width, color=BLACK, linewidth=1.4, capsize=2.5)
        if arm in (judged or {}):
            _draw_verdict(axes, (judged or {})[arm], arm, found.estimate, place + BESIDE, upright=True)
        name = textwrap.fill(shown(arm), NAME_WIDTH, break_long_words=False)
        names.append(f"{name}\n(undefined)" if math.isnan(found.estimate) else name)
        if arm in (reference or {}):
            ends = (place - 0.38, place + 0.38)
            axes.hlines((reference or {})[arm], *ends, color=BLACK, linewidth=1.1, linestyle=(0, (3, 1.5)))
        means[shown(arm)] = captions.figure(found.estimate)
        n.add(found.n)
    if reference:
        axes.set_title("dashed: the paper", fontweight="normal", fontsize=8, color=GREY, loc="right")
    axes.axhline(0, color=GREY, linewidth=0.7)
    axes.set_xlim(-0.6, len(arms) - 0.4)
    axes.set_xticks(range(len(arms)), names)
    axes.set_ylabel(ylabel)
    axes.tick_params(axis="x", length=0)
    marks = captions.of_verdicts(judged or {})
    return chart.captioned(Caption(parts={ylabel: means}, n=frozenset(n), marks=marks))


@styled
def forest(frame: pd.DataFrame, xlabel: str, line: float = 0.0, judged: Judged | None = None) -> Chart:
    """Estimates with their intervals, one row each from the top, against a line at 0 or elsewhere.

    `frame` has columns label, estimate, low and high (nan bounds: no interval), and n, if estimates are means over as
    many seeds; a column paper, or target, if there, is drawn as hollow diamonds. `judged` maps labels to the interval
    of the claim about this estimate, a thin line below it. Raises ValueError for a claim about something else.
    """
    names = [shown(label) for label in frame["label"]]
    chart = Chart(figsize=(max(5.2, 3.0 + 0.06 * max(map(len, names), default=0)), 0.75 + 0.24 * len(frame)))
    axes = chart.subplots()
    places = range(len(frame))
    axes.axvline(line, color=GREY, linewidth=0.9)
    axes.hlines(places, frame["low"], frame["high"], color=BLUE, linewidth=1.6)
    axes.plot(frame["estimate"], places, "o", color=BLUE, markersize=4.5, gid="estimate")
    for place, label, estimate in zip(places, frame["label"], frame["estimate"], strict=True):
        if label in (judged or {}):
            _draw_verdict(axes, (judged or {})[label], label, estimate, place + BELOW, upright=False)
    for other in (name for name in ("paper", "target") if name in frame):
        axes.plot(frame[other], places, "D", color=BLACK, markersize=5, fillstyle="none", gid=other)
        axes.set_title(f"◇ the {other}", fontweight="normal", fontsize=LABEL_SIZE, color=GREY, loc="right")
    axes.set_yticks(places, names)
    axes.set_ylim(len(frame) - 0.5, -0.5)
    axes.margins(x=0.05)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(xlabel)
    n = frozenset(map(int, frame["n"])) if "n" in frame else frozenset()
    about = [shown(label) for label in judged or {}]
    parts = {xlabel: _estimates(names, list(frame["estimate"]), about)}
    return chart.captioned(Caption(parts=parts, n=n, marks=captions.of_verdicts(judged or {})))


def _estimates(names: Sequence[str], estimates: Sequence[float], about: Sequence[str]) -> dict[str, str]:
    """name → estimate as text; of many those that claims are `about`, and their range."""
    said = dict(zip(names, map(captions.figure, estimates), strict=True))
    if len(names) <= SAID:
        return said
    low, high = (captions.figure(end) for end in (np.nanmin(estimates), np.nanmax(estimates)))
    span = {f"all {len(names)} estimates from": f"{low} to {high}"}
    return {name: said[name] for name in about if name in said} | span


def _draw_verdict(axes: Axes, judged: JudgedInterval, name: str, mean: float, place: float, upright: bool) -> None:
    """The interval of a claim's verdict, with a tick at the bound that is claimed; nothing if it is not known."""
    judged.require_same(mean, name)
    if judged.is_known:
        along, across = (axes.vlines, axes.hlines) if upright else (axes.hlines, axes.vlines)
        along(place, judged.low, judged.high, color=BLACK, linewidth=THIN, gid=f"verdict:{judged.claim}")
        half = SHORT_TICK if upright else TICK
        for bound in judged.bounds:
            across(bound, place - half, place + half, color=BLACK, linewidth=THIN, gid=f"bound:{judged.claim}")
