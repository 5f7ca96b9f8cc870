"""Runs that train in the background of a notebook: curves that grow, a stop and a resume button.

The picture is drawn in the kernel's main thread between two cells, or while `Training.runs` waits, so that nothing of a
cell that draws is disturbed; a cell that takes long holds the picture still and nothing else. What is shown is read
from the records, as they grow.
"""

from __future__ import annotations

import asyncio
import html
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from opd_lib.params import Experiment
from opd_lib.report import figures
from opd_lib.run import growing, plan, processes, progress, track
from opd_lib.run.background import DONE, GOING, Training

PACE = 2.0
"""Seconds between two pictures, at least."""
SHARE = 5
"""A picture is drawn again after this many times the CPU seconds that it took: a fifth of a core at most."""
FIRST = ("accuracy", "overlap_k", "entropy_gap", "reward", "loss")
"""What is drawn unless something else is chosen: the first PANELS of these (or that begin so) that have values."""
PANELS = 3


class View:
    """The picture, the text and the buttons of a training, in Jupyter."""

    def __init__(self, training: Training) -> None:
        import ipywidgets as widgets

        self.training = training
        self._drawn: tuple[Any, ...] = ()
        self._due = 0.0
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stop = widgets.Button(description="Stop", icon="stop", tooltip="End the processes; nothing is lost")
        self._resume = widgets.Button(description="Resume", icon="play", tooltip="Go on from the last checkpoints")
        self._chosen = widgets.TagsInput(value=[], allowed_tags=[], allow_duplicates=False, placeholder="add a column")
        self._text = widgets.HTML()
        self._picture = widgets.Image(format="png", layout={"max_width": "100%", "display": "none"})
        buttons = widgets.HBox([self._stop, self._resume, self._chosen])
        self.box = widgets.VBox([buttons, self._text, self._picture])
        self._stop.on_click(lambda _: self._press(lambda: training.stop(wait=False)))
        self._resume.on_click(lambda _: self._press(training.resume))
        self._chosen.observe(lambda _: self.follow(), "value")
        training.started, training.refresh = self.follow, self.refresh

    def close(self) -> None:
        """Disable the buttons for good: another training has these folders."""
        self.training.replaced = True
        self.follow()

    def follow(self) -> None:
        """Bring everything up to date soon, and again between cells until the training ends.

        Any thread may call it (a button may be pressed while a cell runs); drawn is in the main one.
        """
        self._drawn, self._due = (), 0.0
        self._loop.call_soon_threadsafe(self._begin)

    def refresh(self) -> None:
        """Bring text and buttons up to date, and the picture if rows have come; not more often than is due."""
        state = self.training.state
        if state == GOING and time.monotonic() < self._due:
            return
        began = time.thread_time()
        self._stop.disabled = state != GOING or self.training.is_stopping
        self._resume.disabled = state in (GOING, DONE) or self.training.replaced
        try:
            self._say(self.training.text())
            written = growing.sizes((*self.training.specs, *self.training.todo))
            if written != self._drawn:
                self.draw()
                self._drawn = written
        except (ValueError, OSError) as error:  # of a record: the training goes on, and so does this
            self._say(str(error))
        self._due = time.monotonic() + max(PACE, SHARE * (time.thread_time() - began))

    def draw(self) -> None:
        """Draw the chosen columns of what is recorded by now; nothing as long as there is none."""
        frame = self.training.curves()
        known = [column for column in frame if column not in growing.KEYS and frame[column].notna().any()]
        if not known:
            return
        self._chosen.allowed_tags = known
        shown = [column for column in self._chosen.value if column in known] or first(known)
        chart = figures.panels(frame, shown, shown, [""] * len(shown))
        self._picture.value = chart.png()
        self._picture.layout.display = None

    def _press(self, action: Callable[[], None]) -> None:
        try:
            action()
            self.follow()
        except (ValueError, OSError) as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        self._text.value = f"<pre style='line-height: 1.3'>{html.escape(text)}</pre>"

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._follow())

    async def _follow(self) -> None:
        while self.training.state == GOING:
            self.refresh()
            await asyncio.sleep(processes.POLL)
        self.refresh()


def first(known: Sequence[str]) -> list[str]:
    """Which columns are drawn unless others are chosen.

    >>> first(["loss", "reward", "overlap_k16", "overlap_k64", "accuracy"])
    ['accuracy', 'overlap_k16', 'reward']
    """
    found = [next((name for name in known if name.startswith(wanted)), "") for wanted in FIRST]
    return [name for name in found if name][:PANELS] or list(known[:1])


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
    publish({**view.box._repr_mimebundle_(), "text/plain": f"live training of {experiment.name}"})
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
