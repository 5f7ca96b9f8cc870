"""What stands in a committed record stays the record of the run that its params file names."""

from __future__ import annotations

import json

import pytest

from opd_lib import params, paths
from opd_lib.params.schema.base import Strict

RECORDS = sorted(paths.RESULTS.glob("tiny/[0-9]*/*/seed*/run.json"))
NOTEBOOKS = sorted({path.parents[2].name for path in RECORDS})


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_committed_identities_are_those_of_the_params_files(notebook: str) -> None:
    experiment = params.load(notebook)
    for path in (path for path in RECORDS if path.parents[2].name == notebook):
        arm, seed = path.parents[1].name, int(path.parent.name.removeprefix("seed"))
        spec = experiment.spec(arm, seed)
        committed = json.loads(path.read_text())
        assert (spec.experiment, spec.arm) == (notebook, arm), "records stand where their run belongs"
        assert committed["identity"] == spec.identity, path
        assert committed["parents"] == {role: parent.identity for role, parent in spec.parents.items()}


def test_records_of_all_notebooks_are_looked_at() -> None:
    assert len(RECORDS) > 300 and len(NOTEBOOKS) >= 12


OPTIONAL: set[str] = set()
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
