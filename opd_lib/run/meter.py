"""How far runs and notebooks are and how long the rest takes here, from their states and the files the runs write.

The watcher need not be the one that started them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opd_lib.params import RunSpec
from opd_lib.run import plan, timeleft
from opd_lib.run.status import Snapshot, pace, slowness, snapshot

WAITING, RUNNING, DONE, FAILED, SKIPPED = "waiting", "running", "done", "failed", "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something to watch: a run (with its folder and steps) or a notebook (one step, no folder)."""

    name: str
    steps: int = 1
    folder: Path | None = None
    expected: float | None = None  # seconds that its record will count, if known
    needs: tuple[str, ...] = ()
    cores: int = 1

    @property
    def whole(self) -> float | None:
        """Expected seconds of a run from the start of its process to its end, None if unknown."""
        return None if self.expected is None else self.expected + timeleft.RUN_START


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is shown of a task; `remaining` seconds, None if unknown, and the seconds that it `took` so far here."""

    name: str
    state: str
    step: int
    steps: int
    remaining: float | None
    took: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What is shown of all tasks together; seconds, None if unknown. Runs finished before this batch count, too."""

    remaining: float | None
    runs_done: int
    runs: int
    notebooks_done: int = 0
    notebooks: int = 0

    @property
    def counts(self) -> str:
        """How many of how many, in words."""
        words = [f"{self.runs_done} of {self.runs} runs"] if self.runs else []
        words += [f"{self.notebooks_done} of {self.notebooks} notebooks"] if self.notebooks else []
        return ", ".join(words)


