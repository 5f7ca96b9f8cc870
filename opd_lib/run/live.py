"""Runs that train in the background of a notebook: curves that grow, a stop and a resume button (see `panel`)."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from opd_lib.params import Experiment
from opd_lib.run import plan, processes, progress, track
from opd_lib.run.background import GOING, Training
from opd_lib.run.panel import View

WITHOUT_KERNEL = "live curves of {}: shown while their kernel runs; run this cell again to see how the runs stand"
"""What stands in the panel's place where its kernel is gone, in a stored notebook too."""


def show(experiment: Experiment, jobs: int, tracker: str | None = None) -> Training:
    """Start training and show it: what `launch.run(..., live=True)` does.

    Outside Jupyter, or without ipywidgets, the runs are trained here and now with plain progress, and a line says so.
    A cell that is run again goes on with its training. Raises ValueError if another one is training some of the runs.
    """
    reason = what_is_missing()
    if reason:
        print(f"live: {reason}; plain progress instead", file=sys.stderr)
        with track.following(experiment, tracker):
            processes.complete(experiment.runs(), jobs)
        return Training(experiment, jobs)
    from IPython import display

    view = view_of(experiment, jobs, tracker)
    view.training.resume()
    publish: Any = display.publish_display_data
    publish({**view.box._repr_mimebundle_(), "text/plain": WITHOUT_KERNEL.format(experiment.name)})
    return view.training


def view_of(experiment: Experiment, jobs: int, tracker: str | None) -> View:
    """The view of these runs, a new one if there is none; others that could start one of them are closed.

    Raises ValueError if one of those is training.
    """
    specs = experiment.runs()
    missing = {spec.folder for spec in plan.missing(specs)}
    for view in [view for view in _views if view.training.specs != specs]:
        if missing.isdisjoint(spec.folder for spec in view.training.todo):
            continue
        if view.training.state == GOING:
            raise ValueError("another cell trains some of these runs: wait for it, or stop it first")
        view.close()
        _views.remove(view)
    same = next((view for view in _views if view.training.specs == specs), None)
    if same is None:
        _views.append(same := View(Training(experiment, jobs, tracker)))
    elif same.training.state != GOING:
        same.training.jobs, same.training.tracker = jobs, tracker
    return same


_views: list[View] = []
"""What this kernel shows and can be resumed."""


def what_is_missing() -> str:
    """Why nothing can be shown live here; empty if it can."""
    if not progress.in_jupyter():
        return "not in Jupyter"
    return "" if find_spec("ipywidgets") else "ipywidgets is not installed"
