"""What runs spent, in tokens: equally many steps are not equal budgets.

"student writes" are the tokens of the responses that it trains on, and of those that `eff_opd` only tries; "teacher
writes" those of the responses that `brts` has the teacher write, chosen or not; "trained on" are all whose value is in
the loss; "cut off" is the share of the student's responses that reached the limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from opd_lib.records.record import RunRecord

STUDENT, TEACHER, TRAINED, CUT = "student writes", "teacher writes", "trained on", "cut off"
TRIED = "tried_tokens"  # column: so many since the first step
PART = "teacher."  # how columns of the teacher's responses begin


def table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row per arm: its steps, thousands of tokens of a run, the share of responses cut off; means over seeds."""
    spent = pd.DataFrame([_of(record) for record in records])
    rows = []
    for arm, found in spent.groupby("arm", sort=False):
        thousands = {name: float(found[name].mean()) / 1000 for name in (STUDENT, TEACHER, TRAINED)}
        rows.append(
            {"arm": arm, "steps": int(found["steps"].max()), **thousands, CUT: found[CUT].mean(), "n_seeds": len(found)}
        )
    return pd.DataFrame(rows)


def _of(record: RunRecord) -> dict[str, Any]:
    """Steps and tokens of one run."""
    steps, source, method = record.frame("steps"), record.params["source"], record.params["method"]
    prompts, candidates = source["prompts_per_step"], method.get("candidates", 0) + bool(method.get("hint"))
    sums = steps.sum(numeric_only=True)
    return {
        "arm": record.arm,
        "steps": len(steps),
        STUDENT: prompts * source["per_prompt"] * sums["response_length"] + steps.get(TRIED, pd.Series([0])).iloc[-1],
        TEACHER: prompts * candidates * sums.get(f"{PART}response_length", 0.0),
        CUT: float(steps["truncated_share"].mean()),
        TRAINED: sums["n_tokens"] + sums.get(f"{PART}n_tokens", 0.0),
    }
