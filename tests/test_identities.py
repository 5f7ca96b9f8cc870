"""What is committed was computed by the params files as they stand: each record has the identity they give today."""

from __future__ import annotations

import json
from functools import cache

import pytest

from opd_lib import params, paths
from opd_lib.params import Experiment
from opd_lib.params.schema.base import Strict
from opd_lib.records import files

RECORDS = [run for profile in sorted(paths.RESULTS.glob("*")) if profile != paths.LOCAL for run in files.runs(profile)]
"""The folders of all committed runs, packed or not."""
NOTEBOOKS = sorted({run.parents[1].name for run in RECORDS})
TINY = [run for run in RECORDS if run.is_relative_to(paths.RESULTS / "tiny")]


@cache
def experiment(name: str, profile: str) -> Experiment:
    return params.load(name, profile)


def test_records_of_all_notebooks_are_looked_at() -> None:
    assert len(TINY) > 300 and len(set(RECORDS)) == len(RECORDS)
    assert len({run.parents[1].name for run in TINY}) >= 12


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_committed_records_have_the_identity_and_the_place_that_params_give_them(notebook: str) -> None:
    for run in (run for run in RECORDS if run.parents[1].name == notebook):
        content = json.loads(files.read(run, "run.json") or b"")
        profile, arm, seed = run.parents[2].name, run.parents[0].name, int(run.name.removeprefix("seed"))
        said = (content["profile"], content["experiment"], content["arm"], content["seed"])
        assert said == (profile, notebook, arm, seed), f"{run}: says it is the record of another run"
        spec = experiment(notebook, profile).spec(arm, seed)
        assert (spec.experiment, spec.arm) == (notebook, arm), "records stand where their run belongs"
        assert spec.folders[0] == run
        assert spec.identity == content["identity"], f"{run}: params of {spec.name} mean another run today"
        assert content["parents"] == {role: parent.identity for role, parent in spec.parents.items()}
        assert spec.params.said() | {"machine": 0} == content["params"] | {"machine": 0}


OPTIONAL = {"Machine.network", "Machine.stop_on_collapse", "Diagnose.hedges"}
"""Keys that a params file may leave out, each with a neutral default: silence says what it always said."""


def test_no_key_of_the_schema_has_a_default_but_those_that_came_later() -> None:
    """A key that gets a default would vanish from identities where a file says just that."""
    found = {
        f"{model.__name__}.{name}"
        for model in Strict.__subclasses__()
        + [each for child in Strict.__subclasses__() for each in child.__subclasses__()]
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    assert found == OPTIONAL
