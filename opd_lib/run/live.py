"""Runs that train in the background of a notebook: curves that grow, a stop and a resume button.

A thread starts and watches the child processes; each run trains in one of its own and dies with the kernel. The picture
is drawn in the kernel's main thread between two cells, or while `Training.runs` waits, so that nothing of a cell that
draws is disturbed; a cell that takes long holds the picture still and nothing else. What is shown is read from the
records, as they grow.
"""

from __future__ import annotations

import asyncio
import html
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd_lib.params import Experiment, RunSpec
from opd_lib.report import figures
from opd_lib.run import growing, launch, plan, progress, track
from opd_lib.run.launch import Runs

if TYPE_CHECKING:
    import pandas as pd

GOING, STOPPED, FAILED, DONE = "training", "stopped", "failed", "done"
PACE = 2.0
"""Seconds between two pictures, at least."""
SHARE = 5
"""A picture is drawn again after this many times the CPU seconds that it took: a fifth of a core at most."""
FIRST = ("accuracy", "overlap_k", "entropy_gap", "reward", "loss")
"""What is drawn unless something else is chosen: the first PANELS of these (or that begin so) that have values."""
PANELS = 3


class Training:
    """The runs of an experiment while they train in the background; `state` is training, stopped, failed or done."""

    def __init__(self, experiment: Experiment, jobs: int, tracker: str | None = None) -> None:
        self.specs = experiment.runs()
        self.todo: tuple[RunSpec, ...] = ()
        self.error = ""
        self.started: Callable[[], None] = lambda: None  # called when a training begins or goes on
        self.refresh: Callable[[], None] = lambda: None  # called now and then while `runs` waits
        self._experiment, self._jobs, self._tracker = experiment, jobs, tracker
        self._pool, self._thread, self._stop = launch.Pool(()), threading.Thread(), threading.Event()
        self._meter = progress.Meter(tasks=(), jobs=jobs)

    @property
    def state(self) -> str:
        """One of training, stopped (some runs are not finished), failed, done."""
        if self._thread.is_alive():
            return GOING
        if self.error:
            return FAILED
        return STOPPED if self._pool.is_busy() else DONE

    def resume(self) -> None:
        """Train what is missing, from the last checkpoints; nothing if it is going on or all is there.

        Raises ValueError if a folder holds a corrupt record or a run of other parameters.
        """
        if self.state == GOING:
            return
        self.todo, self.error = plan.missing(self.specs), ""
        self._pool, self._meter = launch.Pool(self.todo), progress.meter_of(self.todo, self._jobs)
        self._stop.clear()
        self._thread = threading.Thread(target=self._train, args=(self._pool,), name="training", daemon=True)
        self._thread.start()
        self.started()

    def stop(self) -> None:
        """End every process and wait until none is left. The runs go on from their last checkpoints with `resume`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def runs(self) -> Runs:
        """The finished runs, once they are; interrupting the wait leaves the training going on.

        Raises ValueError naming each run that failed, its error and its log, or if the training was stopped.
        """
        while self.state == GOING:
            self.refresh()
            time.sleep(launch.POLL)
        self.refresh()
        if self.error:
            raise ValueError(self.error)
        if self.state == STOPPED:
            raise ValueError("the training was stopped: call resume() or press the button, then runs() again")
        return launch.complete(self.specs, self._jobs)

    def curves(self) -> pd.DataFrame:
        """One row per run and step of what is recorded; as long as no run has begun, of the models they start from."""
        own = growing.curves(self.specs)
        return own if len(own) else growing.curves(self.todo)

    def text(self) -> str:
        """How far the runs are: a line for each that trains, and one for the whole."""
        if self.state == FAILED:
            return self.error
        if self.state == DONE:
            return f"done: {len(self.specs)} runs"
        if self.state == STOPPED:
            left = sum(state in (progress.WAITING, progress.RUNNING) for state in self._pool.states.values())
            return f"stopped: {left} runs to go, from their last checkpoints"
        lines = self._meter.lines(dict(self._pool.states))
        return progress.picture(lines, self._meter.remaining(lines))

    def _train(self, pool: launch.Pool) -> None:
        try:
            with track.following(self._experiment, self._tracker):
                try:
                    while pool.is_busy() and not self._stop.is_set():
                        pool.advance(self._jobs)
                        self._stop.wait(launch.POLL)
                finally:
                    pool.stop()
            self.error = pool.failures()
        except (ValueError, OSError) as error:
            self.error = str(error)


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
        self._stop.on_click(lambda _: training.stop())
        self._resume.on_click(lambda _: training.resume())
        self._chosen.observe(lambda _: self.follow(), "value")
        training.started, training.refresh = self.follow, self.refresh

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
        self._stop.disabled, self._resume.disabled = state != GOING, state in (GOING, DONE)
        self._text.value = f"<pre style='line-height: 1.3'>{html.escape(self.training.text())}</pre>"
        written = growing.sizes((*self.training.specs, *self.training.todo))
        if written != self._drawn:
            self._drawn = written
            self.draw()
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

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._follow())

    async def _follow(self) -> None:
        while self.training.state == GOING:
            self.refresh()
            await asyncio.sleep(launch.POLL)
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
    A cell that is run again shows the training that is going on.
    """
    reason = what_is_missing()
    if reason:
        print(f"live: {reason}; plain progress instead", file=sys.stderr)
        launch.run(experiment, jobs, tracker=tracker)
        return Training(experiment, jobs)
    from IPython import display

    key = tuple(spec.folder for spec in experiment.runs())
    view = _views.get(key)
    if view is None or view.training.state != GOING:
        _views[key] = view = View(Training(experiment, jobs, tracker))
    view.training.resume()
    publish: Any = display.publish_display_data
    publish({**view.box._repr_mimebundle_(), "text/plain": f"live training of {experiment.name}"})
    return view.training


_views: dict[tuple[Path, ...], View] = {}
"""What this kernel shows, by the folders of its runs."""


def what_is_missing() -> str:
    """Why nothing can be shown live here; empty if it can."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if type(shell).__name__ != "ZMQInteractiveShell":
        return "not in Jupyter"
    return "" if find_spec("ipywidgets") else "ipywidgets is not installed"
