"""What `opd run` says while it trains: at once, as it goes on, and never into a record or beside others."""

from __future__ import annotations

import io
import json
import re
import subprocess
import time
from pathlib import Path

import micro
import pytest

from opd_lib import params, paths
from opd_lib.records import record
from opd_lib.run import console, processes

EVALS = "step,test_set,accuracy\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def going_on(world: Path, step: int, evaluated: dict[int, float]) -> None:
    """The student's folder as a run of six steps leaves it on its way."""
    spec = micro.load(world).spec("student", 0)
    micro.write_record(spec, status="running")
    record.write_json(spec.folder / ".progress.json", {"step": step, "steps": 6, "seconds": {}})
    rows = (
        f"{at},{name},{accuracy + more}\n"
        for at, accuracy in evaluated.items()
        for name, more in (("a", 0.1), ("b", -0.1))
    )
    (spec.folder / "evals.csv").write_text(EVALS + "".join(rows))


def test_the_first_line_says_what_is_trained() -> None:
    def titled(name: str, arm: str) -> str:
        return console.title(params.load(name, "tiny").spec(arm, 0))

    assert titled("00_models", "base-small") == "00_models/base-small/seed0: 450 steps, student new"
    of_01 = titled("01_thinking_patterns", "compatible")
    assert re.fullmatch(
        r"01_\w+/compatible/seed0: 120 steps, student 00_models/\S+/seed0 ← teacher 00_models/\S+/seed0", of_01
    )
    assert " batches of a probe (" in titled("09_reward_geometry", "reward-success")


def test_without_a_terminal_there_is_a_line_for_each_evaluation(world: Path) -> None:
    spec, stream = micro.load(world).spec("student", 0), io.StringIO()
    going_on(world, 3, {0: 0.25, 3: 0.5})
    view = console.View(spec, stream)
    view.look()
    assert stream.getvalue() == "", "a resumed run does not say again what was evaluated before"
    for step, evaluated in (
        (3, {0: 0.25}),
        (4, {0: 0.25, 3: 0.5}),
        (5, {0: 0.25, 3: 0.5}),
        (6, {0: 0.25, 3: 0.5, 6: 0.75}),
    ):
        going_on(world, step, evaluated)
        view.look()
    view.close()
    said = [re.sub(r", \d+s left", "", line) for line in stream.getvalue().splitlines()]
    assert said == ["step 3 of 6, accuracy 0.500", "step 6 of 6, accuracy 0.750"]


def test_on_a_terminal_one_line_is_rewritten(world: Path) -> None:
    spec, stream = micro.load(world).spec("student", 0), Terminal()
    view = console.View(spec, stream)
    view.look()
    for step in (1, 4, 4):
        going_on(world, step, {0: 0.25} if step < 3 else {0: 0.25, 3: 0.5})
        view.look()
    view.close()
    *lines, last = stream.getvalue().split(console.CLEAR)[1:]
    assert lines[0] == "step 0 of 6" and lines[1].startswith("step 1 of 6, accuracy 0.250 at step 0")
    assert last.startswith("step 4 of 6, accuracy 0.500 at step 3") and last.endswith("\n")
    assert "".join(lines).count("\n") == 0


def test_a_table_that_cannot_be_read_stops_no_training(world: Path) -> None:
    spec, stream = micro.load(world).spec("student", 0), io.StringIO()
    going_on(world, 3, {})
    (spec.folder / "evals.csv").write_text("no table\n1\n2,3\n")
    with console.reporting(spec, stream):
        time.sleep(2 * console.POLL)
    assert stream.getvalue() == f"{console.title(spec)}\n"


@pytest.mark.process
def test_a_run_by_hand_says_how_far_it_is_and_leaves_the_record_of_a_quiet_one(world: Path) -> None:
    left = {}
    for results, more in (("results", []), ("others", ["--done", str(world / "done.json")])):
        spec = micro.load(world, results=results).spec("student", 0)
        done = subprocess.run(
            [*processes.command(spec), *more], cwd=paths.ROOT, env=processes.single_thread(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"finished: {spec.folder}\n"), done.stderr
        assert "%" not in done.stderr, "bars of reading and writing weights"
        again = subprocess.run(
            processes.command(spec), cwd=paths.ROOT, env=processes.single_thread(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert again.stdout == f"finished before, nothing was trained: {spec.folder}\n", again.stderr
        said = [re.sub(r", \d+s left", "", line) for line in done.stderr.splitlines()]
        assert (console.title(spec) in said[:1]) == (not more)
        evaluated = [line.split(", accuracy")[0] for line in said if line.startswith("step ")]
        assert evaluated == ([] if more else [f"step {step} of 6" for step in (0, 3, 6)])
        names = sorted(path.relative_to(spec.folder) for path in spec.folder.rglob("*") if path.is_file())
        left[results] = {name: (spec.folder / name).read_bytes() for name in names if name.name != "run.json"}
        told = json.loads((spec.folder / "run.json").read_text())
        assert "accuracy" not in told and not (set(told) & {"title", "remaining"})
    assert left["results"] == left["others"]
