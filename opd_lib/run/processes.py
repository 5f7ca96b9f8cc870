"""Runs in processes of their own, of one thread each: started when there is room, watched, ended with this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from opd_lib import paths
from opd_lib.params import RunSpec
from opd_lib.records import record
from opd_lib.run import guard, meter, plan, progress, room, status
from opd_lib.run.meter import DONE, FAILED, RUNNING, SKIPPED, WAITING
from opd_lib.run.runs import FinishedRuns

if TYPE_CHECKING:
    pass

LOG = "log.txt"
POLL = 0.2
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
ARROW = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""pyarrow's allocator would start a thread when it is imported."""
KEPT = {"MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "33554432"}
"""glibc keeps the memory of large tensors for the next ones (bytes): by default it gives them back to the kernel each
time, and every page of the next costs a fault. Another libc does not look."""
TAIL = 5
"""Lines of a log that stand for its error when the record has none."""


def complete(specs: tuple[RunSpec, ...], jobs: int | None) -> FinishedRuns:
    """These runs finished, under the names they were asked for by; what is missing is computed first."""
    todo = plan.missing(plan.swept(specs))
    if todo:
        compute(todo, jobs or cores(), before=len({spec.name for spec in specs} - {spec.name for spec in todo}))
    found = [(spec, plan.finished(spec)) for spec in specs]
    return FinishedRuns(
        records=tuple(present.renamed(*spec.shown_as) for spec, present in found if present is not None)
    )


def cores() -> int:
    """Physical cores this process may use."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    process = psutil.Process()
    allowed = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else physical
    return max(1, min(physical, allowed))


def compute(specs: Sequence[RunSpec], jobs: int, before: int = 0) -> None:
    """Train these runs (parents first, as `plan.missing` orders them) in child processes, showing progress.

    `before`: how many others are finished and count in what is shown.
    """
    if jobs < 1:
        raise ValueError(f"jobs: {jobs} is too few; use at least 1")
    pool = Pool(specs)
    gauge, display = meter.meter_of(specs, jobs, before), progress.display()
    try:
        with guard.termination_as_interrupt():
            while pool.is_busy():
                pool.advance(jobs)
                lines = gauge.lines(pool.states)
                display.update(lines, gauge.whole(lines))
                time.sleep(POLL)
    finally:
        pool.stop()
        display.close()
    if reasons := pool.failures():
        raise ValueError(reasons)


class Pool:
    """Child processes that train runs, each started when its parents are done and there is room."""

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.states = dict.fromkeys(self.specs, WAITING)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def is_busy(self) -> bool:
        """True until every run is done, failed or skipped."""
        return any(state in (WAITING, RUNNING) for state in self.states.values())

    def advance(self, jobs: int) -> None:
        """Note which children have ended and start what can be started."""
        for name, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                del self._children[name]
                self.states[name] = DONE if code == 0 and plan.finished(self.specs[name]) else FAILED
        for name, spec in self.specs.items():
            if self.states[name] != WAITING:
                continue
            needed = {self.states.get(parent.name, DONE) for parent in spec.parents.values()}
            if needed & {FAILED, SKIPPED}:
                self.states[name] = SKIPPED
            elif not needed <= {DONE} or status.is_locked(spec.folder, status.TURN):  # another process trains it
                continue
            elif plan.trained(spec):  # now that the other one has
                self.states[name] = DONE
            elif self._room(jobs, spec):
                self._children[name] = start(spec)
                self.states[name] = RUNNING

    def stop(self) -> None:
        """End every child and its children, and wait for them."""
        family = [process for child in self._children.values() for process in _family(child.pid)]
        guard.end(family)
        for child in self._children.values():
            child.wait()

    def failures(self) -> str:
        """Each run that failed, why, and where its log is; empty if none did."""
        failed = [spec for spec in self.specs.values() if self.states[spec.name] == FAILED]
        return "\n".join(failure(spec.name, spec.folder / LOG, spec.folder) for spec in failed)

    def _room(self, jobs: int, spec: RunSpec) -> bool:
        busy = sum(self.specs[name].params.machine.processes for name in self._children)
        return busy == 0 or busy + spec.params.machine.processes <= jobs


def start(spec: RunSpec) -> subprocess.Popen[bytes]:
    """A process of its own that trains one run and ends with this one; what it prints goes to its folder's log.txt."""
    room.prepare(spec.folder)
    with room.writing(spec.folder):
        log = (spec.folder / LOG).open("ab")
    with log:
        return subprocess.Popen(
            [*command(spec), "--guardian", str(os.getpid())],
            cwd=paths.ROOT,
            env=single_thread(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def command(spec: RunSpec) -> list[str]:
    """The command that trains one run: `opd run` with everything that leads to the same identity."""
    origin = spec.origin
    words = [*OPD, "run", spec.experiment, spec.arm, str(spec.seed), "--profile", spec.profile]
    return [*words, *changes(origin.results, origin.overrides), *params_option(origin.source.parents[1])]


OPD = (sys.executable, "-m", "opd_lib.command.cli")
"""The `opd` command of this interpreter, whatever is on the path."""


def changes(results: Path | None, overrides: Mapping[str, Any]) -> list[str]:
    """The options that name a folder of records and what is changed of the params files, where there are such."""
    words = [] if results is None else ["--results", str(results.resolve())]
    return words + (["--overrides", json.dumps(dict(overrides))] if overrides else [])


def params_option(root: Path) -> list[str]:
    """The option that names a params folder, where it is not the repository's."""
    return [] if root == paths.PARAMS else ["--params", str(root.resolve())]


def single_thread(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with one thread per process: parallel runs would otherwise fight for the cores."""
    few = {**dict.fromkeys(THREADS, "1"), "TOKENIZERS_PARALLELISM": "false", **ARROW}
    return {**KEPT, **os.environ, **few, **(extra or {})}


def failure(name: str, log: Path, folder: Path | None) -> str:
    """Why something failed: the error of its record or the end of its log, and where the log is."""
    present = record.read(folder) if folder is not None else None
    error = present.error if present is not None and present.status == FAILED else ""
    if not error:
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        error = "\n".join(lines[-TAIL:]) or "it ended without a word (killed?)"
    return f"{name} failed: {error}\n  log: {log}"


def _family(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *guard.descendants(pid)]
    except psutil.NoSuchProcess:
        return []