@dataclass(slots=True, kw_only=True)
class Meter:
    """Turns states and progress files into lines; `jobs` cores work at a time.

    `before`: runs that were finished before. `slowness`: seconds here per expected second, as far as known before.
    """

    tasks: Sequence[Task]
    jobs: int
    before: int = 0
    slowness: float = 1.0
    clock: Callable[[], float] = time.monotonic
    _begun: dict[str, float] = field(default_factory=dict)  # when first seen running
    _first: dict[str, float] = field(default_factory=dict)  # at which share of its steps
    _took: dict[str, float] = field(default_factory=dict)  # seconds since then, of what is done
    _moved: dict[str, tuple[int, float]] = field(default_factory=dict)  # step and seconds when first seen to go on

    def watch(self, states: Mapping[str, str]) -> None:
        """Note what has begun and what is done; whoever sees the states more often than they are shown calls it."""
        now = self.clock()
        for task in self.tasks:
            state = states[task.name]
            if state == RUNNING and task.name not in self._begun:
                self._first[task.name] = self._seen(task) / task.steps
                self._begun[task.name] = now
            elif state == DONE and task.name in self._begun and task.name not in self._took:
                self._took[task.name] = now - self._begun[task.name]

    def lines(self, states: Mapping[str, str]) -> list[Line]:
        """One line per task, in the order of the tasks."""
        self.watch(states)
        steps = {task.name: self._step(task, states[task.name]) for task in self.tasks}
        pace = self._paces(states, steps)
        return [self._line(task, states[task.name], steps[task.name], pace) for task in self.tasks]

    def whole(self, lines: Sequence[Line]) -> Whole:
        """What is shown of all of them; seconds are unknown as long as those of one task are."""
        runs = [line for task, line in zip(self.tasks, lines, strict=True) if task.folder is not None]
        done, all_done = (sum(line.state == DONE for line in some) for some in (runs, lines))
        return Whole(
            remaining=self._remaining(lines),
            runs_done=self.before + done,
            runs=self.before + len(runs),
            notebooks_done=all_done - done,
            notebooks=len(lines) - len(runs),
        )

    def _remaining(self, lines: Sequence[Line]) -> float | None:
        left = [(t, line) for t, line in zip(self.tasks, lines, strict=True) if line.state in (WAITING, RUNNING)]
        if any(line.remaining is None for _, line in left):
            return None
        pieces = [
            timeleft.Piece(
                name=line.name, seconds=line.remaining or 0.0, running=line.state == RUNNING, needs=task.needs,
                cores=task.cores,
            )
            for task, line in left
        ]  # fmt: skip
        return timeleft.makespan(pieces, self.jobs)

    def _seen(self, task: Task) -> int:
        found = _snapshot(task.folder) if task.folder is not None else None
        return 0 if found is None else min(found.step, task.steps)

    def _step(self, task: Task, state: str) -> int:
        if state != RUNNING:
            return task.steps if state == DONE else 0
        step = self._seen(task)
        if step / task.steps < self._first[task.name]:  # a resumed run has gone back to its checkpoint
            self._first[task.name], self._begun[task.name] = step / task.steps, self.clock()
            self._moved.pop(task.name, None)
        if step / task.steps > self._first[task.name]:
            self._moved.setdefault(task.name, (step, self._elapsed(task, state)))
        return step

    def _elapsed(self, task: Task, state: str) -> float:
        """Seconds that a task took here, until now or its end."""
        if state == RUNNING:
            return self.clock() - self._begun[task.name]
        return self._took.get(task.name, 0.0)

    def _evidence(
        self, runs: bool, states: Mapping[str, str], steps: Mapping[str, int]
    ) -> Iterator[tuple[Task, float, float]]:
        """(task, share of its steps done here, seconds which that took) of every run, or notebook, that says it."""
        for task in self.tasks:
            if (task.folder is not None) != runs or task.name not in self._begun:
                continue
            share = steps[task.name] / task.steps - self._first[task.name]
            if share > 0 and states[task.name] in (RUNNING, DONE):
                yield task, share, self._elapsed(task, states[task.name])

    def _paces(self, states: Mapping[str, str], steps: Mapping[str, int]) -> _Paces:
        runs, notebooks = (list(self._evidence(kind, states, steps)) for kind in (True, False))
        known = [(took, share * whole) for task, share, took in runs if (whole := task.whole) is not None]
        of_runs = timeleft.stretch(sum(took for took, _ in known), sum(e for _, e in known), self.slowness)
        of_notebooks = timeleft.stretch(
            sum(took for _, _, took in notebooks), timeleft.NOTEBOOK * len(notebooks), of_runs
        )
        per_step = self._per_step(runs, states, steps)
        return _Paces(runs=of_runs, notebooks=of_notebooks, per_step=per_step)

    def _per_step(
        self, runs: Sequence[tuple[Task, float, float]], states: Mapping[str, str], steps: Mapping[str, int]
    ) -> float | None:
        """Seconds of a step of these runs, without what comes before the first one; None if no run has made any."""
        done = seconds = 0.0
        for task, share, took in runs:
            step, before = self._moved.get(task.name, (steps[task.name] - share * task.steps, 0.0))
            if task.name in self._moved or states[task.name] == DONE:
                done, seconds = done + steps[task.name] - step, seconds + took - before
        return seconds / done if done else None

    def _line(self, task: Task, state: str, step: int, paces: _Paces) -> Line:
        took = self._elapsed(task, state)
        left: float | None = 0.0
        if state in (WAITING, RUNNING):
            left = paces.whole(task)
            share = step / task.steps - self._first.get(task.name, 0.0)
            if state == RUNNING and left is not None and task.steps == 1:
                left = max(0.0, left - took)
            elif state == RUNNING and left is not None:
                own = timeleft.stretch(took, share * left) if share > 0 else 1.0
                left *= own * (1 - step / task.steps)
        return Line(name=task.name, state=state, step=step, steps=task.steps, remaining=left, took=took)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Paces:
    """Seconds here per expected second of runs and of notebooks, and per step of a run of which nothing is expected."""

    runs: float
    notebooks: float
    per_step: float | None

    def whole(self, task: Task) -> float | None:
        """Seconds of a whole task here; None if unknown."""
        if task.folder is None:
            return timeleft.NOTEBOOK * self.notebooks
        if task.whole is not None:
            return task.whole * self.runs
        return None if self.per_step is None else self.per_step * task.steps


def _snapshot(folder: Path) -> Snapshot | None:
    """How far a run says it is; nothing where that cannot be read: who watches stops nobody."""
    try:
        return snapshot(folder)
    except ValueError:
        return None


def meter_of(specs: Sequence[RunSpec], jobs: int, before: int = 0) -> Meter:
    """What tells how far these runs are and how long the rest takes."""
    expected = pace(specs)
    tasks = [
        Task(
            name=spec.name, steps=plan.steps(spec), folder=spec.folder, expected=expected.get(spec.name),
            needs=tuple(parent.name for parent in spec.parents.values()), cores=spec.params.machine.processes,
        )
        for spec in specs
    ]  # fmt: skip
    return Meter(tasks=tasks, jobs=jobs, before=before, slowness=slowness(specs, expected))
