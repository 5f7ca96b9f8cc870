"""Outcomes of arms as bars, and estimates with their intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd

from opd_lib.maths import stats
from opd_lib.report.figures.canvas import LABEL_SIZE, Chart, nothing, shown, styled
from opd_lib.report.figures.colours import BLACK, BLUE, GREY, colours_of, tint

NAME_WIDTH = 12  # characters that fit under a bar


@styled
def bars(frame: pd.DataFrame, column: str, ylabel: str, reference: Mapping[str, float] | None = None) -> Chart:
    """One bar per arm (mean over seeds) with a dot per seed and the 95 % interval as a whisker.

    `frame` has columns arm, seed and `column`, one row each; `reference` maps arms to the paper's value.
    An arm with a seed whose value is undefined says so and has no bar.
    """
    if frame.empty:
        return nothing()
    arms = list(frame["arm"].unique())
    chart = Chart(figsize=(0.9 + 0.85 * len(arms), 2.5))
    axes = chart.subplots()
    names = []
    for place, (arm, colour) in enumerate(colours_of(arms).items()):
        values = frame[frame["arm"] == arm][column]
        found = stats.t_interval(list(values))
        axes.bar(place, found.estimate, width=0.6, color=tint(colour), gid=f"mean:{arm}")
        spread = place + np.linspace(-0.18, 0.18, found.n) if found.n > 1 else [place]
        axes.plot(spread, values, "o", color=colour, markersize=3.2, markeredgewidth=0, gid=f"seeds:{arm}")
        if found.n > 1:
            axes.errorbar(place, found.estimate, found.half_width, color=BLACK, linewidth=1.0, capsize=2.5)
        name = textwrap.fill(shown(arm), NAME_WIDTH, break_long_words=False)
        names.append(f"{name}\n(undefined)" if math.isnan(found.estimate) else name)
        if arm in (reference or {}):
            ends = (place - 0.38, place + 0.38)
            axes.hlines((reference or {})[arm], *ends, color=BLACK, linewidth=1.1, linestyle=(0, (3, 1.5)))
    if reference:
        axes.set_title("dashed: the paper", fontweight="normal", fontsize=8, color=GREY, loc="right")
    axes.axhline(0, color=GREY, linewidth=0.7)
    axes.set_xlim(-0.6, len(arms) - 0.4)
    axes.set_xticks(range(len(arms)), names)
    axes.set_ylabel(ylabel)
    axes.tick_params(axis="x", length=0)
    return chart


@styled
def forest(frame: pd.DataFrame, xlabel: str, line: float = 0.0) -> Chart:
    """Estimates with their intervals, one row each from the top, against a line at 0 or elsewhere.

    `frame` has columns label, estimate, low and high (nan bounds: no interval); a column paper, or target, if there, is
    drawn as hollow diamonds.
    """
    names = [shown(label) for label in frame["label"]]
    chart = Chart(figsize=(max(5.2, 3.0 + 0.06 * max(map(len, names), default=0)), 0.75 + 0.24 * len(frame)))
    axes = chart.subplots()
    places = range(len(frame))
    axes.axvline(line, color=GREY, linewidth=0.9)
    axes.hlines(places, frame["low"], frame["high"], color=BLUE, linewidth=1.6)
    axes.plot(frame["estimate"], places, "o", color=BLUE, markersize=4.5, gid="estimate")
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
    return chart
