"""The numbers of runs while they train: whole rows of their tables, one row per run and step.

A table grows by rows, and a reader may see the last one half-written: only what ends in a line break counts.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from opd_lib.params import RunSpec
from opd_lib.records import reading
from opd_lib.records.record import RunRecord
from opd_lib.run import plan

STEPS, EVALS = "steps", "evals"
KEYS = ("arm", "seed", "step")
TEST_SET = "test_set"
COLUMNS = {EVALS: (TEST_SET, "accuracy")}
"""table → columns without which it is none, beside the step"""


def place(spec: RunSpec) -> RunRecord | None:
    """The record of a run, finished or not; None if there is none. Raises ValueError if it is corrupt."""
    return next((present for present in plan.standing(spec) if present.identity == spec.identity), None)


def rows(present: RunRecord, table: str) -> pd.DataFrame:
    """The whole rows of a table so far, every number exactly as written; empty if there are none.

    Raises ValueError for a table of a finished run that is not what the run left, and for what is no table.
    """
    if present.status == plan.FINISHED:
        return present.frame(table)
    path, remedy = present.folder / f"{table}.csv", f"delete {present.folder} and run again"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")  # half a character may stand at its end
    except FileNotFoundError:
        return pd.DataFrame()
    except OSError as error:
        reading.refuse(path, f"cannot be read ({error.strerror})", remedy, error)
    whole = text[: text.rfind("\n") + 1]
    try:
        found = pd.read_csv(io.StringIO(whole)) if whole else pd.DataFrame()
    except ValueError as error:
        reading.refuse(path, f"no table ({str(error).strip()})", remedy, error)
    if found.empty:
        return found
    if not {"step", *COLUMNS.get(table, ())} <= set(found):
        reading.refuse(path, "no table of a run: columns are missing", remedy)
    return reading.numbers(path, found, [name for name in found if name != TEST_SET], remedy)


def curves(specs: Iterable[RunSpec]) -> pd.DataFrame:
    """Columns arm, seed, step, those of steps.csv, and accuracy (the mean over test sets, nan between evaluations).

    Arms are named as they were asked for; runs without rows are left out.
    """
    frames = []
    for spec in specs:
        present = place(spec)
        found = _curve(present) if present is not None else pd.DataFrame()
        if not found.empty:
            found.insert(0, "seed", spec.seed)
            found.insert(0, "arm", spec.shown_as[1])
            frames.append(found)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*KEYS])


def sizes(specs: Iterable[RunSpec]) -> tuple[int, ...]:
    """How many bytes the tables of each run have: equal when nothing was written in between."""
    paths = [folder / f"{table}.csv" for spec in specs for folder in spec.folders for table in (STEPS, EVALS)]
    return tuple(_size(path) for path in paths)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a resumed run may remove a table at any moment, and write it again
        return 0


def _curve(present: RunRecord) -> pd.DataFrame:
    steps, evals = rows(present, STEPS), rows(present, EVALS)
    if evals.empty:
        return steps
    accuracy = evals.groupby("step", as_index=False)["accuracy"].mean()
    return accuracy if steps.empty else steps.merge(accuracy, on="step", how="outer")
