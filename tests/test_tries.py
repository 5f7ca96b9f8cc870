"""Tries: what overrides have made is listed with what it changes and came to, compared, named and deleted."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import fabricated
import micro
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from opd_lib import params, paths
from opd_lib.command.cli import app
from opd_lib.params import RunSpec
from opd_lib.params.spec import overrides_digest
from opd_lib.report import tables
from opd_lib.run import single, tried, tries
from opd_lib.run.status import LOCK, TURN

NOTEBOOK, ARM = "04_success_and_failure", "large_success"


@pytest.fixture(autouse=True)
def variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the tries of a test."""
    monkeypatch.setattr(paths, "VARIANTS", tmp_path / "variants")
    return paths.VARIANTS


def opd(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["tries", *words], input=answer)


def make(overrides: dict[str, Any], arm: str = ARM, seeds: tuple[int, ...] = (0, 1), kept: bool = True) -> tries.Try:
    """A try with invented records of an arm of 04; `kept`: its overrides were written down, as they are today."""
    experiment = params.load(NOTEBOOK, overrides=overrides, seeds=seeds)
    specs = [experiment.spec(arm, seed) for seed in seeds]
    fabricated.write(specs)
    if kept:
        tries.remember(specs[0])
    return tries.read(specs[0].folder.parents[3])


def rows(**options: Any) -> list[dict[str, Any]]:
    return tried.table(tries.every(), **options).to_dict("records")


def test_a_try_is_listed_with_what_it_changes_and_what_the_committed_arm_came_to() -> None:
    made = make({"train.lr": 2e-4})
    (row,) = rows()
    assert (row["name"], row["notebook"], row["arm"]) == (overrides_digest({"train.lr": 2e-4}), NOTEBOOK, ARM)
    assert (row["changes"], row["seeds"]) == ("train.lr: 0.0002", "2")
    ends = tried.accuracies(made.records())
    assert row["accuracy"].startswith(f"{sum(ends.values()) / 2:.3f} ± ")
    evals = params.load(NOTEBOOK, seeds=(0, 1))
    committed = [tried.accuracies([tries.record.read(evals.spec(ARM, seed).folders[0])])[seed] for seed in (0, 1)]
    assert row["committed"].startswith(f"{sum(committed) / 2:.3f} ± ") and row["committed"] != row["accuracy"]
    assert row["size"].endswith(" MiB") and row["age"].endswith("s")
    shown = opd().stdout
    assert "train.lr: 0.0002" in shown and row["committed"] in shown


def test_the_verdict_is_that_of_the_interval_of_the_difference_by_seed() -> None:
    made = make({"train.lr": 2e-4}, seeds=(0, 1, 2))
    plain = params.load(NOTEBOOK, seeds=(0, 1, 2))
    committed = [tries.record.read(plain.spec(ARM, seed).folders[0]) for seed in (0, 1, 2)]
    for shift, said in ((-0.3, "worse"), (0.0, "inconclusive"), (0.05, "better")):
        for present, other in zip(made.records(), committed, strict=True):
            table = other.frame("evals")
            table.assign(accuracy=table["accuracy"] + shift).to_csv(present.folder / "evals.csv", index=False)
        (row,) = rows()
        assert row["verdict"] == said, row
    assert "better" in opd().stdout
    shutil.rmtree(made.folder / "tiny" / NOTEBOOK / ARM / "seed1")
    shutil.rmtree(made.folder / "tiny" / NOTEBOOK / ARM / "seed2")
    assert rows()[0]["verdict"] == "one seed decides nothing"


def test_an_objective_of_ones_own_is_held_to_the_papers_and_not_to_the_one_that_is_committed() -> None:
    mine = {"method": {"name": "own", "k": 4, "options": {}, "source": "def loss(scores, params):\n    return 1\n"}}

    def make_own(overrides: dict[str, Any], *arms: str) -> None:
        experiment = params.load("92_your_own_method", overrides=overrides, seeds=(0, 1))
        fabricated.write(experiment.spec(arm, seed) for arm in arms for seed in (0, 1))
        tries.remember(experiment.spec(arms[0], 0))

    make_own({"arms.yours": mine}, "yours")
    (row,) = rows()
    plain = params.load("92_your_own_method", seeds=(0, 1))
    paper = tried.accuracies(tries.record.read(plain.spec("paper", seed).folders[0]) for seed in (0, 1))
    assert row["committed"] == f"{tables.interval(list(paper.values()))} (paper)" and row["verdict"] != "–"
    make_own({"arms.yours": mine, "train.lr": 2e-4}, "yours", "paper")
    found = {row["arm"]: row for row in rows() if "train.lr" in row["changes"]}
    assert found["yours"]["committed"] == f"{found['paper']['accuracy']} (paper)", "both are trained otherwise here"
    assert found["paper"]["committed"] == tables.interval(list(paper.values()))


