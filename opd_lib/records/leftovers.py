"""What only an unfinished run needs, and what a killed process leaves behind: swept when the run is finished."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

CHECKPOINT, SHARES = ".checkpoint.pt", ".checkpoint"
"""Where a run's state is saved: whole weights in a file, shares in a folder."""
PROGRESS = ".progress.json"
"""How far a run is: step, steps, seconds; gone when it is finished."""
LOCK = ".lock"
HALF_WRITTEN = re.compile(r"\..+\.\d+")
"""What durable.write_atomically calls a file until it is whole."""


def sweep(folder: Path) -> None:
    """Remove what a finished run needs no more, unless a process is writing in its folder. Cheap if nothing is left."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return
    if not any(name in (CHECKPOINT, SHARES, PROGRESS) or _is_half_written(name) for name in names):
        return
    try:
        with FileLock(folder / LOCK, timeout=0):
            finish(folder)
    except (Timeout, OSError):
        return


def finish(folder: Path) -> None:
    """Remove what only an unfinished run needs. The folder must be this process's own."""
    for path in (folder / CHECKPOINT, folder / f"{CHECKPOINT}.new", folder / PROGRESS):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / SHARES, ignore_errors=True)
    half_written(folder)


def half_written(folder: Path) -> None:
    """Remove the files that a killed process has not given their names. The folder must be this process's own."""
    for path in folder.iterdir():
        if _is_half_written(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _is_half_written(name: str) -> bool:
    return HALF_WRITTEN.fullmatch(name) is not None
