"""Processes that do not outlive the one that started them, however that one ends.

`python lifetime.py PID SIGNAL COMMAND ...` becomes a command that knows nothing of this; SIGNAL is a number.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

POLL = 0.5
"""Seconds between two looks at the parent, where the kernel does not tell."""
PR_SET_PDEATHSIG = 1


def bind(parent: int | None = None, number: int = signal.SIGKILL) -> None:
    """From now on this process gets a signal when its parent is gone; at once if that is not, or no longer, `parent`.

    Linux sends it at the very moment, and also when the thread that has started this process ends: start it from one
    that waits for it. Elsewhere a thread of this process looks now and then.
    """
    found = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
    else:
        threading.Thread(target=_watch, args=(found, number), name="lifetime", daemon=True).start()
    if os.getppid() != found:
        os.kill(os.getpid(), number)


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), number)


def bound(command: list[str], number: int = signal.SIGKILL) -> list[str]:
    """The words that start a command which gets a signal when this process is gone (Linux alone: elsewhere itself)."""
    return [sys.executable, "-P", "-S", __file__, str(os.getpid()), str(int(number)), *command]


if __name__ == "__main__":
    if sys.platform == "linux":  # a thread would not survive what comes
        bind(int(sys.argv[1]), int(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])
