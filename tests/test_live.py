"""Training in the background of a notebook: what is shown is what is recorded, stop and resume, nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import micro
import psutil
import pytest
from test_launch import TABLES, wait_for

from opd_lib import paths
from opd_lib.run import growing, guard, launch, live, processes
from opd_lib.run.background import DONE, FAILED, GOING, STOPPED, Training

EVALS = "step,test_set,accuracy\n0,chain-3,0.5\n0,chain-4,0.25\n2,chain-3,0.75\n2,chain-4,0.5\n"


def test_what_is_shown_is_every_whole_row_of_the_records(world: Path) -> None:
    experiment = micro.load(world, seeds=(0, 1))
    running, finished = experiment.spec("student", 0), experiment.spec("student", 1)
    micro.write_record(running, status="running")
    micro.write_record(finished)
    (finished.folder / "evals.csv").write_text(EVALS)
    with (running.folder / "steps.csv").open("a") as file:
        file.write("3,0.1")  # the rest of the number is on its way
    frame = growing.curves(experiment.runs())
    assert list(frame.columns) == ["arm", "seed", "step", "loss", "accuracy"]
    rows = frame.astype(object).where(frame.notna(), None).values.tolist()
    assert rows == [
        ["student", 0, 1, 0.5, None],
        ["student", 0, 2, 0.25, None],
        ["student", 1, 0, None, 0.375],
        ["student", 1, 1, 0.5, None],
        ["student", 1, 2, 0.25, 0.625],
    ]
    before = growing.sizes(experiment.runs())
    with (running.folder / "steps.csv").open("a") as file:
        file.write("25\n")
    assert growing.sizes(experiment.runs()) != before and growing.curves([running])["loss"].iloc[-1] == 0.125


def test_runs_of_other_params_are_not_shown(world: Path) -> None:
    spec, *_ = micro.load(world).runs()
    micro.write_record(spec, identity="0" * 16)
    assert growing.place(spec) is None and growing.curves([spec]).empty


def test_outside_jupyter_there_is_plain_progress_and_a_line_that_says_so(
    world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = micro.load(world)
    for spec in experiment.runs():
        micro.write_record(spec)
    training = launch.run(experiment, live=True)
    assert capfd.readouterr().err == "live: not in Jupyter; plain progress instead\n"
    assert training.state == DONE and len(training.runs().records) == len(experiment.runs())


def test_a_stop_is_asked_for_without_waiting(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(processes.Pool, "advance", lambda pool, jobs: ended.wait(240))
    training = Training(micro.load(world), jobs=1)
    training.resume()
    training.stop(wait=False)
    assert training.state == GOING and training.is_stopping and "stopping" in training.text()
    ended.set()
    training.stop()
    assert training.state == STOPPED and not training.is_stopping


def test_an_error_that_nobody_foresaw_is_a_failure(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[threading.ExceptHookArgs] = []

    def fail(pool: processes.Pool, jobs: int) -> None:
        raise KeyError("loss")

    monkeypatch.setattr(processes.Pool, "advance", fail)
    monkeypatch.setattr(threading, "excepthook", shown.append)
    training = Training(micro.load(world), jobs=1)
    training.resume()
    with pytest.raises(ValueError, match="KeyError: 'loss'"):
        training.runs()
    assert training.state == FAILED and shown[0].exc_type is KeyError


def test_runs_are_in_one_view_that_can_go_on(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(live, "_views", [])
    one, more = micro.load(world), micro.load(world, seeds=(0, 1))

    async def kernel() -> None:
        view = live.view_of(one, 1, None)
        assert live.view_of(micro.load(world), 2, "trackio") is view
        assert (view.training.jobs, view.training.tracker) == (2, "trackio")
        view.training.todo = one.runs()  # as after a stop
        with monkeypatch.context() as patch:
            patch.setattr(Training, "state", GOING)
            assert live.view_of(one, 1, None) is view and view.training.jobs == 2
            with pytest.raises(ValueError, match="another cell trains some of these runs"):
                live.view_of(more, 1, None)
        assert live.view_of(more, 1, None) is not view
        view.refresh()
        assert view._stop.disabled and view._resume.disabled and "later cell" in view._text.value
        with pytest.raises(ValueError, match="by a later cell"):
            view.training.resume()
        assert live.view_of(one, 1, None) is not view

    asyncio.run(kernel())


def test_a_corrupt_record_is_told_and_the_picture_goes_on(world: Path) -> None:
    pytest.importorskip("ipywidgets")
    experiment = micro.load(world)
    spec, *_ = experiment.runs()
    micro.write_record(spec, status="running")
    good = (spec.folder / "run.json").read_text()
    (spec.folder / "run.json").write_text("{")

    async def kernel() -> None:
        view = live.View(Training(experiment, 1))
        view.refresh()
        assert "run.json" in view._text.value and not view._pictures.children
        view._resume.click()
        assert "run.json" in view._text.value
        (spec.folder / "run.json").write_text(good)
        view.refresh()
        assert "run.json" not in view._text.value and pictures(view)[0][1:4] == b"PNG"

    asyncio.run(kernel())


def pictures(view: live.View) -> list[bytes]:
    return [bytes(image.value) for image in view._pictures.children]


def trains(pid: int | None = None) -> list[psutil.Process]:
    """The processes below one (default: this one) that train a run."""
    return [process for process in guard.descendants(pid) if "opd_lib.command.cli" in micro.command_of(process)]


@pytest.mark.process
def test_stopped_and_resumed_is_byte_for_byte_as_unbroken(world: Path) -> None:
    changes = {"train.steps": 150, "evaluate.every": 50}
    broken, whole = (micro.load(world, results=name, overrides=changes) for name in ("broken", "whole"))
    training = Training(broken, jobs=2)
    training.resume()
    assert training.state == GOING
    wait_for(lambda: len(training.curves()) > 3)
    assert len(training.curves()) < 450 and "running" in training.text()
    training.stop()
    assert training.state == STOPPED and not trains()
    with pytest.raises(ValueError, match="was stopped"):
        training.runs()
    training.resume()
    resumed, unbroken = training.runs(), launch.run(whole, jobs=2)
    assert training.state == DONE and not trains()
    assert len(training.curves()["step"].unique()) == 151  # before the first step accuracy is measured
    for mine, other in zip(resumed.records, unbroken.records, strict=True):
        for name in TABLES:
            files = [record.folder / name for record in (mine, other)]
            assert files[0].exists() == files[1].exists()
            assert not files[0].exists() or files[0].read_bytes() == files[1].read_bytes(), name


@pytest.mark.process
def test_a_failure_is_told_and_can_be_tried_again(world: Path) -> None:
    (world / "empty").mkdir()
    micro.teach(world)
    for spec in micro.load(world).runs():
        micro.write_record(spec)
        spec.model_folder.mkdir()
    micro.change_arm(world, micro.OPD, "plain", {"student": str(world / "empty")})
    micro.change_arm(world, micro.OPD, "sampled", {"student": str(world / "empty")})
    training = Training(micro.load(world, micro.OPD), jobs=2)
    for _ in range(2):
        training.resume()
        with pytest.raises(ValueError, match=r"plain/seed0 failed(.|\n)*log\.txt"):
            training.runs()
        assert training.state == FAILED and "plain/seed0 failed" in training.text()


FIRST = """
import sys; sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
import micro
from opd_lib.run import launch, live, processes
experiment = micro.load(Path({world!r}), overrides={{"train.steps": 3000}})
training = launch.run(experiment, jobs=2, live=True)
view, = live._views
"""
FIRST_AGAIN = "assert launch.run(experiment, jobs=2, live=True) is training"
PICTURES = "[bytes(image.value) for image in view._pictures.children]"
STATE = f"print(training.state, view._stop.disabled, view._resume.disabled, {PICTURES}[:1])"


@pytest.fixture
def kernel() -> Iterator[Any]:
    """A notebook's kernel and its client."""
    pytest.importorskip("ipywidgets")
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=240, kernel_name="python3", cwd=str(paths.ROOT))
    yield manager, client
    client.stop_channels()
    if manager.is_alive():
        manager.shutdown_kernel(now=True)


