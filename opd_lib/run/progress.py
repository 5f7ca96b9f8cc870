"""Where progress is shown: in a terminal and in Jupyter lines that change in place, in a log one per finished run."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from opd_lib.report import refusal
from opd_lib.run.meter import DONE, FAILED, RUNNING, SKIPPED, WAITING, Line, Whole

BAR = 20
MANY = 12
"""With more lines than this, those that wait or are done are only counted."""

NAMED = 12
"""Of more tasks than this, those beyond are only counted before they begin."""


class Display(Protocol):
    """Where progress is shown."""

    def update(self, lines: Sequence[Line], whole: Whole) -> None:
        """Show the present state."""

    def close(self) -> None:
        """Nothing more will be shown."""


def display() -> Display:
    """The display that fits where this process runs: Jupyter, terminal, or log file (standard error).

    Where a program executes the notebook and nobody sees its cells, it is the terminal in which that was started.
    """
    if in_jupyter():
        stream = None if refusal.is_watched() else terminal_of_kernel()
        return JupyterDisplay() if stream is None else LogDisplay(stream, first="\n")  # papermill's bar ends no line
    return TerminalDisplay() if sys.stderr.isatty() else LogDisplay(sys.stderr)


def terminal_of_kernel() -> TextIO | None:
    """Where the kernel itself writes its log, which is no output of a cell; None if it has none."""
    kernel = sys.modules["IPython"].get_ipython().kernel
    streams = [handler.stream for handler in kernel.log.handlers if isinstance(handler, logging.StreamHandler)]
    return streams[0] if streams else None


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

    def update(self, lines: Sequence[Line], whole: Whole) -> None:
        """Show the present state."""
        from rich.text import Text

        self._live.update(Text(picture(lines, whole)), refresh=True)

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

    def update(self, lines: Sequence[Line], whole: Whole) -> None:
        """Show the present state."""
        content = {"text/plain": picture(lines, whole)}
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def close(self) -> None:
        """Take the output away."""
        if self._handle is not None:
            self._clear()


class LogDisplay:
    """A line that says what is to be done, and one for each task that has ended.

    That has how long it took, how many of all are done, and how long the rest takes.
    """

    def __init__(self, stream: TextIO, first: str = "") -> None:
        self._stream, self._begin, self._first = stream, time.monotonic(), first
        self._ended: set[str] = set()
        self._announced = False

    def update(self, lines: Sequence[Line], whole: Whole) -> None:
        """Write what has ended since the last time; at first what is to be done."""
        if not self._announced:
            self._announced = True
            print(f"{self._first}{to_do(lines, whole)}", file=self._stream, flush=True)
        for line in lines:
            if line.state in (DONE, FAILED, SKIPPED) and line.name not in self._ended:
                self._ended.add(line.name)
                self._write(line, whole)

    def close(self) -> None:
        """Nothing is held back."""
        self._stream.flush()

    def _write(self, line: Line, whole: Whole) -> None:
        clock = duration(time.monotonic() - self._begin)
        took = f" in {duration(line.took)}" if line.state == DONE else ""
        said = [f"{line.name}: {line.state}{took}", whole.counts, *left(whole)]
        print(f"[{clock:>7}] {', '.join(said)}", file=self._stream, flush=True)


def to_do(lines: Sequence[Line], whole: Whole) -> str:
    """Which tasks are to be done, those of a notebook by name, and how long they take if that is known."""
    names = [line.name for line in lines]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    takes = f"about {duration(whole.remaining)}" if whole.remaining else "how long is told once one of them is done"
    return f"to do: {', '.join([*names[:NAMED], *more])}; {takes}"


def left(whole: Whole) -> list[str]:
    """How long the rest takes, in words, if there is one and that is known."""
    return [f"{duration(whole.remaining)} left"] if whole.remaining else []


def picture(lines: Sequence[Line], whole: Whole) -> str:
    """All lines as text, longest name first to set the width, and a line for the whole."""
    quiet = (WAITING, DONE, SKIPPED) if len(lines) > MANY else ()
    shown = [line for line in lines if line.state not in quiet]
    width = max((len(line.name) for line in shown), default=0)
    counts = {state: sum(line.state == state for line in lines) for state in (RUNNING, WAITING, FAILED, SKIPPED)}
    total = [f"{count} {state}" for state, count in counts.items() if count]
    return "\n".join([*(_text(line, width) for line in shown), " · ".join([whole.counts, *total, *left(whole)])])


def _text(line: Line, width: int) -> str:
    full = BAR * line.step // line.steps
    bar = "█" * full + "░" * (BAR - full)
    rest = f"{duration(line.remaining)} left" if line.state == RUNNING and line.remaining is not None else line.state
    return f"{line.name:<{width}}  {bar}  {f'{line.step}/{line.steps}':>9}  {rest}"


def duration(seconds: float) -> str:
    """Seconds as text.

    >>> duration(75.2), duration(8.0), duration(4000)
    ('1m 15s', '8s', '1h 06m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m {whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def many(number: int, thing: str) -> str:
    """A number of things, in words.

    >>> many(1, "notebook"), many(0, "run")
    ('1 notebook', '0 runs')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
