"""The panel of a training in Jupyter: a picture for each chosen column, a text, buttons.

Pictures are drawn in the kernel's main thread between two cells, or while `Training.runs` waits, so that nothing of a
cell that draws is disturbed; a cell that takes long holds them still and nothing else. What is shown is read from the
records, as they grow. The page keeps the panel when its kernel is gone: the text names the time at which it was true,
and the style (`STYLE`) shows in place of the buttons that the kernel has ended.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from opd_lib.report import figures
from opd_lib.report.html_tables import TURNED
from opd_lib.run import columns, growing, processes
from opd_lib.run.background import DONE, GOING, Training

PACE = 2.0
"""Seconds between two pictures, at least."""
SHARE = 5
"""Pictures are drawn again after this many times the CPU seconds that they took: a fifth of a core at most."""
FIRST = ("accuracy", "overlap_k", "entropy_gap", "reward", "loss")
"""What is drawn unless something else is chosen: the first PANELS of these (or that begin so) that have values."""
PANELS = 3
BAND_FROM = 5
"""Seeds from which an arm has its 95 % band: of 2 it is 18 standard deviations wide, of 5 about as wide as they lie
apart (2.5). With fewer the seeds' lines and their mean say more."""
INCH = 100
"""CSS pixels of a picture's inch; in a page narrower than two pictures they stand below each other."""
ENDED = "The kernel of this panel has ended: run the cell again to see how the runs stand."
ENDED_TRAINING = (
    "The kernel of this panel has ended, and the training with it. "
    "What was recorded is kept: run the cell again to go on."
)
STYLE = f"""<style>
.opd-live-text pre {{ line-height: 1.3; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
.opd-live-text p {{ line-height: 1.3; margin: 0 0 .4em; font-weight: bold; }}
.opd-live-text:not(.jupyter-widgets-disconnected) .opd-live-ended {{ display: none; }}
.opd-live-control.jupyter-widgets-disconnected {{ display: none !important; }}
.opd-live-picture {{ margin: 0; }}
[data-jp-theme-light="false"] .opd-live-picture, .vscode-dark .opd-live-picture {{
  {TURNED} }}
.opd-live-picture.jupyter-widgets-disconnected::before, .opd-live-text.jupyter-widgets-disconnected::before,
.opd-live.jupyter-widgets-disconnected::before {{ content: none; }}
</style>"""
"""JupyterLab marks what has lost its kernel with the class `jupyter-widgets-disconnected`. On a dark page a picture has
dark and light in each other's place, and the hues that it has."""


class View:
    """The pictures, the text and the buttons of a training, in Jupyter."""

    def __init__(self, training: Training) -> None:
        import ipywidgets as widgets

        self.training = training
        self._drawn: tuple[Any, ...] = ()
        self._due = 0.0
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stop = widgets.Button(description="Stop", icon="stop", tooltip="End the processes; nothing is lost")
        self._resume = widgets.Button(description="Resume", icon="play", tooltip="Go on from the last checkpoints")
        self._add = widgets.Combobox(placeholder="choose a curve", continuous_update=False)
        self._chosen = widgets.TagsInput(allow_duplicates=False, layout={"display": "none"})
        self._text = widgets.HTML()
        self._image: Callable[[], Any] = lambda: widgets.Image(format="png", layout={"max_width": "100%"})
        self._images: dict[str, Any] = {}  # by column; they are kept, for a page keeps each it was given
        self._known: list[str] = []
        self._note = ""  # what was wrong with the last choice
        self._pictures = named(widgets.Box(layout={"flex_flow": "row wrap"}), "opd-live")
        parts = [self._stop, self._resume, self._add, self._chosen]
        controls = named(widgets.Box(parts, layout={"flex_flow": "row wrap"}), "opd-live-control")
        self.box = named(widgets.VBox([controls, named(self._text, "opd-live-text"), self._pictures]), "opd-live")
        self._stop.on_click(lambda _: self._press(lambda: training.stop(wait=False)))
        self._resume.on_click(lambda _: self._press(training.resume))
        self._add.observe(self._choose, "value")
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

    def choose(self, word: str) -> None:
        """Draw a column as well, named as it is offered or as it is called in the tables.

        Raises ValueError if there is none.
        """
        name = columns.name(columns.chosen(word, self._known))
        self._chosen.value = [*(each for each in self._chosen.value if each != name), name]

    def refresh(self) -> None:
        """Bring text and buttons up to date, and the pictures if rows have come; not more often than is due."""
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
        self._known = known
        self._add.options = [columns.name(column) for column in known]
        by_name = {columns.name(column): column for column in known}
        shown = [by_name[name] for name in self._chosen.value if name in by_name] or first(known)
        self._chosen.layout.display = None if self._chosen.value else "none"
        for column in shown:
            name, unit = columns.name(column), columns.unit(column)
            self._show(column, figures.panels(frame, [column], [name], [unit], band_from=BAND_FROM))
        self._pictures.children = [self._images[column] for column in shown]

    def _show(self, column: str, chart: figures.Chart) -> None:
        if column not in self._images:
            self._images[column] = named(self._image(), "opd-live-picture")
        self._images[column].layout.width = f"{chart.get_figwidth() * INCH:.0f}px"
        self._images[column].value = chart.png()

    def _choose(self, change: Mapping[str, Any]) -> None:
        if not change["new"]:
            return
        self._note = ""
        try:
            self.choose(change["new"])
        except ValueError as error:
            self._note = str(error)
        self._add.value = ""
        self.follow()

    def _press(self, action: Callable[[], None]) -> None:
        try:
            action()
            self.follow()
        except (ValueError, OSError) as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        ended = ENDED_TRAINING if self.training.state == GOING else ENDED
        said = "\n".join(line for line in (self._note, text, f"as of {datetime.now():%H:%M:%S}") if line)
        self._text.value = f"{STYLE}<p class='opd-live-ended'>{ended}</p><pre>{html.escape(said)}</pre>"

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._follow())

    async def _follow(self) -> None:
        while self.training.state == GOING:
            self.refresh()
            await asyncio.sleep(processes.POLL)
        self.refresh()


def named(widget: Any, name: str) -> Any:
    """A widget with a class for the style."""
    widget.add_class(name)
    return widget


def first(known: Sequence[str]) -> list[str]:
    """Which columns are drawn unless others are chosen.

    >>> first(["loss", "reward", "overlap_k16", "overlap_k64", "accuracy"])
    ['accuracy', 'overlap_k16', 'reward']
    """
    found = [next((name for name in known if name.startswith(wanted)), "") for wanted in FIRST]
    return [name for name in found if name][:PANELS] or list(known[:1])
