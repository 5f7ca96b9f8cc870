"""The numbers that a figure shows, apart from where and how its pixels lie: what must be equal on every machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection, LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.ticker import FixedLocator

DIGITS = 6
"""Significant digits that are kept; records have seven."""

COLOUR_BAR = "<colorbar>"
"""What matplotlib calls the axes of a colour scale."""


def plotted(chart: Figure) -> str:
    """The numbers and words of a figure as JSON, a line for each line, bar, area or map of each of its axes.

    Lines and dots give their points, areas and whiskers their corners, bars x, y, width and height, steps their values
    and edges, maps their cells (null: no value). What is placed in parts of the axis instead of data gives nothing.
    """
    rows: list[dict[str, Any]] = []
    for axes in chart.axes:
        if axes.get_label() == COLOUR_BAR:
            rows.append({"scale": axes.get_ylabel(), "ends": rounded(np.asarray(axes.get_ylim()))})
            continue
        titles = {side: axes.get_title(side) for side in ("left", "right") if axes.get_title(side)}
        rows.append({"axes": titles | {"x": axes.get_xlabel(), "y": axes.get_ylabel(), "words": words(axes)}})
        rows += [mark for artist in axes.get_children() for mark in marks(artist, axes)]
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]\n"


def marks(artist: Artist, axes: Axes) -> Iterator[dict[str, Any]]:
    """What one part of an axis shows of the data; nothing if it is no mark or stands elsewhere."""
    name = {"name": artist.get_gid()} if artist.get_gid() else {}
    if isinstance(artist, Line2D) and artist.get_transform().contains_branch_seperately(axes.transData) != (
        False,
        False,
    ):
        yield {"line": rounded(np.asarray(artist.get_xydata()).T)} | name
    elif isinstance(artist, QuadMesh):
        values: np.ndarray[Any, Any] = np.ma.filled(np.ma.asarray(artist.get_array(), dtype=float), np.nan)
        corners = np.asarray(artist.get_coordinates())
        yield {"map": rounded(values), "x": rounded(corners[0, :, 0]), "y": rounded(corners[:, 0, 1])} | name
    elif isinstance(artist, LineCollection):
        yield {"whiskers": [rounded(np.asarray(segment)) for segment in artist.get_segments()]} | name
    elif isinstance(artist, Collection):
        yield from ({"area": rounded(np.asarray(path.vertices).T)} | name for path in artist.get_paths())
    elif isinstance(artist, StepPatch):
        values, edges, _ = artist.get_data()
        yield {"steps": rounded(np.asarray(values)), "edges": rounded(np.asarray(edges))} | name
    elif isinstance(artist, Rectangle) and artist is not axes.patch:
        yield {"bar": rounded(np.asarray([*artist.get_xy(), artist.get_width(), artist.get_height()]))} | name


def words(axes: Axes) -> list[str]:
    """What is written in and beside an axis, sorted, and the names at its ticks where the figure sets them."""
    written = sorted(text.get_text() for text in axes.texts)
    return written + [name for axis in (axes.xaxis, axes.yaxis) for name in tick_names(axis)]


def tick_names(axis: Axis) -> list[str]:
    """The names at an axis' ticks; none where matplotlib chooses ticks, which is its own affair."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return []
    return [label.get_text() for label in axis.get_ticklabels()]


def rounded(values: np.ndarray[Any, Any]) -> Any:
    """Nested lists of numbers with DIGITS significant digits; null where there is none, or an infinite one."""
    if values.ndim > 1:
        return [rounded(row) for row in values]
    return [short(float(value)) for value in values]


def short(value: float) -> float | int | None:
    """One number as JSON has it; whole ones without a point."""
    if not np.isfinite(value):
        return None
    number = float(f"{value:.{DIGITS}g}")
    return int(number) if number.is_integer() else number
