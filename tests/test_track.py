"""The tracker as a view of the records: the same numbers, once, in its own folder, without network or account."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import psutil
import pytest
from test_launch import wait_for

from opd_lib import paths
from opd_lib.params import RunSpec
from opd_lib.records import record
from opd_lib.run import launch, processes, track

EVALS = (
    "step,test_set,accuracy,length\n0,chain-3,0.5,9.0\n0,chain-4,0.25,\n2,chain-3,0.7421875,8.5\n2,chain-4,0.5,7.0\n"
)
OFFLINE = """
import sys
def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        print("REFUSED", event, arguments, file=sys.stderr, flush=True)
        raise OSError("no network here")
sys.addaudithook(refuse)
from opd_lib.command.cli import app
app()
"""


def test_trackers_have_names_and_are_installed(world: Path) -> None:
    with pytest.raises(ValueError, match="no such tracker; choose from trackio, tensorboard, wandb"):
        track.place("mlflow", None)
    with pytest.raises(ValueError, match="no such tracker"):
        launch.run(micro.load(world), tracker="mlflow")
    pytest.importorskip("trackio")
    assert track.place("trackio", None) == paths.LOCAL / "trackio"


def test_no_setting_of_the_user_leads_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_WEBHOOK_URL", "WANDB_MODE"):
        monkeypatch.setenv(name, "elsewhere")
    found = track.surroundings(tmp_path)
    assert "elsewhere" not in found.values() and found["TRACKIO_DIR"] == str(tmp_path)
    assert found["HF_HUB_OFFLINE"] == "1" and found["PATH"] == os.environ["PATH"]


def test_rows_are_given_in_order_and_evaluations_wait_for_their_step(world: Path) -> None:
    follower = pytest.importorskip("opd_lib.run.follower")
    spec = recorded(world, "running")
    with (spec.folder / "evals.csv").open("a") as file:
        file.write("4,chain-3,1.0,1.0\n4,chain-4,1.0,1.0\n")
    present = record.read(spec.folder)
    assert present is not None
    given: dict[str, int] = {}
    found = list(follower.rows(present, given))
    assert [(table, step) for table, step, _ in found] == [("evals", 0), ("steps", 1), ("steps", 2), ("evals", 2)]
    assert found[0][2] == {"accuracy/chain-3": 0.5, "accuracy/chain-4": 0.25, "length/chain-3": 9.0}
    given |= {"steps": 2, "evals": 0}
    assert [row[:2] for row in follower.rows(present, given)] == [("evals", 2)]
    finished = replace(present, status="finished")
    assert [row[:2] for row in follower.rows(finished, given)] == [("evals", 2), ("evals", 4)]


def test_accuracy_is_the_first_group_that_a_tracker_shows(world: Path) -> None:
    """Groups are shown in the order of the alphabet, in trackio and wandb after what has no group."""
    follower = pytest.importorskip("opd_lib.run.follower")
    present = record.read(recorded(world, "finished").folder)
    names = {name for _, _, values in follower.rows(present, {}) for name in values}
    assert "training/loss" in names and all(name.count("/") == 1 for name in names)
    assert min(name.partition("/")[0] for name in names) == "accuracy"


def test_what_was_given_is_noted_before_the_next_wait(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = pytest.importorskip("opd_lib.run.follower")
    steps: list[int] = []

    class Tracker:
        def log(self, values: dict[str, float], step: int) -> None:
            steps.append(step)

        def init_trackers(self, *arguments: Any, **options: Any) -> None: ...

    def killed() -> bool:
        raise SystemExit

    monkeypatch.setattr(follower, "Accelerator", lambda **options: Tracker())
    spec = recorded(world, "running")
    for _ in range(2):
        with pytest.raises(SystemExit):
            follower.Follower("tensorboard", world / "seen").run([spec], killed)
    assert steps == [0, 1, 2, 2]


def test_a_stop_waits_a_moment_for_the_tracker(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    (world / "results").mkdir()
    started = world / "results" / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(processes, "OPD", (sys.executable, "-c", code))
    monkeypatch.setattr(track, "STOP_PATIENCE", 0.1)
    with track.following(micro.load(world), "trackio", lambda: True):
        wait_for(lambda: started.exists() and bool(started.read_text()))
    assert not psutil.pid_exists(int(started.read_text()))


@pytest.mark.process
def test_trackio_holds_what_the_records_hold_and_writes_nowhere_else(world: Path) -> None:
    pytest.importorskip("trackio")
    specs = micro.load(world).runs()
    first = recorded(world, "running")
    home = world / "home"
    home.mkdir()
    assert follow(world, home).startswith("4 new rows")
    assert stored(world, first) == expected(first)
    with (first.folder / "steps.csv").open("a") as file:
        file.write("3,0.1234567\n4,0.0")
    micro.write_record(specs[1])
    assert follow(world, home).startswith("3 new rows")
    assert stored(world, first) == expected(first) and stored(world, specs[1]) == expected(specs[1])
    assert not list(home.iterdir())
    assert {path.name for path in (world / "results").iterdir()} == {"tiny", "trackio"}


@pytest.mark.process
def test_a_launch_gives_its_rows_to_a_tracker(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setattr(track, "PATIENCE", 300.0)
    specs = micro.load(world).runs()
    for spec in specs:
        micro.write_record(spec)
    runs = launch.run(micro.load(world), tracker="trackio")
    assert len(runs.records) == len(specs)
    assert all(stored(world, spec) == expected(spec) for spec in specs)


def recorded(world: Path, status: str) -> RunSpec:
    """The first run with steps and evaluations."""
    spec = micro.load(world).runs()[0]
    micro.write_record(spec, status=status)
    (spec.folder / "evals.csv").write_text(EVALS)
    return spec


def follow(world: Path, home: Path) -> str:
    """What `opd track` says in a process that cannot reach anything."""
    results = world / "results"
    words = ["track", "--here", "--only", micro.MODELS, "--results", str(results), "--params", str(world / "params")]
    env = track.surroundings(results / "trackio") | {"HOME": str(home)}
    command = [sys.executable, "-c", OFFLINE, *words]
    done = subprocess.run(command, cwd=paths.ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "REFUSED" not in done.stderr, done.stderr
    return done.stdout


def stored(world: Path, spec: RunSpec) -> dict[int, dict[str, float]]:
    """What trackio holds of a run: step → numbers."""
    (path,) = (world / "results" / "trackio").glob("*.db")
    query = "select step, metrics from metrics where run_name = ? order by id"
    with sqlite3.connect(path) as store:
        found = store.execute(query, (f"{spec.arm}-seed{spec.seed}-{spec.identity[:6]}",)).fetchall()
    return merged([(step, json.loads(metrics)) for step, metrics in found])


def expected(spec: RunSpec) -> dict[int, dict[str, float]]:
    """What the records hold of a run, read by hand."""
    found: list[tuple[int, dict[str, Any]]] = []
    for line in (spec.folder / "steps.csv").read_text().splitlines(keepends=True)[1:]:
        if line.endswith("\n"):
            step, loss = line.strip().split(",")
            found.append((int(step), {"training/loss": float(loss)}))
    evals = spec.folder / "evals.csv"
    for line in evals.read_text().splitlines()[1:] if evals.exists() else []:
        step, test_set, accuracy, length = line.split(",")
        found.append((int(step), {f"accuracy/{test_set}": float(accuracy)}))
        found.append((int(step), {f"length/{test_set}": float(length)} if length else {}))
    return merged(found)


def merged(rows: list[tuple[int, dict[str, Any]]]) -> dict[int, dict[str, float]]:
    """One entry per step; a number that comes twice is a mistake."""
    found: dict[int, dict[str, float]] = {}
    for step, values in rows:
        there = found.setdefault(step, {})
        assert not set(there) & set(values), f"step {step}: {values} came twice"
        there |= values
    return found
