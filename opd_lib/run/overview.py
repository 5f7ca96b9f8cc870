"""How far all runs are, notebook by notebook, and what is left of them to be laid out on cores."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from opd_lib.params import RunSpec
from opd_lib.run import timeleft
from opd_lib.run.status import CORRUPT, DONE, FAILED, INTERRUPTED, MISSING, RUNNING, STALE

STATES = (DONE, RUNNING, INTERRUPTED, MISSING, FAILED, STALE, CORRUPT)
BAD = (FAILED, STALE, CORRUPT)
"""States that somebody must do something about: each row of `status` has a note of what."""
ALWAYS = (DONE, MISSING)
"""States that have a column even where no run is in them."""
HOUR = 3600.0


def by_notebook(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per notebook of `status`: how many runs are in which state, hours spent and to go, one by one."""
    states = [state for state in STATES if state in ALWAYS or (frame["state"] == state).any()]
    rows = []
    for name, part in frame.groupby(frame["run"].str.split("/").str[0], sort=False):
        counts = {state: int((part["state"] == state).sum()) for state in states}
        rows.append(
            {"notebook": name, "runs": len(part), **counts}
            | {"spent (h)": part["seconds"].sum() / HOUR}
            | {"to go (h)": part["remaining"].sum(skipna=False) / HOUR}
        )
    return pd.DataFrame(rows, columns=["notebook", "runs", *states, "spent (h)", "to go (h)"])


def left(specs: Sequence[RunSpec], frame: pd.DataFrame) -> list[timeleft.Piece]:
    """What `status` says is to go of these runs."""
    return [
        timeleft.Piece(
            name=spec.name, seconds=row.remaining, running=row.state == RUNNING,
            needs=tuple(parent.name for parent in spec.parents.values()), cores=spec.params.machine.processes,
        )
        for spec, row in zip(specs, frame.itertuples(), strict=True)
        if row.state != DONE
    ]  # fmt: skip
