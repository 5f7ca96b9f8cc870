"""Runs in a tracker: the rows of their records, read as they grow, are given to one of accelerate's trackers.

The records are the truth and a tracker is a view of them. It is fed from outside the training processes, so that every
profile and sampler is tracked alike, no run can fail because of it, and finished runs can be shown later. Everything
lands in one local folder; no account, no network.

A project is a notebook at a profile, a run of it `ARM-seedS-IDENTITY`. A row is given once: what a resumed run writes
again after its checkpoint is what was there before. A follower that is killed within a second of giving rows, before
the tracker has written them, leaves them out; without the tracker's folder all is given again.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opd_lib import paths
from opd_lib.run import options, room
from opd_lib.run.options import Notebooks, Only, Overrides, Params, Profile, Seeds

if TYPE_CHECKING:
    from opd_lib.params import Experiment

VIEWERS = {
    "trackio": "TRACKIO_DIR={folder} trackio show",
    "tensorboard": "tensorboard --logdir {folder}",
    "wandb": "wandb sync {folder}/wandb/offline-run-*",
}
"""The trackers, and what shows what they were given (wandb: what sends it to an account)."""
PACE = 2.0
"""Seconds between two looks at the records."""
PATIENCE = 60.0
"""Seconds in which a follower gives its last rows."""
STOP_PATIENCE = 10.0
"""Seconds for its last rows where the training was stopped: what it did not give it gives when training goes on."""

Tracker = Annotated[str, typer.Option(help=f"Which one: {', '.join(VIEWERS)}.")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on with what is being trained until interrupted.")]
Child = Annotated[bool, typer.Option("--child", help="Follow until standard input is closed.", hidden=True)]
Here = Annotated[bool, typer.Option("--here", help="The surroundings are set.", hidden=True)]


def track(
    tracker: Tracker = "trackio",
    profile: Profile = "tiny",
    only: Only = None,
    seeds: Seeds = None,
    follow: Follow = False,
    results: options.Records = None,
    overrides: Overrides = "{}",
    here: Here = False,
    child: Child = False,
    params: Params = paths.PARAMS,
    notebooks: Notebooks = paths.NOTEBOOKS,
) -> None:
    """Show the records in a local tracker: no account, no network. The records stay the truth, this is a view."""
    from opd_lib.params import load
    from opd_lib.run import plan

    folder = place(tracker, results)
    room.prepare(folder)
    if not here:
        _start_again(folder)
    known = options.listed(only) or plan.notebooks(profile, params, notebooks)
    changes, chosen_seeds = options.mapping(overrides), options.seed_list(seeds)
    chosen = [load(name, profile, changes, chosen_seeds, results, params) for name in known]
    from opd_lib.run.follower import Follower

    wait = _until_closed if child else _until_interrupted if follow else lambda: False
    count = Follower(tracker, folder).run(plan.all_runs(chosen), wait)
    typer.echo(
        f"{count} new rows in {folder}; to look at them: {VIEWERS[tracker].format(folder=shlex.quote(str(folder)))}"
    )


def place(tracker: str, results: Path | None) -> Path:
    """The folder of a tracker, beside what this machine computes. Raises ValueError if it is unknown or not there."""
    if tracker not in VIEWERS:
        raise ValueError(f"tracker: {tracker}: no such tracker; choose from {', '.join(VIEWERS)}")
    if find_spec(tracker) is None:
        raise ValueError(f"tracker: {tracker} is not installed; `make setup` brings trackio, pip the others")
    return (results or paths.LOCAL).resolve() / tracker


@contextmanager
def following(
    experiment: Experiment, tracker: str | None, stopped: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Inside, a process gives the experiment's rows to a tracker (None: nothing).

    At the end it has given all, unless `stopped()`: then what it manages in a few seconds, and the rest another time.
    """
    if tracker is None:
        yield
        return
    from opd_lib.run import processes

    folder = place(tracker, experiment.results)
    room.prepare(folder)
    words = [*processes.OPD, "track", "--here", "--child", "--tracker", tracker, "--only", experiment.name]
    words += ["--profile", experiment.profile, "--seeds", "".join(f"{seed}," for seed in experiment.seeds)]
    words += ["--overrides", json.dumps(experiment.overrides)]
    words += [] if experiment.results is None else ["--results", str(experiment.results.resolve())]
    words += processes.params_option(experiment.source.parents[1])
    with (folder / processes.LOG).open("ab") as log:
        child = subprocess.Popen(
            words, cwd=paths.ROOT, env=surroundings(folder), stdin=subprocess.PIPE, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        _finish(child, folder / processes.LOG, STOP_PATIENCE if stopped() else PATIENCE)


def _finish(child: subprocess.Popen[bytes], log: Path, patience: float) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.returncode != 0:
        print(f"tracker: not every row was given; see {log}", file=sys.stderr)


def _until_closed() -> bool:
    """False as soon as nobody holds the other end of standard input; it dies with the process that began this one."""
    return not select.select([sys.stdin], [], [], PACE)[0]


def _until_interrupted() -> bool:
    time.sleep(PACE)
    return True


def surroundings(folder: Path) -> dict[str, str]:
    """The environment in which trackers write to this folder and to nowhere else."""
    from opd_lib.run import processes

    mine = {
        name: value for name, value in processes.single_thread().items() if not name.startswith(("TRACKIO_", "WANDB_"))
    }
    caches = {name: str(folder / ".cache") for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")}
    return mine | caches | {"TRACKIO_DIR": str(folder), "WANDB_DIR": str(folder), "HF_HUB_OFFLINE": "1"}


def _start_again(folder: Path) -> None:
    """This very command in those surroundings: trackers read them when they are imported."""
    from opd_lib.run import processes

    sys.stdout.flush()
    os.execve(sys.executable, [*processes.OPD, *sys.argv[1:], "--here"], surroundings(folder))
