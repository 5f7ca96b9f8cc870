"""One run: in this process, or in as many as it has, and in no two places at once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from opd_lib import paths
from opd_lib.params import RunSpec
from opd_lib.run import plan, processes, ranks, room, tries
from opd_lib.run.status import TURN, is_locked


def quietly(spec: RunSpec) -> AbstractContextManager[None]:
    """A block in which nothing is said of the run that it trains."""
    return nullcontext()


def train(spec: RunSpec, reporting: Callable[[RunSpec], AbstractContextManager[None]] = quietly) -> Path | None:
    """Train a run to its end unless that is done; the folder of its record, None if it did not come to its end.

    `reporting`: what it is trained in, a block that may say how far it is.

    What another process is training is waited for, and trained here only if that one did not come to the end. Raises
    ValueError naming a parent whose weights are not there, or a folder that cannot be written.
    """
    require_parents(spec)
    if not plan.trained(spec):
        with turn(spec):
            if not plan.trained(spec):
                tries.remember(spec)
                with reporting(spec):
                    _train(spec)
    plan.swept([spec])
    if weights := spec.weights:
        return weights.parent
    found = plan.finished(spec) if plan.trained(spec) else None
    return None if found is None else found.folder


def require_parents(spec: RunSpec) -> None:
    """Raise ValueError, with what to do, unless the weights of all that a run starts from are there."""
    before = plan.untrained(spec)
    if not before:
        return
    results = spec.origin.results
    options = f" --profile {spec.profile}" + ("" if results is None else f" --results {results}")
    each = ", ".join(f"`opd run {run.experiment} {run.arm} {run.seed}{options}`" for run in before)
    batch = f"`opd reproduce --only {spec.experiment} --seeds {spec.seed},{options}` (all that its notebook reads)"
    has_notebook = (paths.NOTEBOOKS / f"{spec.experiment}.ipynb").exists()
    raise ValueError(
        f"{spec.name}: needs {', '.join(run.name for run in before)}, whose weights are not in "
        f"{', '.join(dict.fromkeys(str(run.folder.parents[2]) for run in before))}; first do {each}"
        f"{f', or {batch}' if has_notebook else ''}"
    )


def join(spec: RunSpec, meeting: Path) -> None:
    """Be one of the processes of a run that `train` has started, which meet in a file."""
    from opd_lib.engine.model import distributed

    distributed.connect_here(spec.params.machine, meeting)
    _train_here(spec)


def _train(spec: RunSpec) -> None:
    number = spec.params.machine.processes
    if number > 1:
        words = [*processes.command(spec), "--guardian", str(os.getpid()), "--meeting"]
        if code := ranks.carry_out(words, number):
            raise SystemExit(code)
        return
    _train_here(spec)


def _train_here(spec: RunSpec) -> None:
    from transformers.utils import logging

    from opd_lib.engine import train as engine

    logging.disable_progress_bar()  # of reading and writing weights, which would be all that a log holds
    engine.train(spec)


@contextmanager
def turn(spec: RunSpec) -> Iterator[None]:
    """Inside the block no other process trains this run; entering waits for one that does.

    The kernel frees the lock when its owner dies. Raises ValueError if the folder cannot be written.
    """
    lock = FileLock(spec.folder / TURN)
    room.prepare(spec.folder)
    with room.writing(spec.folder):
        _acquire(lock, spec.name)
    try:
        while is_locked(spec.folder):  # by a process that was started without this
            time.sleep(processes.POLL)
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, name: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if sys.stderr.isatty():  # not into the log, which is that of the other one
            print(f"{name}: another process trains it; waiting for that", file=sys.stderr)
        lock.acquire(poll_interval=processes.POLL)
