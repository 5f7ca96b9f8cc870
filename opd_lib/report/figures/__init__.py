"""Frames to figures, one function per kind of plot. The only folder whose modules import matplotlib.

Every figure shows each seed as a thin line or a dot, their mean as a thick line and, from two seeds on, the 95 %
Student-t interval of the mean. Where a mean is the quantity of a claim, the interval of its verdict stands beside it as
a thin line. A chart's `caption` says its numbers in words. Names stand at the ends of the lines, not in a legend; where
many arms would hide each other, `multiples` gives each an axis. An arm keeps its colour in every figure (see
`colours`). Where a profile has none of the runs, the figure says so; a map of nothing is refused. Equal input gives
equal bytes under one version of matplotlib.
"""

from __future__ import annotations

from opd_lib.report.figures.bars import bars, forest
from opd_lib.report.figures.canvas import Chart, save
from opd_lib.report.figures.clouds import histograms, scatter
from opd_lib.report.figures.lines import accuracy_panels, beside_paper, curves, panels, sweep
from opd_lib.report.figures.maps import heat_maps
from opd_lib.report.figures.multiples import multiples
from opd_lib.report.figures.plotted import plotted

__all__ = [
    "Chart",
    "accuracy_panels",
    "bars",
    "beside_paper",
    "curves",
    "forest",
    "heat_maps",
    "histograms",
    "multiples",
    "panels",
    "plotted",
    "save",
    "scatter",
    "sweep",
]
