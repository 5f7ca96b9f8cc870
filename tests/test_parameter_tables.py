"""The parameters of an experiment as a notebook shows them: what differs between arms first, all of them in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_html_tables import shell, shown

from opd_lib import params, paths
from opd_lib.report import html_tables, parameters, tables
from opd_lib.run import notebook

__all__ = ["shell"]  # a fixture
NAMES = ["01_thinking_patterns", "04_success_and_failure", "10_support_size"]
every_experiment = pytest.mark.parametrize("name", NAMES)


@every_experiment
def test_what_differs_stands_first_and_nothing_is_lost(name: str) -> None:
    experiment = params.load(name)
    table = experiment.table()
    differ = table.index[table["all arms"] == ""]
    assert 0 < len(differ) < len(table)
    first, heading, rest = parameters.text(table).split("\n\n")
    assert heading == f"{len(table) - len(differ)} parameters that all arms share"
    shared = table.index.difference(differ)
    assert set(differ) <= set(first.split()) and not set(shared) & set(first.split())
    assert [line.split()[0] for line in rest.splitlines()[2:]] == [key for key in table.index if key in shared]
    assert set(experiment.arms) <= set(first.split()), "each arm has its values"


def test_few_differing_parameters_are_columns_and_many_are_rows() -> None:
    two, nine = (parameters.text(params.load(name).table()).splitlines()[0].split() for name in NAMES[1:])
    assert two == ["arm", "student", "teacher"]
    assert nine == ["parameter", *params.load(NAMES[2]).arms]


@every_experiment
def test_html_folds_what_is_shared_below_what_differs(name: str) -> None:
    table = params.load(name).table()
    made = parameters.html(table)
    before, fold, folded = made.partition("<details>")
    assert fold and made.count("<table>") == 2 and before.count("<table>") == folded.count("<table>") == 1
    shared = table[table["all arms"] != ""]
    assert html_tables.rows(shared[["all arms"]].set_axis(["value"], axis=1).reset_index()) in folded
    assert all(f">{key}<" not in before for key in shared.index)


def test_arms_that_are_alike_show_all_parameters_at_once() -> None:
    alike = pd.DataFrame({"all arms": ["1", '"<a>"']}, index=pd.Index(["x", "y"], name="parameter"))
    assert parameters.text(alike).startswith("All 2 parameters\n\nparameter")
    made = parameters.html(alike)
    assert "<details open>" in made and made.count("<table>") == 1 and "&quot;&lt;a&gt;&quot;" in made


def test_arms_that_share_nothing_have_all_their_parameters_shown() -> None:
    apart = pd.DataFrame({"a": ["1", "2"], "b": ["3", "4"]}, index=pd.Index(["x", "y"], name="parameter"))
    assert parameters.text(apart) == tables.show(apart.reset_index())
    assert "<details" not in parameters.html(apart)


def test_a_notebook_shows_both_in_one_output(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = params.load(NAMES[1])
    captured = shown(shell, "show(experiment)", show=notebook.parameters, experiment=experiment)
    (output,) = captured.outputs
    table = experiment.table()
    assert output.data == {"text/plain": parameters.text(table), "text/html": parameters.html(table)}
    assert captured.stdout == ""


def test_parameters_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    notebook.parameters(params.load(NAMES[1]), leave_out=["train.lr"])
    said = capsys.readouterr().out
    assert "train.lr" not in said and "train.warmup" in said and "<" not in said
    with pytest.raises(ValueError, match=r"04_success_and_failure: no run has a parameter train\.lrr to leave out"):
        notebook.parameters(params.load(NAMES[1]), leave_out=["train.lrr"])


@pytest.mark.parametrize("path", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_show_parameters_in_this_way(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if "notebook.begin(" in source and not path.stem.startswith("11"):  # it has few columns of its own
        assert "notebook.parameters(experiment" in source and "experiment.table()" not in source
