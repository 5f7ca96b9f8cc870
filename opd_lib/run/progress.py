"""One line per run (name, bar, steps, time to go) and the time to go for all: in a terminal, in Jupyter, in a log file.

What is shown is read from the files the runs write, so the watcher need not be the one that started them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Protocol, TextIO

from opd_lib.params import RunSpec
from opd_lib.run import plan
from opd_lib.run.status import Snapshot, pace, snapshot

WAITING, RUNNING, DONE, FAILED, SKIPPED = "waiting", "running", "done", "failed", "skipped"
BAR = 20
MANY = 12
"""With more lines than this, those that wait or are done are only counted."""
LOG_SHARE = 10
"""A log file gets a line at each such per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something to watch: a run (with its folder and steps) or anything else (one step, no folder)."""

    name: str
    steps: int = 1
    folder: Path | None = None
    expected: float | None = None  # seconds, if known


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is shown of a task; `remaining` seconds, None if unknown."""

    name: str
    state: str
    step: int
    steps: int
    remaining: float | None


@dataclass(slots=True, kw_only=True)
class Meter:
    """Turns states and progress files into lines; `jobs` tasks run at a time."""

    tasks: Sequence[Task]
    jobs: int
    _first: dict[str, tuple[int, float]] = field(default_factory=dict)  # step and time when first seen
    _pace: dict[str, float] = field(default_factory=dict)  # seconds per step

    def lines(self, states: Mapping[str, str]) -> list[Line]:
        """One line per task, in the order of the tasks."""
        steps = {task.name: self._step(task, states[task.name]) for task in self.tasks}
        return [self._line(task, states[task.name], steps[task.name]) for task in self.tasks]

    def remaining(self, lines: Sequence[Line]) -> float | None:
        """Seconds until all is done: the work that is left over `jobs`, at least the longest task; None if unknown."""
        left = [line.remaining for line in lines if line.state in (WAITING, RUNNING)]
        if any(seconds is None for seconds in left):
            return None
        known = [seconds for seconds in left if seconds is not None]
        return max(max(known), sum(known) / self.jobs) if known else 0.0

    def _step(self, task: Task, state: str) -> int:
        if state == DONE:
            return task.steps
        seen = _seen(task.folder) if task.folder is not None and state == RUNNING else None
        if seen is None:
            return 0
        now = time.monotonic()
        first = self._first.get(task.name)
        if first is None or seen.step < first[0]:  # also when a resumed run goes back to its checkpoint
            self._first[task.name] = first = (seen.step, now)
        if seen.step > first[0]:
            self._pace[task.name] = (now - first[1]) / (seen.step - first[0])
        return seen.step

    def _line(self, task: Task, state: str, step: int) -> Line:
        pace = self._pace.get(task.name) if task.folder is not None else None
        if pace is None and task.expected is not None:
            pace = task.expected / task.steps
        if pace is None and task.folder is not None and self._pace:
            pace = mean(self._pace.values())
        if pace is None and task.folder is None:
            pace = 10.0  # a notebook: mostly the start of its kernel
        remaining = 0.0 if state in (DONE, FAILED, SKIPPED) else None if pace is None else pace * (task.steps - step)
        return Line(name=task.name, state=state, step=step, steps=task.steps, remaining=remaining)


def _seen(folder: Path) -> Snapshot | None:
    """How far a run says it is; nothing where that cannot be read: who watches stops nobody."""
    try:
        return snapshot(folder)
    except ValueError:
        return None


def meter_of(specs: Sequence[RunSpec], jobs: int) -> Meter:
    """What tells how far these runs are and how long the rest takes."""
    expected = pace(specs)
    tasks = [Task(name=s.name, steps=plan.steps(s), folder=s.folder, expected=expected.get(s.name)) for s in specs]
    return Meter(tasks=tasks, jobs=jobs)


class Display(Protocol):
    """Where progress is shown."""

    def update(self, lines: Sequence[Line], remaining: float | None) -> None:
        """Show the present state."""

    def close(self) -> None:
        """Nothing more will be shown."""


def display() -> Display:
    """The display that fits where this process runs: Jupyter, terminal, or log file (standard error)."""
    if in_jupyter():
        return JupyterDisplay()
    return TerminalDisplay() if sys.stderr.isatty() else LogDisplay(sys.stderr)


def in_jupyter() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class TerminalDisplay:
    """Lines that change in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._live.start()

    def update(self, lines: Sequence[Line], remaining: float | None) -> None:
        """Show the present state."""
        from rich.text import Text

        self._live.update(Text(picture(lines, remaining)), refresh=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._live.stop()


class JupyterDisplay:
    """One output that changes in place and is gone at the end, so that stored notebooks do not hold it."""

    def __init__(self) -> None:
        from IPython.display import clear_output, display

        self._display: Any = display
        self._clear: Any = clear_output
        self._handle: Any = None

    def update(self, lines: Sequence[Line], remaining: float | None) -> None:
        """Show the present state."""
        content = {"text/plain": picture(lines, remaining)}
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def close(self) -> None:
        """Take the output away."""
        if self._handle is not None:
            self._clear()


class LogDisplay:
    """A line when a task starts, at each tenth of its steps, and when it ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begin = stream, time.monotonic()
        self._shown: dict[str, tuple[str, int]] = {}

    def update(self, lines: Sequence[Line], remaining: float | None) -> None:
        """Write what is new since the last time."""
        for line in lines:
            share = 100 * line.step // line.steps // LOG_SHARE * LOG_SHARE
            before = self._shown.get(line.name, (WAITING, 0))
            if (line.state, share) != before and not (line.state == RUNNING == before[0] and share <= before[1]):
                self._write(line, remaining)
            self._shown[line.name] = (line.state, share)

    def close(self) -> None:
        """Nothing is held back."""
        self._stream.flush()

    def _write(self, line: Line, remaining: float | None) -> None:
        clock = duration(time.monotonic() - self._begin)
        left = f", all: {duration(remaining)} left" if remaining else ""
        step = f" step {line.step}/{line.steps}" if line.steps > 1 and line.state == RUNNING else ""
        print(f"[{clock:>7}] {line.name}: {line.state}{step}{left}", file=self._stream, flush=True)


def picture(lines: Sequence[Line], remaining: float | None) -> str:
    """All lines as text, longest name first to set the width, and a line for the whole."""
    quiet = (WAITING, DONE, SKIPPED) if len(lines) > MANY else ()
    shown = [line for line in lines if line.state not in quiet]
    width = max((len(line.name) for line in shown), default=0)
    counts = {state: sum(line.state == state for line in lines) for state in (DONE, RUNNING, WAITING, FAILED, SKIPPED)}
    total = " · ".join(f"{count} {state}" for state, count in counts.items() if count)
    left = "" if not remaining else f" · {duration(remaining)} left"
    return "\n".join([*(_text(line, width) for line in shown), f"{len(lines)} in all: {total}{left}"])


def _text(line: Line, width: int) -> str:
    full = BAR * line.step // line.steps
    bar = "█" * full + "░" * (BAR - full)
    left = f"{duration(line.remaining)} left" if line.state == RUNNING and line.remaining is not None else line.state
    return f"{line.name:<{width}}  {bar}  {f'{line.step}/{line.steps}':>9}  {left}"


def duration(seconds: float) -> str:
    """Seconds as text.

    >>> duration(75.2), duration(8.0), duration(4000)
    ('1m 15s', '8s', '1h 06m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m {whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h {whole % 3600 // 60:02d}m"
