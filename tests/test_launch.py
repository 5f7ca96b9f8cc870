"""Finding finished runs, computing missing ones, and leaving nothing behind when interrupted or killed."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import micro
import psutil
import pytest

from opd_lib import paths
from opd_lib.records import record
from opd_lib.run import guard, launch, meter, plan, processes, progress, single, timeleft
from opd_lib.run.status import TURN, is_locked, pace, slowness, status

TABLES = ("steps.csv", "evals.csv", "problems.csv", "rollouts.jsonl")


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_missing_lists_parents_first_and_once(world: Path) -> None:
    specs = micro.load(world, micro.OPD, seeds=(0, 1)).runs()
    names = [spec.name for spec in plan.missing([*specs, *specs])]
    assert len(names) == len(set(names)) == 8
    for seed in (0, 1):
        parents = [names.index(f"{micro.MODELS}/{arm}/seed{seed}") for arm in ("student", "teacher")]
        assert max(parents) < names.index(f"{micro.OPD}/plain/seed{seed}")


def test_a_parent_without_weights_is_trained_again_only_for_a_missing_child(world: Path) -> None:
    child = micro.load(world, micro.OPD).spec("plain", 0)
    for spec in micro.load(world).runs():
        micro.write_record(spec)
    assert plan.missing(micro.load(world).runs()) == ()
    assert len(plan.missing([child])) == 3
    child.parents["teacher"].model_folder.mkdir()
    assert [spec.arm for spec in plan.missing([child])] == ["student", "plain"]
    micro.write_record(child)
    assert plan.missing([child]) == ()


@pytest.mark.parametrize("state", ["finished", "running", "failed"])
def test_a_run_of_other_params_is_refused_with_the_keys(world: Path, state: str) -> None:
    spec, *_ = micro.load(world, overrides={"train.steps": 9}).runs()
    micro.write_record(spec, status=state)
    before = (spec.folder / "run.json").read_bytes()
    with pytest.raises(ValueError, match=r"train\.steps: 9 → 6") as caught:
        launch.run(micro.load(world))
    assert str(spec.folder) in str(caught.value) and "overrides=" in str(caught.value)
    assert (spec.folder / "run.json").read_bytes() == before


def test_finished_runs_are_read_in_silence(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    experiment = micro.load(world, seeds=(0, 1))
    for spec in experiment.runs():
        micro.write_record(spec)
    runs = launch.run(experiment)
    assert capfd.readouterr() == ("", "")
    frame = runs.frame("steps")
    assert list(frame.columns) == ["arm", "seed", "step", "loss"] and len(frame) == 12
    assert runs.examples("student", 1) == []
    with pytest.raises(ValueError, match="student/seed0"):
        runs.examples("nobody", 0)
    with pytest.raises(ValueError, match="steps, evals"):
        runs.frame("step")


def test_status_names_every_state(world: Path) -> None:
    specs = micro.load(world, seeds=tuple(range(5))).runs()[:5]
    micro.write_record(specs[0])
    micro.write_record(specs[1], status="failed", error="ValueError: loss")
    micro.write_record(specs[2], status="running")
    record.write_json(specs[2].folder / ".progress.json", {"step": 3, "steps": 6, "seconds": {"score": 1.5}})
    micro.write_record(specs[3], identity="0" * 16)
    frame = status(specs).set_index("run")
    assert list(frame["state"]) == ["done", "failed", "interrupted", "stale", "missing"]
    assert list(frame["step"]) == [6, 0, 3, 0, 0]
    assert list(frame["remaining"]) == [0.0, 3.0, 1.5, 3.0, 3.0]
    assert frame["note"].iloc[1] == "ValueError: loss"


def test_an_evaluation_alone_is_one_step_with_a_pace_of_its_own(world: Path) -> None:
    for arm in ("named", "other"):
        micro.change_arm(world, micro.MODELS, arm, {"train.steps": 0})
    experiment = micro.load(world)
    student, better, named, other = (experiment.spec(arm, 0) for arm in ("student", "better", "named", "other"))
    assert [plan.steps(spec) for spec in (student, named)] == [6, 1]
    assert pace([named, student]) == {}
    micro.write_record(student)  # 3 seconds for 6 steps
    assert pace([student, better, named]) == {student.name: 3.0, better.name: 4.0}
    micro.write_record(named)
    assert pace([student, better, named, other])[other.name] == 3.0
    frame = status([named, other]).set_index("run")
    assert list(frame["state"]) == ["done", "missing"] and list(frame["steps"]) == [1, 1]
    tasks = [meter.Task(name="a", steps=plan.steps(named), folder=named.folder, expected=5.0)]
    gauge = meter.Meter(tasks=tasks, jobs=1)
    lines = gauge.lines({"a": progress.RUNNING})
    assert lines[0].remaining == pytest.approx(5.0 + timeleft.RUN_START, abs=0.1) and "0/1" in progress.picture(
        lines, gauge.whole(lines)
    )


def test_launch_does_not_load_the_engine() -> None:
    code = "import sys, opd_lib.run.launch; sys.exit('opd_lib.engine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=False).returncode == 0


def test_processes_get_one_thread_and_keep_their_memory_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    made = processes.single_thread()
    assert made["OMP_NUM_THREADS"] == "1" and made["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert made["MALLOC_MMAP_THRESHOLD_"] == processes.KEPT["MALLOC_MMAP_THRESHOLD_"]


def test_finished_runs_here_say_how_slow_this_machine_is(world: Path) -> None:
    specs = micro.load(world, seeds=(0, 1)).runs()
    expected = dict.fromkeys((spec.name for spec in specs), 300.0)
    assert slowness(specs, expected) == 1.0
    for spec in specs[:2]:
        micro.write_record(spec)
        content = json.loads((spec.folder / "run.json").read_text())
        record.write_json(spec.folder / "run.json", content | {"seconds": {"score": 850.0, "rollout": 50.0}})
    assert slowness(specs, expected) == pytest.approx(3.0, rel=0.1)
    micro.write_record(specs[2], status="running")
    record.write_json(specs[2].folder / ".progress.json", {"step": 3, "steps": 6, "seconds": {"score": 3000.0}})
    assert slowness(specs, expected) == pytest.approx((2 * 900 + 3000) / (2 * 300 + 150), rel=0.1)
    committed = [
        replace(spec, folders=(paths.run_folder("tiny", spec.experiment, spec.arm, spec.seed),)) for spec in specs
    ]
    assert slowness(committed, expected) == 1.0


def test_a_log_gets_one_line_for_each_run_that_has_ended() -> None:
    stream = io.StringIO()
    display = progress.LogDisplay(stream)
    for step in [0, 0, 1, 5, 9, 10, 11, 20, 99]:
        display.update([line("a", progress.RUNNING, step, 100), line("b", progress.WAITING, 0, 9)], whole(0, 90.0))
    for _ in range(2):
        display.update([line("a", progress.DONE, 100, 100), line("b", progress.FAILED, 0, 9)], whole(1, 75.0))
    display.update([line("c.ipynb", progress.DONE, 1, 1)], whole(2, 0.0))
    todo, *shown = stream.getvalue().splitlines()
    assert todo == "to do: a, b; about 1m 30s"
    assert [text.split("] ")[1] for text in shown] == [
        "a: done in 1m 24s, 1 of 66 runs, 1m 15s left",
        "b: failed, 1 of 66 runs, 1m 15s left",
        "c.ipynb: done in 1m 24s, 2 of 66 runs",
    ]


def test_what_is_to_be_done_is_named_and_many_are_counted() -> None:
    lines = [line(f"r{number}", progress.WAITING, 0, 9) for number in range(progress.NAMED + 3)]
    assert progress.to_do(lines, whole(0, None)).endswith("r11, 3 more; how long is told once one of them is done")


def test_picture_counts_and_hides_the_quiet_ones() -> None:
    few = [line("first", progress.RUNNING, 5, 10), line("b", progress.WAITING, 0, 10)]
    assert progress.picture(few, whole(64, 61.0)).splitlines() == [
        "first  ██████████░░░░░░░░░░       5/10  8s left",
        "b      ░░░░░░░░░░░░░░░░░░░░       0/10  waiting",
        "64 of 66 runs · 1 running · 1 waiting · 1m 01s left",
    ]
    many = [*few, *(line(str(i), progress.DONE, 10, 10) for i in range(20))]
    assert len(progress.picture(many, whole(20, None)).splitlines()) == 2


def test_meter_estimates_from_what_is_known(tmp_path: Path) -> None:
    tasks = [meter.Task(name="a", steps=10, folder=tmp_path, expected=20.0), meter.Task(name="n", needs=("a",))]
    gauge = meter.Meter(tasks=tasks, jobs=2)
    lines = gauge.lines({"a": progress.RUNNING, "n": progress.WAITING})
    assert lines[0].remaining == 20.0 + timeleft.RUN_START
    assert gauge.whole(lines).remaining == lines[0].remaining + timeleft.NOTEBOOK
    assert gauge.whole(lines).counts == "0 of 1 runs, 0 of 1 notebooks"
    unknown = meter.Meter(tasks=[meter.Task(name="a", steps=10, folder=tmp_path)], jobs=1)
    assert unknown.whole(unknown.lines({"a": progress.WAITING})).remaining is None


def line(name: str, state: str, step: int, steps: int) -> meter.Line:
    return meter.Line(name=name, state=state, step=step, steps=steps, remaining=8.0, took=84.0)


def whole(done: int, remaining: float | None) -> meter.Whole:
    return meter.Whole(remaining=remaining, runs_done=done, runs=66)


def test_a_folder_that_cannot_be_written_is_one_clear_error(world: Path) -> None:
    (world / "results").write_text("a file in the way")
    with pytest.raises(ValueError, match="cannot be written"):
        launch.run(micro.load(world))


@pytest.mark.process
def test_children_can_be_interrupted_where_their_parent_ignores_it() -> None:
    show = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, flush=True)"
    code = (
        "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"from opd_lib.run import guard; child = [sys.executable, '-c', {show!r}]\n"
        "subprocess.run(child)\n"
        "with guard.termination_as_interrupt():\n"
        "    subprocess.run(child)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "subprocess.run(child)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True"]


@pytest.mark.process
def test_a_process_ends_with_its_guardian() -> None:
    guardian = subprocess.Popen(["sleep", "100"])
    code = f"from opd_lib.run import guard; import time; guard.follow({guardian.pid}); time.sleep(100)"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT)
    time.sleep(1.5)
    assert child.poll() is None
    guardian.kill()  # not waited for: a dead guardian counts as gone although its parent has not looked
    assert child.wait(timeout=20) == guard.GUARDIAN_GONE
    guardian.wait()


@pytest.mark.process
def test_missing_runs_are_computed_and_a_failure_spares_the_others(
    world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (world / "empty").mkdir()
    micro.teach(world)
    micro.change_arm(world, micro.OPD, "broken", {"teacher": str(world / "empty")})
    experiment = micro.load(world, micro.OPD)
    with pytest.raises(ValueError, match="broken/seed0 failed") as caught:
        launch.run(experiment, jobs=2)
    assert "cannot load a checkpoint" in str(caught.value) and "log.txt" in str(caught.value)
    assert "plain" not in str(caught.value)
    assert plan.finished(experiment.spec("plain", 0)) is not None
    assert f"{micro.OPD}/plain/seed0: done" in capfd.readouterr().err
    assert not psutil.Process().children()


@pytest.mark.process
def test_a_run_that_another_notebook_trains_is_waited_for_and_read(world: Path) -> None:
    code = SECOND.format(tests=str(Path(__file__).parent), world=str(world))
    first, second = (
        subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    said = [process.communicate(timeout=240)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], said
    spec = micro.load(world).spec("student", 0)
    assert plan.trained(spec)
    log = (spec.folder / processes.LOG).read_text()
    assert "rror" not in log and "%" not in log and f"finished: {spec.folder}\n" in log, log
    steps = (spec.folder / "steps.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in steps] == ["step", *map(str, range(1, 7))]


@pytest.mark.process
def test_a_run_that_another_process_gave_up_is_trained_here(world: Path) -> None:
    spec = micro.load(world).spec("student", 0)
    pool = processes.Pool([spec])
    with single.turn(spec):
        assert is_locked(spec.folder, TURN)
        pool.advance(jobs=1)
        assert pool.states[spec.name] == progress.WAITING and not psutil.Process().children()
    pool.advance(jobs=1)
    assert pool.states[spec.name] == progress.RUNNING
    pool.stop()
    other = processes.Pool([spec])
    micro.write_record(spec)
    spec.model_folder.mkdir()
    other.advance(jobs=1)
    assert other.states[spec.name] == progress.DONE and not psutil.Process().children()


SECOND = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import micro
from opd_lib.run import launch, processes
spec = micro.load(Path({world!r})).spec("student", 0)
assert processes.complete((spec,), jobs=1).records[0].status == "finished"
"""

