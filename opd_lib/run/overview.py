"""How far all runs are, notebook by notebook, and what is left of runs and notebooks to be laid out on cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from opd_lib.params import RunSpec
from opd_lib.report import tables
from opd_lib.run import progress, timeleft
from opd_lib.run.status import CORRUPT, DONE, FAILED, INTERRUPTED, MISSING, RUNNING, STALE

STATES = (DONE, RUNNING, INTERRUPTED, MISSING, FAILED, STALE, CORRUPT)
BAD = (FAILED, STALE, CORRUPT)
"""States that somebody must do something about: each row of `status` has a note of what."""
ALWAYS = (DONE, MISSING)
"""States that have a column even where no run is in them."""


def by_notebook(frame: pd.DataFrame, executed: Mapping[str, bool]) -> pd.DataFrame:
    """One row per notebook of `status`: how many runs are in which state, time spent and to go, one by one.

    `executed`: notebook → whether it is, with all that it reads; one whose runs alone are needed is not in it.
    """
    states = [state for state in STATES if state in ALWAYS or (frame["state"] == state).any()]
    rows = []
    for name, part in frame.groupby(frame["run"].str.split("/").str[0], sort=False):
        counts = {state: int((part["state"] == state).sum()) for state in states}
        to_go = float(part["remaining"].sum(skipna=False))
        rows.append(
            {"notebook": name, "runs": len(part), **counts}
            | {"spent": progress.duration(part["seconds"].sum())}
            | {"to go": tables.MISSING if to_go != to_go else progress.duration(to_go)}
            | {"executed": {True: "yes", False: "no", None: "not asked"}[executed.get(str(name))]}
        )
    return pd.DataFrame(rows, columns=["notebook", "runs", *states, "spent", "to go", "executed"])


def left(specs: Sequence[RunSpec], frame: pd.DataFrame, notebooks: Mapping[str, Sequence[str]]) -> list[timeleft.Piece]:
    """What `status` says is to go of these runs, and behind them notebooks, each with the runs that it reads."""
    runs = [
        timeleft.Piece(
            name=spec.name, running=row.state == RUNNING,
            seconds=row.remaining + (0.0 if row.state == RUNNING else timeleft.RUN_START),
            needs=tuple(parent.name for parent in spec.parents.values()), cores=spec.params.machine.processes,
        )
        for spec, row in zip(specs, frame.itertuples(), strict=True)
        if row.state != DONE
    ]  # fmt: skip
    return runs + [
        timeleft.Piece(name=f"{name}.ipynb", seconds=timeleft.NOTEBOOK, needs=reads)
        for name, reads in notebooks.items()
    ]
