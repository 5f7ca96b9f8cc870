"""The plan of a batch: which runs and notebooks are missing, what each needs, and the command that does it.

Here a job counts by its processes; on a cluster it asks for what `cluster.resources` says.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_lib import paths
from opd_lib.batch import cluster, execute
from opd_lib.params import Experiment, RunSpec
from opd_lib.params.schema import Machine
from opd_lib.records import record
from opd_lib.records.record import write_json
from opd_lib.run import plan, processes, room, timeleft
from opd_lib.run.meter import DONE, FAILED, RUNNING, WAITING, Meter, Task
from opd_lib.run.progress import many
from opd_lib.run.status import is_locked, pace, slowness


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run or notebook to be done. `folder` is the run's record, or where the notebook is executed."""

    name: str
    is_run: bool
    needs: tuple[str, ...]
    done: Path
    words: tuple[str, ...]
    folder: Path
    machine: Machine | None = None
    cores: int = 1
    steps: int = 1
    expected: float | None = None

    @property
    def log(self) -> Path:
        """Everything the job printed."""
        return self.folder / (processes.LOG if self.is_run else "notebook.log")

    def state(self, since: float) -> str:
        """Where the job stands, as its files say; what is older than `since` (seconds of the epoch) does not count."""
        if self.done.exists():
            return DONE
        if not self.log.exists() or self.log.stat().st_mtime < since:
            return WAITING
        if self.is_run:
            return FAILED if self._has_failed(since) and not is_locked(self.folder) else RUNNING
        failed = self.folder / execute.FAILED
        return FAILED if failed.exists() and failed.stat().st_mtime >= since else RUNNING

    def _has_failed(self, since: float) -> bool:
        path = self.folder / "run.json"
        if not path.exists() or path.stat().st_mtime < since:
            return False
        present = record.read(self.folder)
        return present is not None and present.status == FAILED


def make_plan(chosen: Sequence[Experiment], root: Path, folder: Path, params_root: Path) -> tuple[Job, ...]:
    """The jobs that are missing under a results folder, or that of a try: runs, parents first, then notebooks.

    Raises ValueError for a corrupt record, a run of other parameters, or a folder that cannot be written.
    """
    every = plan.with_parents(plan.all_runs(chosen))  # notebooks read the parents' records too
    specs = plan.missing(plan.swept(every))
    expected = _expected(specs)
    names = {spec.folder: _name(spec, root) for spec in specs}
    done = {place: root / ".done" / f"{name}.run.json" for place, name in names.items()}
    jobs = [_run_job(spec, names[spec.folder], done, expected.get(spec.folder)) for spec in specs]
    for experiment in chosen:
        request = execute.Request.of(experiment, folder, params_root)
        needs = tuple(str(done[spec.folder]) for spec in plan.with_parents(experiment.runs()) if spec.folder in done)
        if needs or not execute.is_done(request, experiment):
            jobs.append(_notebook_job(request, needs, root))
    with room.writing(root):
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            job.done.unlink(missing_ok=True)
    return tuple(jobs)


def _name(spec: RunSpec, root: Path) -> str:
    """A run's name; of one that belongs elsewhere, which a try starts from, with the place before it."""
    place = spec.folder.parents[3]
    if place == root.resolve():
        return spec.name
    return f"{(place.relative_to(paths.LOCAL) if place.is_relative_to(paths.LOCAL) else place.name)}/{spec.name}"


def _expected(specs: Sequence[RunSpec]) -> dict[Path, float]:
    """Folder of a run → expected seconds; a changed run may have the name of one that is as its params file has it."""
    found: dict[Path, float] = {}
    for group in ([spec for spec in specs if bool(spec.origin.overrides) is changed] for changed in (True, False)):
        known = pace(group)
        found |= {spec.folder: known[spec.name] for spec in group if spec.name in known}
    return found


def _run_job(spec: RunSpec, name: str, done: dict[Path, Path], expected: float | None) -> Job:
    return Job(
        name=name,
        is_run=True,
        needs=tuple(str(done[parent.folder]) for parent in spec.parents.values() if parent.folder in done),
        done=done[spec.folder],
        words=tuple(processes.command(spec)),
        folder=spec.folder,
        machine=spec.params.machine,
        cores=spec.params.machine.processes,
        steps=plan.steps(spec),
        expected=expected,
    )


