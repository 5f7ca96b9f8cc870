"""Frames to figures, one function per kind of plot. The only folder whose modules import matplotlib.

Every figure shows each seed as a thin line or a dot, their mean as a thick line and, from two seeds on, the 95 %
Student-t interval of the mean; beside a mean that a claim is about, the interval of its verdict as a thin line. Its
`caption` says the numbers in words. Names stand at the ends of the lines, not in a legend; more than four arms have an
axis each (`multiples`). An arm keeps its colour in every
figure (see `colours`). Where a profile has none of the runs, the figure says so; a map of nothing is refused. Equal
input gives equal bytes under one version of matplotlib.
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
