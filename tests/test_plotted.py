"""The numbers of a figure are those of the frame it was drawn from; layout and style say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from opd_lib.report import figures
from opd_lib.report.outputs import Outputs


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two arms, two seeds, three steps."""
    rows = [(arm, seed, step) for arm in ("success", "failure") for seed in (0, 1) for step in (1, 2, 4)]
    made = pd.DataFrame(rows, columns=["arm", "seed", "step"])
    return made.assign(value=[0.1 * place + 1 / 3 for place in range(len(made))])


def read(chart: figures.Chart) -> list[dict[str, Any]]:
    return json.loads(figures.plotted(chart))


def named(chart: figures.Chart, name: str) -> dict[str, Any]:
    (found,) = [row for row in read(chart) if row.get("name") == name]
    return found


def test_a_line_is_the_mean_of_the_seeds_to_six_digits(frame: pd.DataFrame) -> None:
    chart = figures.curves(frame, "value", "share", [("teacher", 0.5)])
    mean = frame[frame["arm"] == "success"].groupby("step")["value"].mean()
    assert named(chart, "mean:success")["line"] == [[1, 2, 4], [float(f"{value:.6g}") for value in mean]]
    assert named(chart, "reference:teacher")["line"] == [[0, 1], [0.5, 0.5]]
    assert read(chart)[0]["axes"] == {"x": "training step", "y": "share", "words": ["failure", "success", "teacher"]}


def test_seeds_bands_and_nothing_of_the_layout(frame: pd.DataFrame) -> None:
    rows = read(figures.curves(frame, "value", "share"))
    assert sum("line" in row for row in rows) == 2 * (1 + 2), "a mean and two seeds each; no lead to a name"
    assert sum("area" in row for row in rows) == 2
    assert len(rows) == 1 + 6 + 2


def test_bars_steps_and_maps(frame: pd.DataFrame) -> None:
    ends = frame[frame["step"] == 4]
    bar = named(figures.bars(ends, "value", "share"), "mean:success")["bar"]
    assert bar[3] == pytest.approx(ends[ends["arm"] == "success"]["value"].mean(), rel=1e-5)
    values = frame.assign(correct=frame["seed"] == 0)
    steps = named(figures.histograms(values, "value", "correct", "nats"), "success:correct")
    assert sum(steps["steps"]) == pytest.approx(1, abs=1e-4) and len(steps["edges"]) == len(steps["steps"]) + 1
    depth = frame.assign(depth=[0, 4] * 6, n_tokens=3)
    depth.loc[0, "value"] = np.nan
    cells = named(figures.heat_maps(depth, "value", "nats"), "map:success")
    assert np.shape(cells["map"]) == (3, 2) and None in np.ravel(cells["map"])
    assert any("scale" in row for row in read(figures.heat_maps(depth, "value", "nats")))


def test_another_number_is_another_text_a_rounding_error_is_not(frame: pd.DataFrame) -> None:
    text = figures.plotted(figures.curves(frame, "value", "share"))
    near, far = frame.assign(value=frame["value"] * (1 + 1e-15)), frame.assign(value=frame["value"] * 1.001)
    assert figures.plotted(figures.curves(near, "value", "share")) == text
    assert figures.plotted(figures.curves(far, "value", "share")) != text


def test_it_stands_beside_the_figure_and_drawing_it_changes_no_byte(frame: pd.DataFrame, tmp_path: Path) -> None:
    chart = figures.curves(frame, "value", "share")
    Outputs(tmp_path).figure("fig", chart)
    figures.save(figures.curves(frame, "value", "share"), tmp_path / "alone.svg")
    assert (tmp_path / "figures" / "fig.svg").read_bytes() == (tmp_path / "alone.svg").read_bytes()
    assert (tmp_path / "figures" / "fig.json").read_text() == figures.plotted(chart)