def _notebook_job(request: execute.Request, needs: tuple[str, ...], root: Path) -> Job:
    seeds = ",".join(map(str, request.seeds or ())) + ","
    words = [*processes.OPD, "execute", request.name, "--profile", request.profile]
    words += ["--seeds", seeds, *processes.changes(request.results, request.overrides)]
    words += processes.params_option(request.params_root)
    if request.folder != paths.NOTEBOOKS:
        words += ["--notebooks", str(request.folder.resolve())]
    return Job(
        name=f"{request.name}.ipynb",
        is_run=False,
        needs=needs,
        done=root / ".done" / f"{request.name}.ipynb.notebook.json",
        words=tuple(words),
        folder=request.target,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What there is before a batch: finished runs, and seconds here per expected second as they know it."""

    finished: int = 0
    slowness: float = 1.0


def standing(chosen: Sequence[Experiment], jobs: Sequence[Job]) -> Standing:
    """What there is of these experiments beside the jobs that are left of them."""
    every = plan.with_parents(plan.all_runs(chosen))
    left = sum(job.is_run for job in jobs)
    plain = [spec for spec in every if not spec.origin.overrides]  # of changed ones only they themselves are known
    return Standing(finished=len(every) - left, slowness=slowness(plain, pace(plain)))


def summary(jobs: Sequence[Job], root: Path, finished: int = 0) -> str:
    """How much there is to do and where it goes, and how many runs are done, there or where they belong."""
    n_runs = sum(job.is_run for job in jobs)
    before = f"; {finished} of {finished + n_runs} runs are finished" if finished else ""
    todo = f"{many(n_runs, 'run')} to train, {many(len(jobs) - n_runs, 'notebook')} to execute"
    return f"{todo}, into {root}{before}"


def meter_of(jobs: Sequence[Job], at_a_time: int, before: Standing, by_cores: bool = True) -> Meter:
    """What tells how far the jobs are and how long the rest takes; with `by_cores` one of many cores counts as many."""
    names = {str(job.done): job.name for job in jobs}
    tasks = [
        Task(
            name=job.name, steps=job.steps, folder=job.folder if job.is_run else None, expected=job.expected,
            needs=tuple(names[need] for need in job.needs if need in names), cores=job.cores if by_cores else 1,
        )
        for job in jobs
    ]  # fmt: skip
    return Meter(tasks=tasks, jobs=at_a_time, before=before.finished, slowness=before.slowness)


def write_plan(jobs: Sequence[Job], root: Path, guardian: int | None, address: Path | None = None) -> Path:
    """RESULTS/.plan.json, which the Snakefile reads. With a `guardian` the jobs end when that process is gone.

    With the `address` of a process that `command/ready` has prepared, the jobs that suit it are started there.
    """
    content: dict[str, dict[str, Any]] = {"runs": {}, "notebooks": {}}
    urgent = urgency(jobs)
    for job in jobs:
        words = [*job.words, "--done", str(job.done), *([] if guardian is None else ["--guardian", str(guardian)])]
        if address is not None and suits(job.machine):
            words = [*requesting(address), *words]
        content["runs" if job.is_run else "notebooks"][job.name] = {
            "needs": job.needs,
            "done": str(job.done.relative_to(root)),
            "cores": job.cores,
            "urgency": round(urgent[job.name]),
            "resources": cluster.resources(job.machine),
            "command": _command(words, job.log),
        }
    for entry in (*content["runs"].values(), *content["notebooks"].values()):
        entry["needs"] = [str(Path(need).relative_to(root)) for need in entry["needs"]]
    path = root / ".plan.json"
    with room.writing(root):
        write_json(path, content)
    return path


def urgency(jobs: Sequence[Job]) -> dict[str, float]:
    """Of each job, how long it and the longest chain of jobs behind it take: expected seconds, or steps if unknown.

    Whoever starts the most urgent job first is done early: the batch takes at least as long as its longest chain.
    """
    pieces = [
        timeleft.Piece(
            name=str(job.done), needs=job.needs,
            seconds=job.expected if job.expected is not None else float(job.steps),
        )
        for job in jobs
    ]  # fmt: skip
    found = timeleft.urgency(pieces)
    return {job.name: found[str(job.done)] for job in jobs}


def _command(words: Sequence[str], log: Path) -> str:
    """A line for the shell; it touches the log first, which is how a watcher knows that the job has begun."""
    where = shlex.quote(str(log))
    return f"cd {shlex.quote(str(paths.ROOT))} && touch {where} && exec {shlex.join(words)} >> {where} 2>&1"


def suits(machine: Machine | None) -> bool:
    """Whether a run may be forked: one process on the processor, without an engine of its own. None: a notebook may."""
    return machine is None or (machine.processes, machine.device, machine.sampler) == (1, "cpu", "transformers")


def requesting(address: Path) -> list[str]:
    """The words before a command that make it ask at this address."""
    return [sys.executable, "-S", "-m", "opd_lib.command.ready", str(address)]
