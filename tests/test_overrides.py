"""`opd reproduce --overrides`: a try trained, executed and named as a whole; what cannot be one is refused at once."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import micro
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from opd_lib import params, paths
from opd_lib.batch import execute, jobs, workflow
from opd_lib.command.cli import app
from opd_lib.params.spec import overrides_digest
from opd_lib.run import plan, tries
from opd_lib.run.status import BATCH

ODD = """def value(scores, params):
    # it's "odd": $HOME `x` {a} {{b}} \\n %s ü ; & #
    c = scores.candidates
    return (c.student_logp_NC.exp() * (c.student_logp_NC - c.teacher_logp_NC)).sum(-1)
"""
OWN = {"arms.odd": {"method": {"name": "own", "source": ODD, "k": 4, "options": {}}}, "train.steps": 4}


@pytest.fixture
def place(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world with notebooks and results of its own; where its tries are."""
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name)
    local = world / "results" / "local"
    for name, folder in (
        ("RESULTS", world / "results"), ("LOCAL", local), ("LAB", local / "lab"), ("VARIANTS", local / "variants"),
    ):  # fmt: skip
        monkeypatch.setattr(paths, name, folder)
    return paths.VARIANTS


def reproduce(world: Path, overrides: object, *words: str) -> Result:
    places = ("--params", str(world / "params"), "--notebooks", str(world / "notebooks"))
    said = overrides if isinstance(overrides, str) else json.dumps(overrides)
    return CliRunner().invoke(app, ["reproduce", "--overrides", said, *places, *words])


def planned(folder: Path) -> dict[str, dict[str, object]]:
    found = json.loads((folder / ".plan.json").read_text())
    return {**found["runs"], **found["notebooks"]}


def words_of(job: dict[str, object]) -> list[str]:
    return shlex.split(str(job["command"]))


def test_a_try_is_planned_in_its_folder_and_written_down_before_its_first_run(world: Path, place: Path) -> None:
    done = reproduce(world, {"train.steps": 4}, "--plan-only", "--name", "short")
    assert done.exit_code == 0, done.output
    folder = place / overrides_digest({"train.steps": 4})
    assert json.loads((folder / tries.VARIANT).read_text()) == {"overrides": {"train.steps": 4}}
    assert tries.find("short").folder == folder
    found = planned(folder)
    models = ("student", "teacher", "better")
    assert set(found) == {
        *(f"lab/00_models/{arm}/seed0" for arm in models[:2]), *(f"00_models/{arm}/seed0" for arm in models),
        "01_opd/plain/seed0", "01_opd/sampled/seed0", "00_models.ipynb", "01_opd.ipynb",
    }, "models as they are, for the students start from those; and once more as the overrides change them"  # fmt: skip
    assert found["01_opd/plain/seed0"]["needs"] == [
        f".done/lab/00_models/{arm}/seed0.run.json" for arm in ("student", "teacher")
    ]
    changed, plain = words_of(found["00_models/student/seed0"]), words_of(found["lab/00_models/student/seed0"])
    assert "--overrides" in changed and "--overrides" not in plain and "--results" not in {*changed, *plain}
    notebook = words_of(found["01_opd.ipynb"])
    assert notebook[notebook.index("--overrides") + 1] == '{"train.steps": 4}' and "--results" not in notebook


def test_odd_texts_reach_the_processes_to_the_letter(world: Path, place: Path) -> None:
    done = reproduce(world, OWN, "--plan-only", "--only", micro.OPD)
    assert done.exit_code == 0, done.output
    found = planned(place / overrides_digest(OWN))
    for name in ("01_opd/odd/seed0", "01_opd/plain/seed0", "01_opd.ipynb"):
        words = words_of(found[name])
        assert json.loads(words[words.index("--overrides") + 1]) == OWN, name


def test_a_notebook_is_executed_as_it_is_by_hand(world: Path, place: Path) -> None:
    request = execute.Request(
        name=micro.OPD, results=None, overrides={"train.steps": 4}, folder=world / "notebooks",
        params_root=world / "params",
    )  # fmt: skip
    assert request.parameters()["results"] is None and request.parameters()["overrides"] == {"train.steps": 4}
    assert request.target == request.experiment().output == place / overrides_digest({"train.steps": 4}) / "tiny/01_opd"


def test_in_a_folder_of_records_overrides_go_where_they_go_in_a_notebook_with_both(world: Path, place: Path) -> None:
    root = world / "mine"
    done = reproduce(world, {"train.steps": 4}, "--plan-only", "--only", micro.OPD, "--results", str(root))
    assert done.exit_code == 0, done.output
    found = planned(root)
    assert "00_models/teacher/seed0" in found and "01_opd/plain/seed0" in found and not place.exists()
    words = words_of(found["01_opd.ipynb"])
    assert words[words.index("--results") + 1] == str(root) and "--overrides" in words
    done = reproduce(world, {"train.steps": 4}, "--plan-only", "--results", str(root))
    assert done.exit_code == 1 and "is asked for as overrides change it and as its params file has it" in done.stderr
    assert "--only" in done.stderr and done.stderr.count("\n") == 1


def test_notebooks_of_which_nothing_is_changed_are_left_out(world: Path, place: Path) -> None:
    done = reproduce(world, {"train.steps": 6}, "--plan-only")
    assert done.exit_code == 0 and "left out: 01_opd: the overrides say what its params say already\n" in done.stderr
    assert set(planned(place / overrides_digest({"train.steps": 6}))) == {
        "lab/00_models/student/seed0", "lab/00_models/teacher/seed0", "00_models/better/seed0", "00_models.ipynb",
    }, "two of the three models have six steps anyway"  # fmt: skip
    own = world / "notebooks" / f"{micro.OPD}.ipynb"
    content = json.loads(own.read_text())
    content["cells"][-1]["metadata"]["tags"] = ["method"]
    own.write_text(json.dumps(content))
    done = reproduce(world, {"train.steps": 4}, "--plan-only")
    assert done.exit_code == 0 and "left out: 01_opd: a cell of its own is an override, too" in done.stderr
    assert not any("01_opd" in name for name in planned(place / overrides_digest({"train.steps": 4})))


