"""One line for each arm: its seeds, their mean and its interval, on an axis; and what a caption says of its ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from opd_lib.judge.quantities import end_of
from opd_lib.maths import stats
from opd_lib.maths.stats import Interval
from opd_lib.report.figures import captions
from opd_lib.report.figures.canvas import KEY, Label, say_empty, shown
from opd_lib.report.figures.captions import Caption
from opd_lib.report.figures.colours import GREY, SOLID, colours_of, dashes_of

STEP = "step"
STEP_LABEL = "training step"
MEAN_WIDTH, LONE_WIDTH = 1.8, 1.3  # points: a mean of seeds, a single seed
FAINT_SEED, CLEAR_SEED = (0.6, 0.35), (0.9, 0.6)  # points and opacity of a seed's line: in its band, without one
CLEAR_ARMS = 4  # with more arms on an axis, seeds and bands become fainter
THOUSANDS = 10_000  # from here on 20k instead of 20000
GEOMETRIC = " (geometric mean)"
"""Said of a quantity on a logarithmic axis, where the mean of the logarithms is drawn."""

Reference = Sequence[tuple[str, float]]


def names_in(frame: pd.DataFrame, reference: Reference = ()) -> list[str]:
    """What stands at the ends of the lines, arms and reference lines, with the room for a key where dashes differ."""
    arms = list(frame["arm"].unique())
    key = KEY if set(dashes_of(arms).values()) - {SOLID} else ""
    return [*(key + arm for arm in arms), *(name for name, _ in reference)]


def draw_curves(
    axes: Axes,
    frame: pd.DataFrame,
    column: str,
    reference: Reference = (),
    x: str = STEP,
    marker: str = "",
    dots: bool = False,
    log: bool = False,
    colours: Mapping[str, str] | None = None,
    band_from: int = 2,
) -> list[Label]:
    """Seeds, mean and band of every arm, and where to write its name; the mean line's gid is `mean:ARM`.

    With `dots` the seeds are dots and each interval also a whisker, for settings are few and need no curve between.
    With `log` the axis is logarithmic, mean and interval are those of the logarithms, and where a seed's value is not
    above 0 there is a gap. `colours`: arm → colour, where a figure has more arms than this axis. With fewer seeds than
    `band_from` there is no band, and seeds are drawn more clearly. An empty frame leaves the axes to the reference
    lines, and they say so.
    """
    if frame.empty:
        say_empty(axes)
    elif log:
        axes.set_yscale("log")
    arms = list(frame["arm"].unique())
    colours, dashes = colours or colours_of(arms), dashes_of(arms)
    keyed = bool(set(dashes.values()) - {SOLID})
    faint = min(1.0, CLEAR_ARMS / max(1, len(arms)))
    labels = []
    for arm in arms:
        xs, ys = curve_of(frame[frame["arm"] == arm], x, column)
        place, found = list(xs.mean(axis=1)), intervals_of(ys, log)
        mean = [interval.estimate for interval in found]
        width = MEAN_WIDTH if ys.shape[1] > 1 else LONE_WIDTH
        (line,) = axes.plot(place, mean, color=colours[arm], linestyle=dashes[arm], linewidth=width, gid=f"mean:{arm}")
        line.set(marker="o" if dots else marker, markersize=2.5)
        if ys.shape[1] > 1:
            has_band = ys.shape[1] >= band_from
            _draw_seeds(axes, xs, ys, colours[arm], faint, dots, clear=not has_band)
            if has_band:
                _draw_band(axes, place, found, colours[arm], faint, dots)
        labels.append(_end_of(place, mean, shown(arm), colours[arm])._replace(dash=dashes[arm] if keyed else None))
    for name, value in reference:
        axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), gid=f"reference:{name}")
        labels.append(Label(x=np.inf, y=value, name=name, colour=GREY))
    if x != STEP and axes.get_xscale() == "linear" and max(axes.get_xlim()) >= THOUSANDS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return labels


def intervals_of(ys: pd.DataFrame, log: bool = False) -> list[Interval]:
    """The mean of each row over seeds with its 95 % interval; of the logarithms, in the values' unit, if `log`."""
    if not log:
        return [stats.t_interval(list(row)) for row in ys.to_numpy()]
    logs = [stats.t_interval(list(row)) for row in np.log(ys.where(ys > 0)).to_numpy()]
    return [
        Interval(estimate=np.exp(each.estimate), low=np.exp(each.low), high=np.exp(each.high), n=each.n)
        for each in logs
    ]


def ends(frame: pd.DataFrame, parts: dict[str, str], log: Sequence[str] = (), x: str = STEP) -> Caption:
    """The ends of the curves of these columns: heading → column. Of columns in `log`, their geometric mean."""
    numbers, n = {}, set()
    for heading, column in parts.items():
        found = {}
        for arm in frame["arm"].unique():
            _, ys = curve_of(frame[frame["arm"] == arm], x, column)
            last = pd.DataFrame([ys.apply(end_of)])
            found[shown(arm)] = captions.figure(intervals_of(last, column in log)[0].estimate)
            n.add(ys.shape[1])
        numbers[heading + GEOMETRIC if column in log else heading] = found
    return Caption(parts=numbers, n=frozenset(n), point=captions.END)


def _draw_seeds(
    axes: Axes, xs: pd.DataFrame, ys: pd.DataFrame, colour: str, faint: float, dots: bool, clear: bool
) -> None:
    if dots:
        axes.plot(xs, ys, "o", color=colour, markersize=2.6, alpha=0.5, markeredgewidth=0)
    else:
        width, alpha = CLEAR_SEED if clear else FAINT_SEED
        axes.plot(xs, ys, color=colour, linewidth=width, alpha=alpha * faint, zorder=1.9)


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
