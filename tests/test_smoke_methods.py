"""Every method of params/smoke/93_methods.yaml by `opd run`, from nothing: what it leaves in the record is its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import foreign_teacher
import pandas as pd
import pytest
from typer.testing import CliRunner

from opd_lib import methods, params
from opd_lib.command.cli import app
from opd_lib.engine.model import models
from opd_lib.methods import grpo, opd, own, sft
from opd_lib.params import RunSpec, refusals
from opd_lib.params.spec import FINISHED
from opd_lib.records import record
from opd_lib.run import plan
from opd_lib.tasks import tool

NAME = "93_methods"
ARMS = params.load(NAME, "smoke").arms
ELSEWHERE = {module.__name__.rpartition(".")[2] for module in (grpo, opd, own, sft)}
"""Methods that notebooks train with."""

Says = Callable[[pd.DataFrame], bool]
LEAVES: dict[str, tuple[Sequence[str], Says]] = {
    "vopd": ((), lambda s: (s["loss"] != s["sampled_reverse_kl"]).all()),  # a baseline has been taken off
    "filled": ((), lambda s: (s["loss"] < s["reverse_kl"]).all()),
    "blind": ((), lambda s: (s["loss"] > 0).all()),  # the divergence itself, whose gradient teaches nothing
    "prune": (
        ("effective_length", "limit_hits", "source.max_new_tokens", "method.limit_start"),
        lambda s: s["source.max_new_tokens"].nunique() > 1 and (s["effective_length"] <= s["response_length"]).all(),
    ),
    "opsd": ((), lambda s: (s["reverse_kl"] > 0).all()),  # the same weights, but the teacher was shown the answer
    "opsd-follows": ((), lambda s: (s["reverse_kl"] > 0).all()),
    "opsdc": ((), lambda s: (s["reverse_kl"] > 0).all()),
    "stable": (
        ("golden.loss", "golden.n_tokens"),
        lambda s: (s["golden.loss"] > 0).all() and (s["golden.n_tokens"] < s["n_tokens"]).all(),
    ),
    "eff_opd": (("tried_tokens",), lambda s: s["tried_tokens"][0] == 0 < s["tried_tokens"][1] < s["tried_tokens"][2]),
    "brts": (
        ("teacher.loss", "teacher.n_tokens", "teacher.tier1", "teacher.tier2"),
        lambda s: (s["teacher.loss"] > 0).all() and s["teacher.n_tokens"].between(4, 4 * 24).all(),  # one of each three
    ),
    "uni_opd": ((), lambda s: (s["n_tokens"] < 16 * s["response_length"] - 0.5).any()),  # groups were balanced
    "sod": ((), lambda s: (s["n_tokens"] < 16 * s["response_length"] - 0.5).all()),  # what the tool says is not trained
    "simct": (("taught_share",), lambda s: s["taught_share"].min() < 1 and s["reverse_kl"].isna().all()),
}
"""arm → columns of `steps` that its method needs, and what must be so of its rows."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the models that these runs begin with, and a teacher of other tokens in `foreign`."""
    folder = tmp_path_factory.mktemp("methods")
    foreign_teacher.save(folder / "foreign")
    for spec in plan.with_parents(params.load(NAME, "smoke", results=folder).runs()):
        if spec.experiment != NAME:
            opd_run(spec, folder)
    return folder


def opd_run(spec: RunSpec, folder: Path, overrides: str = "{}") -> None:
    """What a reader types."""
    words = ["run", spec.experiment, spec.arm, str(spec.seed), "--profile", "smoke"]
    done = CliRunner().invoke(app, [*words, "--results", str(folder), "--overrides", overrides])
    assert done.exit_code == 0, done.output


def test_every_method_without_a_notebook_has_an_arm_here_and_is_looked_at() -> None:
    assert {arm.method["name"] for arm in ARMS.values()} == set(methods.names()) - ELSEWHERE
    assert set(ARMS) == set(LEAVES)


@pytest.mark.parametrize("arm", ARMS)
def test_a_method_trains_by_the_command(results: Path, arm: str) -> None:
    changes = {"arms.simct": {"teacher": str(results / "foreign")}} if arm == "simct" else {}
    spec = params.load(NAME, "smoke", changes, results=results).spec(arm, 0)
    opd_run(spec, results, json.dumps(changes))
    present = record.read(spec.folder)
    assert present is not None and (present.status, present.identity) == (FINISHED, spec.identity)
    steps, (columns, says) = present.frame("steps"), LEAVES[arm]
    assert len(steps) == 4 and steps["loss"].notna().all() and (steps["grad_norm"] > 0).all()
    assert set(columns) <= set(steps) and says(steps), steps[[*columns, "n_tokens", "response_length"]]
    trained, _ = models.load(str(spec.model_folder))
    assert models.weights_digest(trained) != present.provenance["student_weights"], "the student has not changed"
    called = [row for row in present.examples() if tool.CALL in row["tokens"]]
    assert arm != "sod" or called, "no response calls the tool"


@pytest.mark.parametrize(
    ("arm", "changes", "message"),
    [
        ("uni_opd", {"route": {}}, r"method\.route: \{\}: .* by name, the teachers .*, .*give each content a teacher"),
        ("uni_opd", {"route": {"chain-a": "nobody"}}, r"method\.route: .*nobody.*give each content a teacher"),
        ("opsd", {"decay": 0.9}, r"method\.decay: 0\.9: with teacher: self the teacher is the student"),
    ],
)
def test_teachers_that_do_not_fit_a_method_are_refused(arm: str, changes: dict[str, object], message: str) -> None:
    asked = params.load("93_methods", "smoke").arms[arm]
    method = methods.load(asked.method["name"])
    refusals.check_teachers(asked, method, [method.Params(**asked.method_options)])
    with pytest.raises(ValueError, match=message):
        refusals.check_teachers(asked, method, [method.Params(**asked.method_options | changes)])


def test_an_objective_of_ones_own_is_not_served() -> None:
    asked = params.load("92_your_own_method", "smoke").arms["yours"]
    machine = asked.machine.model_copy(update={"teacher_url": "http://127.0.0.1:8000"})
    method = methods.load("own")
    served, options = asked.model_copy(update={"machine": machine}), [method.Params(**asked.method_options)]
    with pytest.raises(ValueError, match=r"method\.name: own: a served teacher .*; use machine\.teacher_url: null"):
        refusals.check_served(served, method, options)
