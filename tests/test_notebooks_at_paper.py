"""Every notebook's cells run at paper scale, on fabricated records: no name of the tiny world is taken for granted.

So do those of the profiles that have a few of its notebooks and runs, gpu-math and rehearsal.
"""

from __future__ import annotations

from pathlib import Path

import fabricated
import pandas as pd
import pytest

from opd_lib import paths
from opd_lib.batch import redraw, refresh
from opd_lib.judge import claims
from opd_lib.judge.quantities import SeedView
from opd_lib.report import tables
from opd_lib.report.figures.canvas import NO_RUNS
from opd_lib.run import evidence, plan

pytestmark = pytest.mark.notebook

NAMES = plan.notebooks("paper")
EACH = [(profile, name) for profile in ("paper", "gpu-math", "rehearsal") for name in plan.notebooks(profile)]
LEFT_OUT = {"paper": {"C1e"}, "gpu-math": {"C4s"}, "rehearsal": set()}
"""profile → claims of its notebooks that it has no part in"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a record of every run of every notebook."""
    root = tmp_path_factory.mktemp("results")
    for profile in LEFT_OUT:
        experiments = plan.experiments(plan.notebooks(profile), profile, root)
        fabricated.write(plan.with_parents(plan.all_runs(experiments)))
    return root


def execute(profile: str, name: str, results: Path) -> Path:
    """Where the notebook's figures and tables are, once its cells have been executed."""
    parameters = {"profile": profile, "overrides": {}, "seeds": None, "results": str(results)}
    redraw.execute(paths.NOTEBOOKS / f"{name}.ipynb", parameters)
    return results / profile / name


def left_out(verdicts: pd.Series) -> set[str]:
    """The ids whose verdict is that the profile has no part in them; all others are inconclusive: one seed."""
    excused = verdicts.str.startswith(claims.NOT_PART)
    assert set(verdicts[~excused]) <= {claims.INCONCLUSIVE}
    return set(verdicts.index[excused])


def test_every_notebook_has_a_paper_scale() -> None:
    assert list(NAMES) == sorted(path.stem for path in paths.PARAMS.glob("tiny/*.yaml"))


@pytest.mark.parametrize(("profile", "name"), EACH)
def test_every_cell_runs_and_every_claim_is_judged_or_excused(profile: str, name: str, results: Path) -> None:
    made = execute(profile, name, results)
    drawn = {path.stem for path in (made / "figures").glob("*.svg")}
    committed = {path.stem for path in (paths.RESULTS / "tiny" / name / "figures").glob("*.svg")}
    assert drawn == committed
    own = claims.load(paths.claims_file("rethinking_opd")).of(name)
    if own:
        verdicts = pd.read_csv(made / "tables" / "verdicts.csv").set_index("id")["verdict"]
        assert list(verdicts.index) == [claim.id for claim in own]
        assert left_out(verdicts) == LEFT_OUT[profile] & set(verdicts.index)


def test_a_figure_of_runs_that_are_not_there_says_so(results: Path) -> None:
    made = execute("paper", "01_thinking_patterns", results)
    empty = {path.stem for path in (made / "figures").glob("*.svg") if NO_RUNS in path.read_text()}
    assert empty == {"exposure", "exposure_overlap", "exposure_curves"}
    assert pd.read_csv(made / "tables" / "exposure.csv").empty
    assert len(pd.read_csv(made / "tables" / "fig02_accuracy.csv")) == 2


def test_a_table_of_settings_of_a_run_that_is_not_there_has_dashes_only(results: Path) -> None:
    made = execute("rehearsal", "00_models", results) / "tables"
    assert set(pd.read_csv(made / "table1_grpo.csv")["ours"]) == {tables.MISSING}
    assert set(pd.read_csv(made / "table2_opd.csv")["ours"]) == {tables.MISSING}
    assert (pd.read_csv(made / "table3_sft.csv").set_index("item")["ours"] == "run:00_models/distill-small").any()


def test_every_claim_is_judged_at_paper_scale_and_what_is_not_says_why(results: Path) -> None:
    judged = refresh.judge("paper", results).set_index("id")
    assert left_out(judged["verdict"]) == LEFT_OUT["paper"]
    assert judged["verdict"]["C1e"].startswith("not part of profile paper: a 1.7B student")
    assert set(judged.index[judged["estimate"].isna()]) == LEFT_OUT["paper"]


def test_the_teachers_compared_at_paper_scale_are_those_of_the_two_runs(results: Path) -> None:
    found = evidence.read("paper", results)
    register = claims.load(paths.claims_file("rethinking_opd"))
    (claim,) = (claim for claim in register.claims if claim.id == "C1a")
    view = SeedView(evidence=found, experiment=claim.notebook, seed=0)
    scores = [view.checkpoint(found.teachers[claim.notebook][arm]) for arm in ("compatible", "incompatible")]
    assert claim.per_seed(found) == {0: pytest.approx(abs(scores[0] - scores[1]))}
    assert found.teachers[claim.notebook]["incompatible"] == "nt-large"
