"""Runs that train in the background: a thread starts and watches their processes, which end with this one.

Each run trains in a child process of its own. Nothing is drawn here: see `live`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from opd_lib.params import Experiment, RunSpec
from opd_lib.run import growing, meter, plan, processes, progress, track
from opd_lib.run.runs import FinishedRuns

if TYPE_CHECKING:
    import pandas as pd

GOING, STOPPED, FAILED, DONE = "training", "stopped", "failed", "done"
GO_ON = {
    GOING: "runs() waits for them, stop() ends the processes",
    STOPPED: "resume() goes on from the last checkpoints",
    FAILED: "runs() says why, resume() tries again",
    DONE: "runs() gives them",
}
"""What can be done with a training, by its state."""


class Training:
    """The runs of an experiment while they train in the background; `state` is training, stopped, failed or done.

    `jobs` and `tracker` are as in `launch.run`.
    """

    def __init__(self, experiment: Experiment, jobs: int, tracker: str | None = None) -> None:
        self.specs = experiment.runs()
        self.jobs, self.tracker = jobs, tracker
        self.todo: tuple[RunSpec, ...] = ()
        self.error = ""
        self.replaced = False  # once another training has these folders, this one never goes on
        self.started: Callable[[], None] = lambda: None  # called when a training begins or goes on
        self.refresh: Callable[[], None] = lambda: None  # called now and then while `runs` waits
        self._experiment = experiment
        self._pool, self._thread, self._stop = processes.Pool(()), threading.Thread(), threading.Event()
        self._meter = meter.Meter(tasks=(), jobs=jobs)

    def __repr__(self) -> str:
        runs = f"{len(self.specs)} run{'s' * (len(self.specs) != 1)}"
        further = "a later cell trains them" if self.replaced else GO_ON[self.state]
        return f"training of {self._experiment.name} at {self._experiment.profile}: {runs}, {self.state}; {further}"

    @property
    def state(self) -> str:
        """One of training, stopped (some runs are not finished), failed, done."""
        if self._thread.is_alive():
            return GOING
        if self.error:
            return FAILED
        return STOPPED if self._pool.is_busy() else DONE

    @property
    def is_stopping(self) -> bool:
        """True from the wish to stop until every process has ended."""
        return self.state == GOING and self._stop.is_set()

    def resume(self) -> None:
        """Train what is missing, from the last checkpoints; nothing if it is going on or all is there.

        What another process trains is waited for. Raises ValueError if a folder holds a corrupt record or a run of
        other parameters, or if a later cell has these runs.
        """
        if self.replaced:
            raise ValueError("these runs are trained by a later cell: resume them there")
        if self.is_stopping:
            self._thread.join()
        if self.state == GOING:
            return
        self.todo, self.error = plan.missing(self.specs), ""
        before = len({spec.name for spec in self.specs} - {spec.name for spec in self.todo})
        self._pool, self._meter = processes.Pool(self.todo), meter.meter_of(self.todo, self.jobs, before)
        self._stop.clear()
        self._thread = threading.Thread(target=self._train, args=(self._pool,), name="training", daemon=True)
        self._thread.start()
        self.started()

    def stop(self, wait: bool = True) -> None:
        """End every process; with `wait` return when none is left. `resume` goes on from the last checkpoints."""
        self._stop.set()
        if wait and self._thread.is_alive():
            self._thread.join()

    def runs(self) -> FinishedRuns:
        """The finished runs, once they are; interrupting the wait leaves the training going on.

        Raises ValueError naming each run that failed, its error and its log, or if the training was stopped.
        """
        while self.state == GOING:
            self.refresh()
            time.sleep(processes.POLL)
        self.refresh()
        if self.error:
            raise ValueError(self.error)
        if self.state == STOPPED:
            raise ValueError("the training was stopped: call resume() or press the button, then runs() again")
        return processes.complete(self.specs, self.jobs)

    def curves(self) -> pd.DataFrame:
        """One row per run and step of what is recorded; as long as no run has begun, of the models they start from."""
        own = growing.curves(self.specs)
        return own if len(own) else growing.curves(self.todo)

    def text(self) -> str:
        """How far the runs are: a line for each that trains, and one for the whole."""
        if self.replaced:
            return "these runs are trained by a later cell"
        if self.state == FAILED:
            return self.error
        if self.state == DONE:
            return f"done: {len(self.specs)} runs"
        if self.state == STOPPED:
            left = sum(state in (meter.WAITING, meter.RUNNING) for state in self._pool.states.values())
            return f"stopped: {left} runs to go, from their last checkpoints"
        if self.is_stopping:
            return "stopping: the processes are ending"
        lines = self._meter.lines(dict(self._pool.states))
        return progress.picture(lines, self._meter.whole(lines))

    def _train(self, pool: processes.Pool) -> None:
        try:
            with track.following(self._experiment, self.tracker, self._stop.is_set):
                try:
                    while pool.is_busy() and not self._stop.is_set():
                        pool.advance(self.jobs)
                        self._meter.watch(dict(pool.states))
                        self._stop.wait(processes.POLL)
                finally:
                    pool.stop()
            self.error = pool.failures()
        except (ValueError, OSError) as error:
            self.error = str(error)
        finally:
            unforeseen = sys.exception()  # goes on to the thread's hook, which shows where it came from
            if unforeseen is not None:
                self.error = f"{type(unforeseen).__name__}: {unforeseen}"
