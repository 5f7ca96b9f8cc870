"""What the panel of a training shows: lines not drowned by few seeds, names and units, and nothing that is not so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import micro
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba

from opd_lib.maths.diagnostics import UNITS
from opd_lib.report import figures
from opd_lib.run import columns, growing, live, panel
from opd_lib.run.background import DONE, FAILED, GOING, STOPPED, Training

pytest.importorskip("ipywidgets")
COLUMNS = ["loss", "grad_norm", "overlap_k16", "overlap_k64", "sampled_reverse_kl@large", "accuracy"]


def frame_of(n_seeds: int) -> pd.DataFrame:
    """Two arms; the seeds of one lie 1 apart."""
    rows = [(arm, seed, step, step + seed) for arm in ("a", "b") for seed in range(n_seeds) for step in range(4)]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "loss"])


@pytest.mark.parametrize(("n_seeds", "bands"), [(1, 0), (2, 0), (4, 0), (5, 2)])
def test_few_seeds_are_lines_and_their_mean_without_a_band(n_seeds: int, bands: int) -> None:
    chart = figures.panels(frame_of(n_seeds), ["loss"], ["loss"], [""], band_from=panel.BAND_FROM)
    (axes,) = chart.axes
    assert sum(isinstance(artist, PolyCollection) for artist in axes.collections) == bands
    colour = next(line.get_color() for line in axes.lines if line.get_gid() == "mean:a")
    lines = [line for line in axes.lines if to_rgba(line.get_color()) == to_rgba(colour) and len(line.get_xdata()) == 4]
    assert len(lines) == (n_seeds + 1 if n_seeds > 1 else 1)
    low, high = axes.get_ylim()
    assert -0.7 <= low <= 0 and n_seeds + 2 <= high <= n_seeds + 3.2, "the seeds set the scale"


def test_committed_figures_have_their_bands_from_two_seeds_on() -> None:
    (axes,) = figures.panels(frame_of(2), ["loss"], ["loss"], [""]).axes
    assert sum(isinstance(artist, PolyCollection) for artist in axes.collections) == 2


def test_every_column_has_a_name_and_its_unit() -> None:
    words = {columns.name(column) for column in UNITS}
    assert len(words) == len(UNITS) and not any("_" in name for name in words)
    assert set(columns.NAMES) <= set(UNITS)
    assert all(columns.unit(f"{column}_k16") == unit for column, (unit, _) in UNITS.items())


def test_a_column_is_chosen_by_its_name_and_by_what_it_is_called() -> None:
    assert [columns.chosen(columns.name(column), COLUMNS) for column in COLUMNS] == COLUMNS
    assert [columns.chosen(column, COLUMNS) for column in COLUMNS] == COLUMNS
    with pytest.raises(ValueError, match=r"no 'acuracy'; choose from loss, .*accuracy"):
        columns.chosen("acuracy", COLUMNS)


def in_panel(world: Path, check: Callable[[live.View], None]) -> None:
    """Call `check` with the panel of a training that nobody has begun."""
    experiment = micro.load(world, seeds=(0, 1))
    for spec in experiment.runs():
        micro.write_record(spec, status="running")

    async def kernel() -> None:
        view = live.View(Training(experiment, 1))
        view.refresh()
        check(view)

    asyncio.run(kernel())


def test_names_are_offered_and_columns_are_drawn(world: Path) -> None:
    def check(view: live.View) -> None:
        assert view._add.options == ("loss",) and len(view._pictures.children) == 1
        view._add.value = "los"
        view.refresh()
        assert "there is no &#x27;los&#x27;" in view._text.value and view._chosen.value == []
        view._add.value = "loss"
        view.refresh()
        assert view._add.value == "" and view._chosen.value == ["loss"]
        assert "there is no" not in view._text.value

    in_panel(world, check)


def test_a_panel_has_names_and_units(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, str]] = []
    frame = frame_of(2).assign(overlap_k16=0.5, grad_norm=1.0)
    draw = figures.panels

    def noted(*arguments: Any, **options: Any) -> figures.Chart:
        (axes,) = (chart := draw(*arguments, **options)).axes
        drawn.append((axes.get_title("left"), axes.get_ylabel()))
        return chart

    monkeypatch.setattr(growing, "curves", lambda specs: frame)
    monkeypatch.setattr(figures, "panels", noted)

    def check(view: live.View) -> None:
        drawn.clear()
        view._chosen.value = ["gradient norm", "overlap (k = 16)", "loss"]
        view.draw()

    in_panel(world, check)
    assert drawn == [("gradient norm", ""), ("overlap (k = 16)", "share"), ("loss", "nats/token")]


@pytest.mark.parametrize("state", [GOING, STOPPED, FAILED, DONE])
def test_a_training_says_what_it_is_and_how_to_go_on(world: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    training = Training(micro.load(world, seeds=(0, 1)), 1)
    monkeypatch.setattr(Training, "state", state)
    said = repr(training)
    assert "\n" not in said and said.startswith(f"training of {micro.MODELS} at tiny: 6 runs, {state}; ")
    assert all(hasattr(training, name) for name in re.findall(r"(\w+)\(\)", said)) and "()" in said
    training.replaced = True
    assert "a later cell trains them" in repr(training)


def test_what_a_page_keeps_of_a_dead_kernel_names_its_time(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(view: live.View) -> None:
        assert re.search(r"as of \d\d:\d\d:\d\d</pre>$", view._text.value)
        assert panel.ENDED in view._text.value and panel.ENDED_TRAINING not in view._text.value
        monkeypatch.setattr(Training, "state", GOING)
        view._due = 0.0
        view.refresh()
        assert panel.ENDED_TRAINING in view._text.value

    in_panel(world, check)
