"""What is committed was computed by the params files as they stand: each record has the identity they give today."""

from __future__ import annotations

import json
from functools import cache

import pytest

from opd_lib import params, paths
from opd_lib.params import Experiment

RECORDS = sorted(path for path in paths.RESULTS.glob("*/*/*/*/run.json") if not path.is_relative_to(paths.LOCAL))


@cache
def experiment(name: str, profile: str) -> Experiment:
    return params.load(name, profile)


def test_there_are_records_to_be_held_to() -> None:
    assert len(RECORDS) > 300


@pytest.mark.parametrize("notebook", sorted({path.parents[2].name for path in RECORDS}))
def test_committed_records_have_the_identity_and_the_place_that_params_give_them(notebook: str) -> None:
    for path in (path for path in RECORDS if path.parents[2].name == notebook):
        content = json.loads(path.read_text())
        spec = experiment(content["experiment"], content["profile"]).spec(content["arm"], content["seed"])
        assert spec.identity == content["identity"], f"{path}: params of {spec.name} mean another run today"
        assert spec.folders[0] == path.parent
        assert spec.params.model_dump(mode="json") | {"machine": 0} == content["params"] | {"machine": 0}
