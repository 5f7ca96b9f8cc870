"""Every notebook's cells run at paper scale, on fabricated records: no name of the tiny world is taken for granted."""

from __future__ import annotations

from pathlib import Path

import fabricated
import pandas as pd
import pytest

from opd_lib import paths
from opd_lib.report import claims
from opd_lib.report.figures.canvas import NO_RUNS
from opd_lib.run import plan, redraw, refresh

pytestmark = pytest.mark.notebook

NAMES = plan.notebooks("paper")
UNDECIDED = {claims.NOT_RUN, claims.INCONCLUSIVE}
ABSENT_ARMS = {"C1e"}
"""Claims about arms that paper scale does not have."""
ABSENT_NAMES = {"C1d", "C7c", "C8c", "H9"}
"""Claims that name a test set, depths or caps of the tiny world."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a record of every run of every notebook."""
    root = tmp_path_factory.mktemp("results")
    fabricated.write(plan.with_parents(plan.all_runs(plan.experiments(NAMES, "paper", root))))
    return root


def execute(name: str, results: Path) -> Path:
    """Where the notebook's figures and tables are, once its cells have been executed."""
    parameters = {"profile": "paper", "overrides": {}, "seeds": None, "results": str(results)}
    redraw.execute(paths.NOTEBOOKS / f"{name}.ipynb", parameters)
    return results / "paper" / name


def test_every_notebook_has_a_paper_scale() -> None:
    assert list(NAMES) == sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_and_judges_what_it_can(name: str, results: Path) -> None:
    made = execute(name, results)
    drawn = {path.stem for path in (made / "figures").glob("*.svg")}
    committed = {path.stem for path in (paths.RESULTS / "tiny" / name / "figures").glob("*.svg")}
    assert drawn == committed
    own = claims.load(paths.claims_file("rethinking_opd")).of(name)
    if own:
        verdicts = pd.read_csv(made / "tables" / "verdicts.csv").set_index("id")["verdict"]
        assert list(verdicts.index) == [claim.id for claim in own] and set(verdicts) <= UNDECIDED


def test_a_figure_of_runs_that_are_not_there_says_so(results: Path) -> None:
    made = execute("01_thinking_patterns", results)
    empty = {path.stem for path in (made / "figures").glob("*.svg") if NO_RUNS in path.read_text()}
    assert empty == {"exposure", "exposure_overlap", "exposure_curves"}
    assert pd.read_csv(made / "tables" / "exposure.csv").empty
    assert len(pd.read_csv(made / "tables" / "fig02_accuracy.csv")) == 2


def test_claims_about_what_this_profile_does_not_have_are_open(results: Path) -> None:
    judged = refresh.judge("paper", results).set_index("id")
    assert set(judged["verdict"]) <= UNDECIDED
    assert set(judged.index[judged["verdict"] == claims.NOT_RUN]) == ABSENT_ARMS
    assert set(judged.index[judged["estimate"].isna()]) == ABSENT_ARMS | ABSENT_NAMES