def execute(client: Any, code: str) -> tuple[str, list[dict[str, Any]]]:
    """What a cell prints to stdout, and what it displays. Raises AssertionError with the traceback if it fails."""
    texts, shown = [], []

    def note(message: dict[str, Any]) -> None:
        content = message["content"]
        texts.extend([content["text"]] if content.get("name") == "stdout" else [])
        shown.extend([content["data"]] if message["msg_type"] == "display_data" else [])
        assert message["msg_type"] != "error", "\n".join(content["traceback"])

    client.execute_interactive(code, timeout=240, output_hook=note)
    return "".join(texts), shown


@pytest.mark.process
def test_in_a_kernel_cells_run_while_curves_grow_and_buttons_stop_and_resume(world: Path, kernel: Any) -> None:
    manager, client = kernel
    tests = str(Path(__file__).parent)
    said, (bundle,) = execute(client, FIRST.format(tests=tests, root=str(paths.ROOT), world=str(world)))
    assert said == "" and bundle["text/plain"].startswith(f"live curves of {micro.MODELS}: ")
    assert "application/vnd.jupyter.widget-view+json" in bundle

    def state() -> list[str]:
        return execute(client, STATE)[0].split(" ", 3)

    wait_for(lambda: "PNG" in state()[3])
    assert state()[:3] == [GOING, "False", "True"]
    children = trains(manager.provisioner.pid)
    assert len(children) >= 2
    execute(client, "view._stop.click()")
    wait_for(lambda: not any(guard.alive(child) for child in children))
    wait_for(lambda: state()[:3] == [STOPPED, "True", "False"])
    execute(client, f"before = {PICTURES}; view._add.value = 'grad_norm'")
    wait_for(lambda: "True ['gradient norm']" in execute(client, f"print({PICTURES} != before, view._chosen.value)")[0])
    execute(client, "view._resume.click()")
    wait_for(lambda: state()[:3] == [GOING, "False", "True"])
    execute(client, FIRST_AGAIN)
    wait_for(lambda: bool(trains(manager.provisioner.pid)))
    children = trains(manager.provisioner.pid)
    assert len(children) <= 2
    manager.shutdown_kernel(now=True)
    wait_for(lambda: not any(guard.alive(child) for child in children))
