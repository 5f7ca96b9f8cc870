"""What `opd run` says while it trains: what it trains, at which step it is, its accuracy, how long the rest takes.

All of it is read from the files that the run writes, by a thread beside the training: nothing of it reaches a record.
"""

from __future__ import annotations

import math
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from opd_lib.params import RunSpec
from opd_lib.params.schema import SELF
from opd_lib.records import record
from opd_lib.run import growing, meter, plan
from opd_lib.run.progress import duration

POLL = 0.5
CLEAR = "\r\x1b[K"
"""What empties the line that the cursor is in."""


@contextmanager
def reporting(spec: RunSpec, stream: TextIO | None = None) -> Iterator[None]:
    """Inside the block, which trains the run, say on the stream (standard error) how far it is."""
    stream = stream or sys.stderr
    if stream is None:  # closed
        yield
        return
    print(title(spec), file=stream, flush=True)
    view, ended = View(spec, stream), threading.Event()
    thread = threading.Thread(target=_follow, args=(view, ended), name="console", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        view.close()


def _follow(view: View, ended: threading.Event) -> None:
    while not ended.is_set():
        ended.wait(POLL)
        with suppress(ValueError, OSError):  # who watches stops nobody
            view.look()


def title(spec: RunSpec) -> str:
    """What is trained: run, steps, student ← teacher."""
    params, n = spec.params, plan.steps(spec)
    if params.probe is not None:
        work = f"{n} batches of a probe ({params.probe.kind})"
    else:
        work = "an evaluation" if params.only_evaluates else f"{n} steps"
    teacher = "itself" if params.teacher == SELF else _models(spec, "teacher")
    return (
        f"{spec.name}: {work}, student {_models(spec, 'student') or 'new'}{f' ← teacher {teacher}' if teacher else ''}"
    )


def _models(spec: RunSpec, role: str) -> str:
    """The models of a role, the runs that made them by name; empty for a new one, and where there is none."""
    named = {key: reference for key, reference in spec.params.references.items() if key.split(".")[0] == role}
    return " + ".join(spec.parents[key].name if key in spec.parents else name for key, name in named.items())


class View:
    """How far one run is: in a terminal one line that changes in place, elsewhere one line per evaluation."""

    def __init__(self, spec: RunSpec, stream: TextIO) -> None:
        self._spec, self._stream = spec, stream
        self._in_place = stream.isatty()
        self._meter = meter.meter_of([spec], jobs=1)
        self._size, self._said = -1, ""
        self._accuracies: dict[int, float] = {}
        with suppress(ValueError, OSError):
            self._look_at_evaluations()  # what a resumed run has from before is not said again
        self._last = max(self._accuracies, default=-1)

    def look(self) -> None:
        """Read where the run is and say what is new."""
        (line,) = self._meter.lines({self._spec.name: meter.RUNNING})
        self._look_at_evaluations()
        newest = max(self._accuracies, default=-1)
        left = [f"{duration(line.remaining)} left"] if line.remaining else []
        self._last = min(self._last, newest)  # a resumed run goes back to its checkpoint
        if self._in_place:
            accuracy = [f"{said} at step {newest}" for said in self._accuracy(newest)]
            self._say(", ".join([f"step {line.step} of {line.steps}", *accuracy, *left]))
        for step in sorted(step for step in self._accuracies if step > self._last and not self._in_place):
            accuracy = self._accuracy(step)
            is_now = step == newest and step < line.steps  # nothing is left at the last one, though it is still written
            self._say(", ".join([f"step {step} of {line.steps}", *accuracy, *(left if is_now else [])]))
        self._last = newest

    def _accuracy(self, step: int) -> list[str]:
        """The accuracy at a step in words; nothing without an evaluation there, or if nothing is graded."""
        accuracy = self._accuracies.get(step, math.nan)
        return [] if math.isnan(accuracy) else [f"accuracy {accuracy:.3f}"]

    def close(self) -> None:
        """Say what came last, and leave the line."""
        with suppress(ValueError, OSError):
            self.look()
            if self._in_place:
                print(file=self._stream, flush=True)

    def _look_at_evaluations(self) -> None:
        size = growing.sizes([self._spec])[-1]  # evaluations where the run writes
        if size == self._size:
            return
        self._size, present = size, record.read(self._spec.folder)
        evals = growing.rows(present, growing.EVALS) if present is not None else None
        if evals is None or evals.empty:
            self._accuracies = {}
        else:
            self._accuracies = {int(s): float(a) for s, a in evals.groupby("step")["accuracy"].mean().items()}

    def _say(self, text: str) -> None:
        if not self._in_place:
            print(text, file=self._stream, flush=True)
        elif text != self._said:
            self._said = text
            fitting = text[: shutil.get_terminal_size().columns - 1]
            print(f"{CLEAR}{fitting}", end="", file=self._stream, flush=True)