LAUNCHER = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import micro
from opd_lib.run import launch, processes
processes.compute(micro.long(Path({world!r}), "broken"), jobs=2)
"""


@pytest.mark.process
def test_a_stopped_launcher_leaves_no_orphan_and_runs_that_resume_bit_for_bit(world: Path) -> None:
    code = LAUNCHER.format(tests=str(Path(__file__).parent), world=str(world))
    broken, whole = micro.long(world, "broken"), micro.long(world, "whole")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before = [micro.progress_of(spec.folder) for spec in broken]
        launcher = subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT, stderr=subprocess.DEVNULL)
        wait_for(lambda: all(micro.progress_of(s.folder) > b + 3 for s, b in zip(broken, before, strict=True)))  # noqa: B023
        children = psutil.Process(launcher.pid).children(recursive=True)
        assert len(children) >= 2
        launcher.send_signal(number)
        launcher.wait(timeout=30)
        wait_for(lambda: not any(guard.alive(child) for child in children), seconds=20)  # noqa: B023
        assert all(record.read(spec.folder).status in ("running", "finished") for spec in broken)  # one may be quick
    processes.compute(broken, jobs=2)
    processes.compute(whole, jobs=2)
    for resumed, unbroken in zip(broken, whole, strict=True):
        assert plan.trained(resumed)
        for name in TABLES:
            files = [spec.folder / name for spec in (resumed, unbroken)]
            assert files[0].exists() == files[1].exists()
            assert not files[0].exists() or files[0].read_bytes() == files[1].read_bytes(), name
