"""Rows of growing records, given to accelerate's trackers. Runs in a process of its own: see `track`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from contextvars import Context
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from filelock import FileLock

from opd_lib.params import RunSpec
from opd_lib.records import parameters, reading, record
from opd_lib.records.record import RunRecord
from opd_lib.run import growing, plan

OF_STEPS = "training/"
"""Before the names of what is measured at every step. Trackers show groups in the order of the alphabet, trackio and
wandb what has no group before all others: so accuracy comes first."""
GIVEN = "given.json"
"""How far each run has been given, in the tracker's folder: step by table."""

Row = tuple[str, int, dict[str, float]]
"""Table, step, and what was measured."""


class Follower:
    """Gives every row of the records to a tracker, once.

    What was given is noted at once: rows never come twice, and those of a follower that is killed within the second in
    which the tracker writes them are left out.
    """

    def __init__(self, tracker: str, folder: Path) -> None:
        self._tracker, self._folder = tracker, folder
        self._open: dict[str, Accelerator] = {}
        self._given: dict[str, dict[str, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._noted = self._read()

    def run(self, specs: Sequence[RunSpec], wait: Callable[[], bool]) -> int:
        """How many rows were new. While `wait` returns True, and until interrupted, it looks again, then once more."""
        count = 0
        with suppress(KeyboardInterrupt):
            count += self.give(specs)
            while wait():
                count += self.give(specs)
        count += self.give(specs)
        self.close()
        return count

    def give(self, specs: Sequence[RunSpec]) -> int:
        """Give the rows that are new by now. Returns how many."""
        count = 0
        for spec in specs:
            new = self._give(spec)
            if new:
                self._note()
            count += new
        return count

    def close(self) -> None:
        """Let the tracker write all it was given."""
        for name in list(self._open):
            self._end(name)

    def _give(self, spec: RunSpec) -> int:
        present = growing.place(spec)
        if present is None:
            return 0
        name = "/".join(names(spec))
        given = self._given.setdefault(name, self._noted.get(name, {}))
        new = list(rows(present, given))
        for table, step, values in new:
            self._accelerator(spec).log(values, step=step)
            given[table] = step
        if present.status == plan.FINISHED and name in self._open:
            self._end(name)
        return len(new)

    def _accelerator(self, spec: RunSpec) -> Accelerator:
        project, _ = names(spec)
        name = "/".join(names(spec))
        if name not in self._open:
            self._open[name] = made = Accelerator(cpu=True, log_with=self._tracker, project_dir=self._folder)
            label = name if self._tracker == "tensorboard" else project
            start = {self._tracker: settings(self._tracker, spec, self._folder)}
            with redirect_stdout(io.StringIO()):  # trackio ends the run that it sees in its context: each has its own
                Context().run(made.init_trackers, label, init_kwargs=start)
        return self._open[name]

    def _read(self) -> dict[str, dict[str, int]]:
        path = self._folder / GIVEN
        remedy = "delete it, and the tracker is given every row once more"
        return reading.mapping(path, remedy=remedy) if path.exists() else {}

    def _note(self) -> None:
        with FileLock(self._folder / f".{GIVEN}.lock"):  # others may follow other runs
            record.write_json(self._folder / GIVEN, self._read() | self._given)

    def _end(self, name: str) -> None:
        with redirect_stdout(io.StringIO()):
            self._open.pop(name).end_training()


def rows(present: RunRecord, given: dict[str, int]) -> Iterator[Row]:
    """The rows after the steps given, in the order in which they were written; cells without a value are left out.

    Evaluations beyond the last step wait for it, so that steps never go back.
    """
    steps, finished = growing.rows(present, growing.STEPS), present.status == plan.FINISHED
    evals = by_test_set(growing.rows(present, growing.EVALS))
    last = max([given.get(growing.STEPS, 0), *steps.get("step", [])])
    found: list[Row] = []
    for table, group, frame in ((growing.STEPS, OF_STEPS, steps), (growing.EVALS, "", evals)):
        for row in frame.to_dict("records"):
            step = int(row.pop("step"))
            if step > given.get(table, -1) and (finished or step <= last):
                values = {f"{group}{key}": float(value) for key, value in row.items() if pd.notna(value)}
                found.append((table, step, values))
    return iter(sorted(found, key=lambda row: row[1]))


def by_test_set(evals: pd.DataFrame) -> pd.DataFrame:
    """One row per step: `accuracy/TEST_SET` and so on; a step counts when all of its test sets are there."""
    if evals.empty:
        return evals
    wide = evals.pivot(index="step", columns="test_set")
    wide = wide[wide.notna().T.groupby(level="test_set").any().all()]  # no single column: accuracy may be empty
    wide.columns = [f"{column}/{test_set}" for column, test_set in wide.columns]
    return wide.reset_index()


def names(spec: RunSpec) -> tuple[str, str]:
    """Project and run as the tracker shows them."""
    experiment, arm = spec.shown_as
    return f"{spec.profile}-{experiment}", f"{arm}-seed{spec.seed}-{spec.identity[:6]}"


def settings(tracker: str, spec: RunSpec, folder: Path) -> dict[str, Any]:
    """What accelerate hands on to the tracker when a run begins."""
    if tracker == "tensorboard":
        return {}
    _, name = names(spec)
    config = parameters.flatten(spec.params.said()) | {"seed": spec.seed, "identity": spec.identity}
    shared = {"name": name, "group": spec.shown_as[1], "config": config, "resume": "allow"}
    if tracker == "wandb":
        return shared | {"id": name, "dir": str(folder), "mode": "offline", "reinit": "create_new"}
    return shared | {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
