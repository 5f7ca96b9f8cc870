"""Heat maps over response position and training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize

from opd_lib.report.figures import captions
from opd_lib.report.figures.canvas import Chart, shown, styled
from opd_lib.report.figures.captions import Caption
from opd_lib.report.figures.colours import GREY

COLOUR_MAP = "viridis"  # perceptually uniform, also without red or green
MAPS_IN_A_ROW = 4
NOTHING = "#F0F0F0"  # where no response was so long
FEW = 0.02  # a cell with a smaller share of the tokens of its map's fullest one does not stretch the colour scale


@styled
def heat_maps(depth: pd.DataFrame, column: str, label: str, arms: Sequence[str] | None = None) -> Chart:
    """One map per arm (mean over seeds): x response position, y training step, one colour scale for all.

    `depth` has columns arm, seed, step, depth (first token of a bucket), n_tokens and `column`; `label` names the scale
    with its unit. The strip under each map shows the tokens at each position per step (mean over seeds and steps):
    where they are few, so are the responses behind a colour. Cells with nearly none do not stretch the scale, whose
    pointed ends then say that values lie beyond. Raises ValueError for an arm that the frame does not have, and if
    nothing is defined.
    """
    arms = list(arms if arms is not None else depth["arm"].unique())
    unknown = sorted(set(arms) - set(depth["arm"]))
    if unknown:
        raise ValueError(f"arms {unknown} have no rows; the frame has {', '.join(depth['arm'].unique())}")
    drawn = depth[depth["arm"].isin(arms)]
    if drawn[column].isna().all():
        raise ValueError(f"{column} is undefined at every step and position of {', '.join(arms)}; draw another column")
    edges = bucket_edges(drawn["depth"])
    values = {arm: cell_means(drawn[drawn["arm"] == arm], column, edges[:-1]) for arm in arms}
    tokens = {arm: cell_tokens(drawn[drawn["arm"] == arm], edges[:-1]) for arm in arms}
    scale, extend = colour_scale(list(values.values()), list(tokens.values()))
    most = max(float(table.mean().max()) for table in tokens.values())
    chart, maps, strips = _grid(len(arms))
    for arm, upper, strip in zip(arms, maps, strips, strict=True):
        mesh = _draw_map(upper, values[arm], edges, scale, gid=f"map:{arm}")
        upper.set_title(shown(arm))
        strip.stairs(tokens[arm].mean(), edges, fill=True, color=GREY, alpha=0.5, gid=f"tokens:{arm}")
        strip.set_ylim(0, 1.1 * most)
    bar = chart.colorbar(mesh, ax=[*maps, *strips], label=label, extend=extend, aspect=30, pad=0.02)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face")
    ends = {shown(arm): _ends_of(values[arm], tokens[arm]) for arm in arms}
    n = frozenset(int(drawn[drawn["arm"] == arm]["seed"].nunique()) for arm in arms)
    return chart.captioned(Caption(parts={f"{label}, lowest to highest": ends}, n=n))


def cell_means(rows: pd.DataFrame, column: str, depths: Sequence[float]) -> pd.DataFrame:
    """Mean over seeds of `column`, a row per step and a column per depth; nan where no response was so long."""
    means = rows.groupby(["step", "depth"])[column].mean()
    return means.unstack("depth").reindex(columns=depths)


def cell_tokens(rows: pd.DataFrame, depths: Sequence[float]) -> pd.DataFrame:
    """Tokens per seed, a row per step and a column per depth; 0 where no response was so long."""
    total = rows.groupby(["step", "depth"])["n_tokens"].sum()
    return total.unstack("depth").reindex(columns=depths).fillna(0) / rows["seed"].nunique()


def colour_scale(values: Sequence[pd.DataFrame], tokens: Sequence[pd.DataFrame]) -> tuple[Normalize, str]:
    """The range of all cells but those with few tokens for their map, and at which ends these lie beyond it."""
    cells = np.concatenate([table.to_numpy().ravel() for table in values])
    share = np.concatenate([(table / table.to_numpy().max()).to_numpy().ravel() for table in tokens])
    known = np.isfinite(cells)
    common = cells[known & (share >= FEW)]
    low, high = common.min(), common.max()
    beyond = (bool((cells[known] < low).any()), bool((cells[known] > high).any()))
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    return Normalize(low, high), ends[beyond]


def _ends_of(values: pd.DataFrame, tokens: pd.DataFrame) -> str:
    """The range of a map's cells but for those with few tokens."""
    common = values.where(tokens / tokens.to_numpy().max() >= FEW)
    return f"{captions.figure(float(np.nanmin(common)))} to {captions.figure(float(np.nanmax(common)))}"


def bucket_edges(depths: pd.Series) -> list[float]:
    """Borders of all buckets from the first to the last, none left out (tokens); a single bucket is one token wide."""
    starts = np.sort(depths.unique())
    width = float(np.diff(starts).min()) if len(starts) > 1 else 1.0
    n_buckets = round((starts[-1] - starts[0]) / width) + 1
    return [float(starts[0] + place * width) for place in range(n_buckets + 1)]


def row_edges(steps: Sequence[float]) -> list[float]:
    """Borders halfway between recorded steps; the first row starts at 0 at the earliest."""
    if len(steps) == 1:
        return [steps[0] - 0.5, steps[0] + 0.5]
    middles = [(before + after) / 2 for before, after in pairwise(steps)]
    first, last = 2 * steps[0] - middles[0], 2 * steps[-1] - middles[-1]
    return [max(0.0, first), *middles, last]


def _grid(n: int) -> tuple[Chart, list[Axes], list[Axes]]:
    """n maps in balanced rows, each with its strip below."""
    rows = math.ceil(n / MAPS_IN_A_ROW)
    columns = math.ceil(n / rows)
    chart = Chart(figsize=(1.4 + 2.1 * columns, 2.9 * rows))
    grid = chart.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=[3.4, 1] * rows)
    for axes in grid[1::2].flat:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("response position (token)")
    for axes in grid[:, 1:].flat:
        axes.tick_params(labelleft=False)
    for label, line in (("training step", grid[::2, 0]), ("tokens\nper step", grid[1::2, 0])):
        for axes in line:
            axes.set_ylabel(label)
    maps, strips = list(grid[::2].flat), list(grid[1::2].flat)
    for unused in (*maps[n:], *strips[n:]):
        unused.remove()
    return chart, maps[:n], strips[:n]


def _draw_map(axes: Axes, table: pd.DataFrame, edges: Sequence[float], scale: Normalize, gid: str) -> QuadMesh:
    axes.set_facecolor(NOTHING)
    axes.grid(visible=False)
    return axes.pcolormesh(
        edges,
        row_edges(list(table.index)),
        np.ma.masked_invalid(table.to_numpy()),
        cmap=COLOUR_MAP,
        norm=scale,
        edgecolor="face",
        linewidth=0.2,
        gid=gid,
    )
