"""No orphans: a process that ends when the one it works for is gone, and the end of whole process families.

Works on Linux and macOS by watching process ids, because only Linux can signal the death of a parent; there it does so
as well (`lifetime`). A run's record is only ever replaced as a whole, so its process may end at any moment.

`python -m opd_lib.run.guard PID COMMAND ...` runs a command that knows nothing of this, and ends it with process PID.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

from opd_lib import lifetime

POLL = 0.5
"""Seconds between two looks at the guardian."""
PATIENCE = 10.0
"""Seconds a process gets to end by itself before it is killed."""
GUARDIAN_GONE = 143


def follow(guardian: int, first: int = signal.SIGKILL) -> None:
    """From now on end this process and its descendants when process `guardian` is gone; at once if it already is.

    The descendants get the signal `first`, and SIGKILL if they are still there after PATIENCE seconds.
    """
    try:
        watched = psutil.Process(guardian)
    except psutil.NoSuchProcess:
        _give_up(first)
    if first == signal.SIGKILL and guardian == os.getppid():
        lifetime.bind(guardian)
    threading.Thread(target=_watch, args=(watched, first), name="guard", daemon=True).start()


def _watch(watched: psutil.Process, first: int) -> None:
    while alive(watched):
        time.sleep(POLL)
    _give_up(first)


def _give_up(first: int) -> NoReturn:
    end(descendants(), first=first)
    os._exit(GUARDIAN_GONE)


def alive(process: psutil.Process) -> bool:
    """True while this very process runs: not a later one of the same id, nor a dead one not yet waited for."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def descendants(process: int | None = None) -> list[psutil.Process]:
    """Children, their children and so on of a process (default: of this one)."""
    try:
        return list(psutil.Process(process).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def group(leader: int) -> list[psutil.Process]:
    """Those of the process group that began with process `leader`, which may be gone."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == leader:
                found.append(process)
    return found


def end(processes: Iterable[psutil.Process], first: int = signal.SIGTERM, patience: float = PATIENCE) -> None:
    """Ask processes to end by the signal `first`, wait up to `patience` seconds, kill what is left."""
    ended = list(processes)
    for process in ended:
        _signal(process, first)
    _, left = psutil.wait_procs(ended, timeout=patience)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=patience)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Inside the block SIGTERM raises KeyboardInterrupt, so that one clean-up serves both (main thread only).

    An interrupt that is ignored here, as in the background of a script, stays so, but is not ignored by children.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signal.SIGTERM: _interrupt}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        handlers[signal.SIGINT] = _ignore  # a function: SIG_IGN would be inherited
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def supervise(guardian: int, command: list[str]) -> int:
    """Run a command to its end and return its exit code; end it when the guardian is gone, or this process.

    Signals to the process group reach the command itself, which decides what they mean.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)  # a function: SIG_IGN would be inherited by the command
    follow(guardian, first=signal.SIGINT)
    return subprocess.run(lifetime.bound(command, signal.SIGINT), check=False).returncode


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), sys.argv[2:]))
