"""`opd refresh --outputs-only`: nothing is trained, nothing stale stays, a notebook that fails stays as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import micro
import pytest
from typer.testing import CliRunner

from opd_lib import paths
from opd_lib.batch import execute, reexecute, refresh
from opd_lib.command import cli
from opd_lib.run import packs, processes

NAME = micro.OPD


@pytest.fixture
def committed(world: Path) -> Path:
    """The world's records as committed ones."""
    for name in (micro.MODELS, NAME):
        for spec in micro.load(world, name).runs():
            micro.write_record(spec)
    shutil.copytree(world / "results", world / "committed")
    return world / "committed"


def test_all_records_are_there(world: Path, committed: Path) -> None:
    reexecute.require_committed([micro.load(world, NAME)], committed)


@pytest.mark.parametrize("run", [f"{NAME}/plain", f"{micro.MODELS}/teacher"])
def test_a_missing_record_is_named_even_if_it_was_trained_here(world: Path, committed: Path, run: str) -> None:
    (committed / "tiny" / run / "seed0" / "run.json").unlink()
    with pytest.raises(ValueError, match=rf"no finished record of {run}/seed0; .*--outputs-only"):
        reexecute.require_committed([micro.load(world, NAME)], committed)


def test_a_record_of_other_parameters_is_named(world: Path, committed: Path) -> None:
    micro.change_arm(world, NAME, "plain", {"train.steps": 7})
    with pytest.raises(ValueError, match=r"train\.steps: 6 → 7"):
        reexecute.require_committed([micro.load(world, NAME)], committed)


def test_what_a_notebook_no_longer_leaves_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "local" / "tiny" / NAME / "figures" / "old.svg"
    shown = tmp_path / "committed" / NAME
    for file in (stale, shown / "figures" / "old.svg", shown / "tables" / "old.csv"):
        file.parent.mkdir(parents=True)
        file.write_text("old")

    def run_notebook(source: Path, output: Path, parameters: Any, failed: Path, cell_seconds: int) -> None:
        assert (source, output, parameters) == (tmp_path / f"{NAME}.ipynb", tmp_path / f"{NAME}.ipynb", {})
        stale.parent.mkdir()
        stale.with_name("new.svg").write_text("new")

    monkeypatch.setattr(execute, "run_notebook", run_notebook)
    reexecute.in_place(NAME, "tiny", None, folder=tmp_path, local=tmp_path / "local")
    reexecute.commit_outputs(tmp_path / "local" / "tiny" / NAME, shown)
    assert [path.relative_to(shown).as_posix() for path in shown.rglob("*.*")] == ["figures/new.svg"]


def test_the_default_profile_shows_all_notebooks_another_its_experiments(world: Path) -> None:
    for name in (micro.MODELS, NAME, "90_other"):
        micro.write_notebook(world, name, "")
    assert reexecute.sources("tiny", [NAME], world / "notebooks") == (micro.MODELS, NAME, "90_other")
    assert reexecute.sources("gpu", [NAME], world / "notebooks") == (NAME,)


def test_the_command_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(cli, "reproduce", lambda **_: asked.append("trained"))
    monkeypatch.setattr(refresh, "commit_records", lambda specs: asked.append("copied"))
    monkeypatch.setattr(reexecute, "reexecute", lambda *words: asked.append(words) or iter(["90_speed: 1.0 s"]))
    result = CliRunner().invoke(cli.app, ["refresh", "--outputs-only", "--jobs", "2"])
    assert (result.exit_code, result.stdout) == (0, "90_speed: 1.0 s\n")
    assert asked == [("tiny", None, 2)]


def test_records_alone_are_trained_and_committed_of_the_seeds_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(cli, "reproduce", lambda **_: asked.append("executed"))
    monkeypatch.setattr(reexecute, "reexecute", lambda *words: asked.append("executed"))
    monkeypatch.setattr(processes, "complete", lambda specs, jobs: asked.append(("trained", specs, jobs)))
    monkeypatch.setattr(refresh, "commit_records", lambda specs: asked.append(("copied", specs)) or len(specs))
    monkeypatch.setattr(packs, "pack", lambda profile: f"packed {profile.name}")
    words = ["refresh", "--records-only", "--profile", "smoke", "--seeds", "7,"]
    result = CliRunner().invoke(cli.app, [*words, "--jobs", "2"])
    (trained, specs, jobs), copied = asked
    assert (trained, jobs, copied) == ("trained", 2, ("copied", specs)) and {spec.seed for spec in specs} == {7}
    assert {spec.experiment for spec in specs} >= {"00_models", "10_support_size"}
    assert result.stdout == f"{len(specs)} records copied to {paths.RESULTS / 'smoke'}\npacked smoke\n"
    refused = CliRunner().invoke(cli.app, [*words, "--outputs-only"])
    assert refused.exit_code == 1 and "choose one of them" in refused.output


def test_every_committed_notebook_is_executed() -> None:
    names = reexecute.sources("tiny", [])
    assert set(names) == {path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb")} and "90_speed" in names
