"""The jobs of a plan carried out by Snakemake, which lives in an environment of its own.

It orders the jobs, runs them in parallel (here, or on a cluster: see `batch/cluster`) and goes on when one fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from opd_lib import paths
from opd_lib.batch import cluster
from opd_lib.batch.cluster import Slurm
from opd_lib.batch.jobs import Job, Standing, meter_of, suits, write_plan
from opd_lib.run import guard, processes, progress, room
from opd_lib.run.meter import FAILED, RUNNING, SKIPPED, WAITING
from opd_lib.run.status import BATCH

LOG = "reproduce.log"
SOURCES = Path(".snakemake") / "source-cache"
"""Where Snakemake keeps the Snakefile that its own jobs read, on other machines of a cluster too."""
POLL = 0.5
PATIENCE = 20.0  # seconds Snakemake gets to end its jobs and free its lock


def carry_out(
    jobs: Sequence[Job],
    root: Path,
    at_a_time: int,
    snakemake: Path,
    slurm: Slurm | None = None,
    before: Standing = Standing(),  # noqa: B008 (frozen)
) -> None:
    """Run Snakemake on these jobs to the end, showing progress; its own words go to RESULTS/reproduce.log.

    `at_a_time`: cores of this machine, or jobs in the queue of a cluster. Raises ValueError naming every job that
    failed. Interrupted, it ends Snakemake and all jobs; their runs can resume.
    """
    if not jobs:
        return
    if any((root / ".snakemake" / "locks").glob("*")):
        raise ValueError(locked(root))
    shutil.rmtree(root / SOURCES, ignore_errors=True)  # Snakemake would read an earlier Snakefile there for ever
    since, states = time.time() - 1, dict.fromkeys((job.name for job in jobs), WAITING)
    meter, display = meter_of(jobs, at_a_time, before, by_cores=slurm is None), progress.display()
    with (
        (root / LOG).open("ab") as log,
        guard.termination_as_interrupt(),
        prepared(() if slurm else jobs, log) as address,
    ):
        write_plan(jobs, root, None if slurm else os.getpid(), address)
        process = start(command(root, at_a_time, snakemake, slurm), log)
        try:
            running = True
            while running:
                running = process.poll() is None
                states = {job.name: job.state(since) for job in jobs}
                if not running:
                    states = settle(jobs, states)
                lines = meter.lines(states)
                display.update(lines, meter.whole(lines))
                time.sleep(POLL if running else 0)
        finally:
            stop(process)
            display.close()
    report(jobs, states, root, process.returncode)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Inside the block no other `opd reproduce` works in this results folder; the kernel frees the lock of a dead one.

    Raises ValueError if one does, or if the folder cannot be written; nothing is changed then.
    """
    lock = FileLock(root / BATCH)
    with room.writing(root):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{root}: another `opd reproduce` works here; wait for it or stop it (nothing was changed), or choose "
                "another --results folder"
            ) from None
    try:
        room.prepare(root)
        yield
    finally:
        lock.release()


@contextmanager
def prepared(jobs: Sequence[Job], log: Any) -> Iterator[Path | None]:
    """Inside the block a process forks jobs at this address; None where no run suits it, or torch would not survive."""
    if sys.platform != "linux" or not any(job.is_run and suits(job.machine) for job in jobs):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="opd-") as folder:
        address = Path(folder) / "ready"
        process = start([*guarded(), sys.executable, "-m", "opd_lib.command.ready", str(address)], log)
        try:
            yield address
        finally:
            stop(process)


def settle(jobs: Sequence[Job], states: dict[str, str]) -> dict[str, str]:
    """States after the end: what was running has failed, what waited was skipped."""
    final = {RUNNING: FAILED, WAITING: SKIPPED}
    return {job.name: final.get(states[job.name], states[job.name]) for job in jobs}


def report(jobs: Sequence[Job], states: dict[str, str], root: Path, code: int) -> None:
    """Raise ValueError unless all is done."""
    failed = [job for job in jobs if states[job.name] == FAILED]
    skipped = sum(state == SKIPPED for state in states.values())
    if not failed and not skipped and code == 0:
        return
    words = [processes.failure(job.name, job.log, job.folder if job.is_run else None) for job in failed]
    if not failed:
        words = [f"Snakemake ended with exit code {code}; see {root / LOG}"]
    if skipped:
        words.append(f"{skipped} more were not tried")
    raise ValueError("\n".join(words))


def command(root: Path, at_a_time: int, snakemake: Path, slurm: Slurm | None) -> list[str]:
    """The call of Snakemake; on this machine ended when this process is gone, for so are its jobs."""
    where = cluster.arguments(slurm, at_a_time) if slurm else ["--cores", str(at_a_time)]
    return [
        *([] if slurm else guarded()),
        *(str(snakemake), "--snakefile", str(paths.ROOT / "Snakefile"), "--directory", str(root)),
        *(*where, "--keep-going", "--nocolor"),
        *(["--nolock"] if {"{", "}"} & {*str(root)} else []),  # its lock cannot live there; ours does
        *("--rerun-triggers", "mtime", "--scheduler", "greedy", "--rerun-incomplete"),
        *("--runtime-source-cache-path", str(root / SOURCES)),
    ]


def guarded() -> list[str]:
    """The words before a command that is ended when this process is gone."""
    return [sys.executable, "-m", "opd_lib.run.guard", str(os.getpid())]


def start(words: Sequence[str], log: Any) -> subprocess.Popen[bytes]:
    """Snakemake, or what waits for its jobs, in a process group of its own."""
    return subprocess.Popen(
        list(words),
        cwd=paths.ROOT,
        env=processes.single_thread(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End such a process and all it has started: an interrupt first, so that Snakemake frees its lock."""
    family = {*guard.descendants(process.pid), *guard.group(process.pid)}
    if process.poll() is not None and family:  # killed: what it guarded has been told by the kernel, where it tells
        psutil.wait_procs(family, timeout=PATIENCE / 4)
    if any(guard.alive(member) for member in family):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        psutil.wait_procs(family, timeout=PATIENCE)
    guard.end([member for member in family if guard.alive(member)])
    process.wait()


def find_snakemake(named: Path | None) -> Path:
    """The Snakemake to call: the one named, else .venv-batch of this repository, else the first on the path."""
    if named is not None:
        if not named.is_file():
            raise ValueError(f"--snakemake {named}: no such file")
        return named
    own = paths.ROOT / ".venv-batch" / "bin" / "snakemake"
    found = own if own.is_file() else shutil.which("snakemake")
    if found is None:
        raise ValueError(
            "Snakemake was not found. It lives in an environment of its own: `make reproduce` makes it, or\n"
            "  python3 -m venv .venv-batch && .venv-batch/bin/pip install -r requirements/batch.lock\n"
            "or name one: --snakemake PATH. Without it, `opd run` trains one run and papermill runs one notebook."
        )
    return Path(found)


def locked(root: Path) -> str:
    """What to do about Snakemake's lock."""
    return (
        f"{root}: locked by another `opd reproduce`. If one is running, wait for it or stop it. If none is (it was "
        f"killed), delete {root / '.snakemake' / 'locks'} and start again: finished runs are kept, the others resume"
    )