def test_an_arm_that_the_paper_has_not_is_compared_with_none() -> None:
    make({"train.lr": 2e-4, "arms.mine": {"method.k": 4}}, arm="mine", seeds=(0,))
    (row,) = rows()
    assert row["committed"] == row["verdict"] == "–" and row["changes"] == "method.k: 4, train.lr: 0.0002"


@pytest.mark.parametrize(
    ("overrides", "arm", "said"),
    [
        ({"train.lr": 2e-4}, ARM, {"train.lr": 2e-4}),
        ({"arms.mine": {"method.k": 4}}, "mine", {"method.k": 4}),
    ],
)
def test_changes_of_a_try_from_before_overrides_were_kept_are_read_from_its_records(
    overrides: dict[str, Any], arm: str, said: dict[str, Any]
) -> None:
    made = make(overrides, arm, kept=False)
    assert made.overrides is None
    found = tried.changes(made, made.records()[0])
    assert said.items() <= found.items() and len(found) <= len(said) + 1, "from the arm that is most like it"


def test_a_run_writes_its_overrides_down_before_it_begins(world: Path, variants: Path) -> None:
    spec = params.load(micro.MODELS, overrides={"train.steps": 3}, root=world / "params").spec("student", 0)
    single.train(spec)
    digest = overrides_digest({"train.steps": 3})
    assert json.loads((variants / digest / tries.VARIANT).read_text()) == {"overrides": {"train.steps": 3}}
    (row,) = rows(root=world / "params")
    assert (row["name"], row["changes"], row["seeds"]) == (digest, "train.steps: 3", "1")

    named = params.load(micro.MODELS, results=world / "results", overrides={"train.steps": 3}, root=world / "params")
    tries.remember(named.spec("student", 0))
    assert not list((world / "results").rglob(tries.VARIANT)), "records in a folder of one's own choice are no try"


def test_seeds_that_are_not_done_and_what_trains_are_said(variants: Path) -> None:
    made = make({"train.lr": 2e-4}, seeds=(0, 1, 2))
    folder = made.records()[2].folder
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"finished"', '"running"'))
    assert rows()[0]["seeds"] == "2 of 3"
    with FileLock(folder / LOCK):
        assert rows()[0]["seeds"] == "2 of 3, training"


def test_two_tries_are_compared_by_what_differs_and_where_they_end() -> None:
    first, second = make({"train.lr": 2e-4}), make({"train.lr": 5e-4, "method.k": 4}, seeds=(0, 1, 2))
    tries.rename(first.name, "slow")
    text = opd("compare", "slow", second.name).stdout
    said = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert said["train.lr"] == ["0.0002", "0.0005"] and said["method.k"][1] == "4"
    assert {key for key in said if "." in key} == {"train.lr", "method.k"}
    ends = [tried.accuracies(each.records()) for each in (first, second)]
    paired = [ends[1][seed] - ends[0][seed] for seed in (0, 1)]
    line = next(line for line in text.splitlines() if line.startswith("at the end"))
    assert f"{sum(ends[1].values()) / 3:.3f} ± " in line and line.endswith(tables.interval(paired))
    assert "(seeds: 3)" in text and text.count("(seeds: 2)") == 2


def test_objectives_from_a_cell_are_told_apart_and_compared_line_by_line() -> None:
    texts = ["def loss(scores, params):\n    return scores * 2\n", "def loss(scores, params):\n    return scores * 3\n"]
    method = {"name": "own", "k": 4, "options": {}}
    one, other = (make({"arms.mine": {"method": method | {"source": text}}}, arm="mine", seeds=(0,)) for text in texts)
    told = [row["changes"] for row in rows()]
    assert told[0] != told[1] and all("method.source: 2 lines (" in text and "\n" not in text for text in told)
    text = opd("compare", one.name, other.name).stdout
    assert "\n-    return scores * 2\n+    return scores * 3\n" in text


def test_tries_without_a_common_arm_are_not_compared_unless_each_has_one() -> None:
    one = make({"arms.mine": {"method.k": 4}}, arm="mine")
    other = make({"arms.yours": {"method.k": 8}}, arm="yours")
    text = opd("compare", one.name, other.name).stdout
    assert f"tiny/{NOTEBOOK}/mine and tiny/{NOTEBOOK}/yours" in text and "method.k" in text
    both = {"arms.a": {"method.k": 4}, "arms.b": {"method.k": 8}}
    make(both, arm="a")
    apart = make(both, arm="b")
    done = opd("compare", one.name, apart.name)
    assert done.exit_code == 1 and "no arm in common" in done.stderr and f"{NOTEBOOK}/b" in done.stderr