def test_only_is_advised_where_there_is_more_than_one_notebook(world: Path) -> None:
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name)
    one, all_ = (reproduce(world, {"train.step": 4}, *words).stderr for words in (("--only", micro.OPD), ()))
    assert one.endswith("did you mean train.steps?\n") and all_.endswith("with --only\n")


@pytest.mark.parametrize(
    ("overrides", "words", "said"),
    [
        ({"method.k": 4}, (), ["overrides, arm student of 00_models", "method.k: unknown key", "--only"]),
        ({"train.step": 4}, ("--only", micro.OPD), ["overrides, arm plain of 01_opd", "train.steps"]),
        ({"train.steps": 6}, ("--only", micro.OPD), ["01_opd: the overrides say what its params say already"]),
        ("{", (), ["--overrides {: not valid JSON"]),
        ({"train.steps": 4}, ("--name", "a b"), ["'a b' is no name of a try"]),
        ({"train.steps": 4}, ("--name", "taken"), ["'taken' is the name of another try"]),
        ({"train.steps": 4}, ("--name", "x", "--results", "elsewhere"), ["--name x: names a try"]),
        ({}, ("--name", "x"), ["--name x: names a try", "--overrides"]),
    ],
)
def test_what_is_no_try_is_one_error_before_anything_starts(
    world: Path, place: Path, overrides: object, words: tuple[str, ...], said: list[str]
) -> None:
    tries.begin(tries.place({"train.lr": 1.0}), {"train.lr": 1.0}, "taken")
    before = sorted(world.rglob("*"))
    done = reproduce(world, overrides, *words)
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.output
    assert all(each in done.stderr for each in said), done.stderr
    assert sorted(world.rglob("*")) == before


def test_a_run_or_a_notebook_that_overrides_do_not_change_is_no_try(world: Path, place: Path) -> None:
    words = ["--overrides", '{"train.steps": 6}', "--params", str(world / "params")]
    done = CliRunner().invoke(app, ["execute", micro.OPD, *words, "--notebooks", str(world / "notebooks")])
    assert done.exit_code == 1 and "change nothing of 01_opd" in done.stderr and not place.exists()


def test_a_try_in_which_a_batch_is_at_work_is_not_deleted(world: Path, place: Path) -> None:
    made = tries.begin(tries.place({"train.lr": 1.0}), {"train.lr": 1.0}, "mine")
    with FileLock(made.folder / BATCH):
        done = CliRunner().invoke(app, ["tries", "delete", "mine", "--yes"])
    assert done.exit_code == 1 and "mine: `opd reproduce` is at work there" in done.stderr and made.folder.is_dir()


def test_what_finished_runs_took_is_learnt_from_those_that_nothing_changed(world: Path, place: Path) -> None:
    chosen = plan.experiments((micro.OPD,), "tiny", None, None, world / "params", {"train.steps": 4})
    for spec in plan.with_parents(plan.all_runs(chosen))[:2]:
        micro.write_record(spec)
        spec.model_folder.mkdir()
    todo = jobs.make_plan(chosen, tries.place({"train.steps": 4}), world / "notebooks", world / "params")
    assert jobs.standing(chosen, todo) == jobs.Standing(finished=2, slowness=1.0)
    assert [job.name for job in todo] == ["01_opd/plain/seed0", "01_opd/sampled/seed0", "01_opd.ipynb"]


@pytest.mark.process
@pytest.mark.notebook
def test_a_try_from_nothing_to_the_table_of_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout of its own: what is trained, executed, and done when it is asked for again."""
    try:
        program = workflow.find_snakemake(None)
    except ValueError:
        pytest.skip("no Snakemake: `make reproduce` makes .venv-batch")
    root = conftest.make_world(tmp_path)
    shutil.copytree(paths.ROOT / "opd_lib", root / "opd_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(paths.ROOT / "Snakefile", root)
    shutil.copytree(paths.ROOT / "requirements", root / "requirements")
    with monkeypatch.context() as patch:
        patch.setattr(paths, "ROOT", root)
        micro.teach(root)
        micro.write_notebook(root, micro.OPD)
    words = ["--overrides", json.dumps(OWN), "--name", "odd-one", "--only", micro.OPD, "--snakemake", str(program)]

    def opd(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "opd_lib.command.cli", *words]
        env = os.environ | {"PYTHONPATH": str(root)}
        return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)

    done, folder = opd("reproduce", "--jobs", "2", *words), tries.place(OWN).name
    assert done.returncode == 0, done.stderr
    made = root / "results" / "local" / "variants" / folder
    assert f"try odd-one: {made}\n`opd tries` lists it" in done.stdout
    assert "3 runs" in (made / "tiny" / micro.OPD / "notebook.ipynb").read_text()
    assert sorted(path.parent.name for path in made.rglob("seed0")) == ["odd", "plain", "sampled"]
    before = {path: path.stat().st_mtime_ns for path in (root / "results").rglob("run.json")}
    assert "0 runs to train, 0 notebooks to execute" in opd("reproduce", *words).stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) == 5
    assert "odd-one" in opd("tries").stdout
    assert (
        params.load(micro.OPD, overrides=OWN, root=root / "params").spec("odd", 0).identity
        in (made / "tiny" / micro.OPD / "odd" / "seed0" / "run.json").read_text()
    )
