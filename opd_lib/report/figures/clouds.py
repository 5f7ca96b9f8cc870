"""Where single values lie: histograms and scatter plots."""

from __future__ import annotations

import numpy as np
import pandas as pd

from opd_lib.report.figures import captions
from opd_lib.report.figures.canvas import LABEL_GAP, Chart, crowding, nothing, rows_of_axes, shown, styled, write_beside
from opd_lib.report.figures.captions import Caption
from opd_lib.report.figures.colours import BLUE, FREE_COLOURS, VERMILLION, colours_of

BINS = 40
MARKERS = ("o", "s", "^", "D", "v", "P")


@styled
def histograms(frame: pd.DataFrame, column: str, by: str, xlabel: str) -> Chart:
    """One axis per arm: the values of all its seeds in two histograms, where `by` is true and where it is not.

    Bins are common to all arms; each histogram adds up to 1. Dashed lines stand at the means.
    """
    if frame.empty:
        return nothing()
    arms = list(frame["arm"].unique())
    edges = np.histogram_bin_edges(frame[column].dropna(), bins=BINS)
    chart, places = rows_of_axes(len(arms), [f"not {by} (n = 0000)"])
    means: dict[str, dict[str, str]] = {shown(arm): {} for arm in arms}
    for axes, arm in zip(places, arms, strict=True):
        rows = frame[frame["arm"] == arm].dropna(subset=[column, by])
        for place, (value, name, colour) in enumerate([(True, by, BLUE), (False, f"not {by}", VERMILLION)]):
            values = rows[rows[by].astype(bool) == value][column].to_numpy()
            counts, _ = np.histogram(values, bins=edges)
            axes.stairs(counts / max(1, len(values)), edges, color=colour, linewidth=1.4, gid=f"{arm}:{name}")
            if len(values):
                axes.axvline(values.mean(), color=colour, linewidth=0.8, linestyle=(0, (4, 3)))
                means[shown(arm)][name] = captions.figure(float(values.mean()))
            write_beside(axes, 0.95 - place * LABEL_GAP, f"{name} (n = {len(values)})", colour)
        axes.set(xlabel=xlabel, ylabel="share of responses", title=shown(arm))
    return chart.captioned(Caption(parts=means, point=f"mean of all responses of {frame['seed'].nunique()} seeds"))


@styled
def scatter(frame: pd.DataFrame, x: str, y: str, xlabel: str, ylabel: str, group: str) -> Chart:
    """One dot per row, with colour and shape of its `group`; the groups are named at the right."""
    if frame.empty:
        return nothing()
    groups = {str(name): rows for name, rows in frame.groupby(group, sort=False)}
    colours = colours_of(list(groups))
    chart, (axes,) = rows_of_axes(1, list(groups))
    for place, (name, rows) in enumerate(groups.items()):
        marker = MARKERS[(place + place // len(FREE_COLOURS)) % len(MARKERS)]
        height = 0.96 - place * LABEL_GAP / crowding(len(groups))
        key = axes.plot(1.05, height, marker, color=colours[name], transform=axes.transAxes, clip_on=False)
        dots = axes.plot(rows[x], rows[y], marker, color=colours[name], alpha=0.75, gid=f"group:{name}")
        for line in (*key, *dots):
            line.set(markersize=4.5, markeredgewidth=0)
        write_beside(axes, height, shown(name), colours[name], indent=0.04)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(x=0.04)
    axes.grid(visible=True, axis="x")
    spans = {
        label: [captions.figure(float(end)) for end in (frame[c].min(), frame[c].max())]
        for label, c in ((xlabel, x), (ylabel, y))
    }
    said = {f"{label} from": f"{low} to {high}" for label, (low, high) in spans.items()}
    return chart.captioned(Caption(parts={f"{len(frame)} dots": said}))