def test_a_name_is_kept_and_taken_away_while_the_folder_stays(variants: Path) -> None:
    made = make({"train.lr": 2e-4})
    assert opd("rename", made.name, "low-lr").exit_code == 0
    assert [row["name"] for row in rows()] == ["low-lr"] and tries.find("low-lr").folder == made.folder
    assert params.load(NOTEBOOK, overrides={"train.lr": 2e-4}).spec(ARM, 0).folder.is_relative_to(made.folder)
    tries.rename("low-lr", made.folder.name)
    assert tries.find(made.name).name == made.name and not (made.folder / tries.NAME).exists()


def test_a_new_name_makes_no_try_younger() -> None:
    made = make({"train.lr": 2e-4})
    old = time.time() - 7200
    for path in made.folder.rglob("*"):
        os.utime(path, (old, old))
    tries.rename(made.name, "low-lr")
    assert [row["age"] for row in rows()] == ["2h 00m"]


def test_a_try_is_not_compared_with_itself() -> None:
    made = make({"train.lr": 2e-4})
    done = opd("compare", made.name, made.name)
    assert done.exit_code == 1 and "with itself nothing differs" in done.stderr


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "x" * 65, "low-LR", "HASH"])
def test_what_is_no_name_or_another_ones_is_refused(name: str) -> None:
    made, other = make({"train.lr": 2e-4}), make({"train.lr": 5e-4})
    tries.rename(other.name, "low-lr")
    done = opd("rename", made.name, other.folder.name if name == "HASH" else name)
    assert done.exit_code == 1 and ("is no name of a try" in done.stderr or "of another try" in done.stderr)
    assert tries.read(made.folder).name == made.name


def test_deleting_asks_and_takes_one_try_alone() -> None:
    made, other = make({"train.lr": 2e-4}), make({"train.lr": 5e-4})
    assert opd("delete", made.name, answer="n\n").exit_code == 1 and made.folder.exists()
    assert opd("delete", made.name, answer="y\n").exit_code == 0 and not made.folder.exists()
    assert [each.name for each in tries.every()] == [other.name]
    tries.rename(other.name, "last")
    assert opd("delete", "last", "--yes").exit_code == 0
    assert list(paths.VARIANTS.iterdir()) == [] and "No tries in" in opd().stdout


@pytest.mark.parametrize("lock", [LOCK, TURN])
def test_a_try_that_trains_is_not_deleted(lock: str) -> None:
    made = make({"train.lr": 2e-4})
    with FileLock(made.records()[1].folder / lock):
        done = opd("delete", made.name, "--yes")
    assert done.exit_code == 1 and f"{NOTEBOOK}/{ARM}/seed1 is training" in done.stderr
    assert len(made.records()) == 2


def test_what_is_not_there_is_said_with_what_is() -> None:
    made = make({"train.lr": 2e-4})
    for words in (("compare", made.name, "nothing"), ("rename", "nothing", "x"), ("delete", "nothing", "--yes")):
        done = opd(*words)
        assert done.exit_code == 1 and "'nothing': no such try" in done.stderr and made.name in done.stderr


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (tries.NAME, '{"name": "a/b"}', "name: 'a/b' is no name; delete it: the try is then called by its hash"),
        (tries.NAME, "{", "no JSON"),
        (tries.VARIANT, '{"overrides": {"train.lr": 1}}', "delete it: what the try changes is then read from its"),
        (tries.VARIANT, "[]", "a JSON object is expected"),
    ],
)
def test_a_damaged_file_is_one_error_and_the_try_can_still_be_deleted(file: str, content: str, said: str) -> None:
    made = make({"train.lr": 2e-4})
    (made.folder / file).write_text(content)
    done = opd()
    assert done.exit_code == 1 and f"{file}: " in done.stderr and said in done.stderr and done.stderr.count("\n") == 1
    assert opd("delete", made.folder.name, "--yes").exit_code == 0


def test_a_folder_in_which_nothing_is_finished_is_listed() -> None:
    made = make({"train.lr": 2e-4})
    shutil.rmtree(made.folder / "tiny")
    (row,) = rows()
    assert (row["changes"], row["seeds"], row["accuracy"]) == ("train.lr: 0.0002", "0", "–")


def test_status_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["status", "--only", NOTEBOOK, "--seeds", "1", "--profile", "smoke"]
    assert "opd tries" not in CliRunner().invoke(app, words).stdout
    make({"train.lr": 2e-4})
    assert (
        CliRunner()
        .invoke(app, words)
        .stdout.splitlines()[-1]
        .startswith("tries of your own, made with overrides: 1 in")
    )


def spec_of(overrides: dict[str, Any]) -> RunSpec:
    return params.load(NOTEBOOK, overrides=overrides).spec(ARM, 0)


def test_the_folder_of_a_try_is_that_of_its_overrides(variants: Path) -> None:
    assert spec_of({"train.lr": 2e-4}).folder.parents[3] == variants / overrides_digest({"train.lr": 2e-4})
    assert spec_of({"train.lr": 2e-4}).folder != spec_of({"train.lr": 3e-4}).folder
