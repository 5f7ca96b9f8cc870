"""The runs of a notebook: finished ones are read, missing ones are trained in parallel processes of one thread each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from opd_lib.params import Experiment
from opd_lib.run import processes, track
from opd_lib.run.runs import FinishedRuns

if TYPE_CHECKING:
    from opd_lib.run.background import Training


@overload
def run(
    experiment: Experiment, jobs: int | None = None, *, live: Literal[False] = False, tracker: str | None = None
) -> FinishedRuns:
    """The finished runs."""


@overload
def run(
    experiment: Experiment, jobs: int | None = None, *, live: Literal[True], tracker: str | None = None
) -> Training:
    """The runs while they train."""


def run(
    experiment: Experiment, jobs: int | None = None, *, live: bool = False, tracker: str | None = None
) -> FinishedRuns | Training:
    """The finished runs of an experiment; what is missing is computed first, `jobs` at a time (default: per core one).

    Prints nothing when all is there. Raises ValueError naming each run that failed, its error and its log; runs that do
    not need it are finished nevertheless. Interrupted or killed, it leaves no process behind; called again, it resumes.
    What another process is training (another notebook, `opd reproduce`) is waited for.

    With `live` it returns at once and shows curves that grow, with buttons to stop and to resume: `.runs()` of what it
    returns waits for the end. `tracker` also gives the numbers to one of accelerate's trackers: see `opd track`.
    """
    if live:
        from opd_lib.run.live import show

        return show(experiment, jobs or processes.cores(), tracker)
    with track.following(experiment, tracker):
        return processes.complete(experiment.runs(), jobs)


def parents(experiment: Experiment, jobs: int | None = None) -> FinishedRuns:
    """The finished runs that make an experiment's students and teachers, each once; what is missing is computed."""
    specs = {parent.name: parent for spec in experiment.runs() for parent in spec.parents.values()}
    return processes.complete(tuple(specs.values()), jobs)


def with_models(experiment: Experiment, jobs: int | None = None) -> tuple[FinishedRuns, FinishedRuns]:
    """The runs of an experiment (`run`), and those that make its students and teachers (`parents`)."""
    return run(experiment, jobs), parents(experiment, jobs)
