"""The processes of one run: nobody else can speak to them, none outlives the others or what has started them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import micro
import psutil
import pytest
from test_launch import wait_for

from opd_lib import lifetime, paths
from opd_lib.params import RunSpec
from opd_lib.records import record
from opd_lib.run import guard, plan, processes, ranks

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]


def spec_of(world: Path) -> RunSpec:
    return micro.load(world, overrides={"train.steps": 300, "machine.processes": 2}).spec("student", 0)


@pytest.fixture
def started(world: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of two processes that has made a few steps."""
    spec = spec_of(world)
    spec.folder.mkdir(parents=True)
    with (world / "log").open("wb") as log:
        launcher = subprocess.Popen(processes.command(spec), cwd=paths.ROOT, env=processes.single_thread(), stderr=log)
    wait_for(lambda: micro.progress_of(spec.folder) > 2 or launcher.poll() is not None)
    assert launcher.poll() is None, (world / "log").read_text()
    yield launcher
    guard.end([*guard.descendants(launcher.pid), psutil.Process(launcher.pid)] if launcher.poll() is None else [])


def listening(family: list[psutil.Process]) -> set[str]:
    """The addresses at which processes wait for others."""
    found = [each for process in family for each in process.net_connections("inet")]
    return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN}


@pytest.mark.process
def test_two_processes_listen_to_themselves_alone_and_die_with_what_started_them(
    world: Path, started: subprocess.Popen[bytes]
) -> None:
    spec, family = spec_of(world), guard.descendants(started.pid)
    assert len(family) == 2
    assert listening([psutil.Process(started.pid), *family]) == {"127.0.0.1"}
    (meeting,) = {process.cmdline()[-1] for process in family}
    assert Path(meeting).exists() and Path(meeting).parent.stat().st_mode & 0o777 == 0o700
    started.kill()
    started.wait()
    wait_for(lambda: not any(guard.alive(process) for process in family), seconds=20)
    assert not plan.trained(spec)
    processes.compute([spec], jobs=2)
    assert plan.trained(spec) and not list(spec.folder.glob(".checkpoint*"))


@pytest.mark.process
def test_a_process_group_of_one_listens_to_itself_alone() -> None:
    code = (
        "import psutil, torch; from opd_lib import params; from opd_lib.engine.model import distributed\n"
        "machine = params.load('04_success_and_failure').arms['failure'].machine\n"
        "for _ in range(2): distributed.stand_alone(machine)\n"
        "torch.distributed.new_group([0]).size(); distributed.meet(); assert not distributed.are_many()\n"
        "found = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]\n"
        "print(torch.distributed.get_world_size(), *{*found} - {'127.0.0.1', '::1'})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1"], done.stdout + done.stderr


@pytest.mark.process
def test_terminated_from_outside_a_run_of_two_processes_is_interrupted_and_not_failed(
    world: Path, started: subprocess.Popen[bytes]
) -> None:
    family = guard.descendants(started.pid)
    (meeting,) = {Path(process.cmdline()[-1]) for process in family}
    started.terminate()
    assert started.wait(timeout=60) != 0
    assert not any(guard.alive(process) for process in family) and not meeting.parent.exists()
    present = record.read(spec_of(world).folder)
    assert present is not None and present.status == "running"


def test_the_first_failure_is_named_and_ends_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, signal, time; os.environ['RANK'] == '1' and os.kill(os.getpid(), {}); time.sleep(300)"
    begin = time.monotonic()
    assert ranks.carry_out([sys.executable, "-c", code.format(9)], 3) == 1
    assert time.monotonic() - begin < 60 and not psutil.Process().children()
    assert "process 1: Signal 9 (Killed); the others are ended" in capfd.readouterr().err
    said = "' '.join([*(os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')), str(len(sys.argv))])"
    show = f"import os, sys; os.write(1, ({said} + chr(10)).encode())"  # a line at once: the two share one file
    assert ranks.carry_out([sys.executable, "-c", show], 2) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["0 0 2 2", "1 1 2 2"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells a command that knows nothing of it")
def test_a_command_dies_with_what_started_it_however_that_ends() -> None:
    code = f"import subprocess; from opd_lib import lifetime; subprocess.run(lifetime.bound({SLEEP!r}))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT)
    wait_for(lambda: any(micro.command_of(p) == SLEEP for p in guard.descendants(parent.pid)), seconds=30)
    family = guard.descendants(parent.pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(guard.alive(process) for process in family), seconds=5)


@pytest.mark.parametrize("platform", [sys.platform, "elsewhere"])
def test_a_process_that_binds_itself_dies_with_its_parent(platform: str, tmp_path: Path) -> None:
    said = tmp_path / "bound"
    child = f"import sys; sys.platform = {platform!r}; from opd_lib import lifetime\nimport pathlib, time\n"
    child += f"lifetime.bind(); pathlib.Path({str(said)!r}).touch(); time.sleep(300)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT)
    wait_for(said.exists, seconds=30)
    family = guard.descendants(parent.pid)
    assert len(family) == 1
    parent.kill()
    parent.wait()
    wait_for(lambda: not guard.alive(family[0]), seconds=10)


def test_whoever_starts_processes_says_what_ends_them() -> None:
    starts = re.compile(
        r"subprocess\.(?:run|Popen|call|check_\w+)\(|ProcessPoolExecutor\(|os\.(?:fork|system|posix_spawn)"
    )
    found = {path.relative_to(paths.ROOT / "opd_lib").as_posix() for path in (paths.ROOT / "opd_lib").rglob("*.py")}
    starting = {name for name in found if starts.search((paths.ROOT / "opd_lib" / name).read_text())}
    assert starting == set(ENDS)
    for name, how in ENDS.items():
        assert how in (paths.ROOT / "opd_lib" / name).read_text(), name


ENDS = {
    "tasks/graders.py": "lifetime.bound(",
    "bench/child.py": "lifetime.bound(",
    "run/guard.py": "lifetime.bound(",
    "batch/redraw.py": "initializer=lifetime.bind",
    "batch/reexecute.py": "initializer=lifetime.bind",
    "run/processes.py": '"--guardian", str(os.getpid())',
    "run/ranks.py": "guard.end(",  # and what it starts is given a guardian: run/single.py
    "batch/workflow.py": "*guarded()",
    "command/ready.py": "guard.follow(",
    "run/track.py": "stdin=subprocess.PIPE",  # the child ends when that is closed
    "run/status.py": '"git", "rev-parse"',  # these three end by themselves at once
    "batch/cluster.py": '"sacct"',
    "engine/provenance.py": '"git"',
}
"""Module that starts processes → what in it makes them end with the one that has started them."""


def test_a_process_whose_parent_is_another_one_ends_at_once() -> None:
    code = "from opd_lib import lifetime; lifetime.bind(1 << 22); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL and done.stdout == b""
    assert lifetime.bound(["x"])[4:] == [str(os.getpid()), "9", "x"]
