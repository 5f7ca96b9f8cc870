"""Is there what the paper presupposes? The preconditions of a claims file, judged on the records of the judged seeds.

    present         the mean over seeds, every seed, and the deviation over seeds are where the file wants them
    absent          one of them is not, or is undefined; `fails` says which
    open            fewer seeds were run than it was planned for; `fails` says where these lie outside
    not run         no seed has all the runs that the quantity names
    not part of profile NAME: REASON
                    the claims file says that this profile makes no runs of it

A precondition is no claim: it has no interval, takes nothing from the level of the claims, and is not counted among
those that hold. A claim that rests on an absent one keeps its interval and its verdict, and is marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from opd_lib.judge.quantities import Evidence
from opd_lib.judge.register import Register
from opd_lib.judge.statement import Claim, Precondition

PRESENT = "present"
ABSENT = "absent"
OPEN = "open"
NOT_RUN = "not run"
NOT_PART = "not part of profile"
COLUMNS = ("id", "statement", "paper", "wanted", "mean", "lowest", "highest", "sd", "n_seeds", "state", "fails")


def judge(register: Register, evidence: Evidence, notebook: str | None = None) -> pd.DataFrame:
    """One row per precondition, or per one that this notebook's claims rest on.

    mean, lowest, highest and sd (n − 1) are over seeds, in the quantity's unit; `wanted` is the claims file's bounds as
    text; `fails` names what is not within them: mean; sd; seeds 0, 3. A precondition may be read from runs of another
    notebook than its claims: give the evidence of all (`evidence.around`).
    """
    try:
        rows = [_row(each, evidence) for each in register.preconditions_of(notebook)]
    except ValueError as error:
        raise ValueError(f"{register.source}: {error}") from error
    return pd.DataFrame(rows, columns=list(COLUMNS))


def mark(claim: Claim, states: Mapping[str, str]) -> str:
    """`precondition absent: P3, P6` if a claim rests on such, likewise for those that were not run, else nothing.

    `states`: precondition → its state.
    """
    found = {state: [name for name in claim.rests_on if states[name] == state] for state in (ABSENT, NOT_RUN)}
    return "; ".join(f"precondition {state}: {', '.join(ids)}" for state, ids in found.items() if ids)


def summary(judged: pd.DataFrame) -> str:
    """How many preconditions are present and which are not, in a sentence."""
    named = {state: list(judged["id"][judged["state"] == state]) for state in (PRESENT, ABSENT, NOT_RUN, OPEN)}
    ids = {state: f" ({', '.join(found)})" if found else "" for state, found in named.items()}
    left_out = int(judged["state"].str.startswith(NOT_PART).sum())
    waiting = f" {len(named[OPEN])} are open until all seeds are run." if named[OPEN] else ""
    also = f" {left_out} are no part of this profile." if left_out else ""
    return (
        f"Of {len(judged)} preconditions {len(named[PRESENT])} are present, {len(named[ABSENT])} are "
        f"absent{ids[ABSENT]} and {len(named[NOT_RUN])} were not run{ids[NOT_RUN]}.{waiting}{also}"
    )


def warning(judged: pd.DataFrame) -> str:
    """What a notebook says on top: the preconditions of its claims that are not there, or that all are.

    An absent one has a line of its own; those that were not run, and those that wait for seeds, are named together.
    Those that are no part of the profile are not spoken of.
    """
    asked = judged[~judged["state"].str.startswith(NOT_PART)]
    if asked.empty:
        return ""
    if (asked["state"] == PRESENT).all():
        return f"Preconditions of these claims: all {len(asked)} present."
    lines = [
        f"Precondition absent: {row.id}. {row.statement} ({row.fails})"
        for row in asked[asked["state"] == ABSENT].itertuples()
    ]
    for state, why in ((NOT_RUN, "not run"), (OPEN, "open, for fewer seeds were run than planned")):
        if ids := list(asked["id"][asked["state"] == state]):
            lines.append(f"Preconditions {why}: {', '.join(ids)}.")
    if marked := {ABSENT, NOT_RUN} & set(asked["state"]):
        which = " or ".join(sorted(marked))
        lines.append(
            f"Claims that rest on what is {which} are marked; their intervals and verdicts are shown all the same."
        )
    return "\n".join(lines)


def _row(precondition: Precondition, evidence: Evidence) -> dict[str, object]:
    found = precondition.per_seed(evidence)
    values = list(found.values())
    mean = float(np.mean(values)) if values else math.nan
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    fails = [] if _is_within(mean, precondition.wanted(evidence.profile)) else ["mean"]
    if precondition.sd is not None and not sd < precondition.sd:
        fails.append("sd")
    if precondition.each_seed is not None:
        outside = [str(seed) for seed, value in found.items() if not _is_within(value, precondition.each_seed)]
        fails += [f"seeds {', '.join(outside)}"] if outside else []
    return {
        "id": precondition.id,
        "statement": precondition.statement,
        "paper": precondition.paper.text,
        "wanted": _words(precondition, evidence.profile),
        "mean": mean,
        "lowest": float(np.min(values)) if values else math.nan,
        "highest": float(np.max(values)) if values else math.nan,
        "sd": sd,
        "n_seeds": len(values),
        "state": _state(precondition, evidence.profile, len(values), bool(fails)),
        "fails": "; ".join(fails) if values else "",
    }


def _state(precondition: Precondition, profile: str, n_seeds: int, fails: bool) -> str:
    if reason := precondition.at(profile).not_part:
        return f"{NOT_PART} {profile}: {reason}"
    if n_seeds == 0:
        return NOT_RUN
    if n_seeds < precondition.seeds:
        return OPEN
    return ABSENT if fails else PRESENT


def _is_within(value: float, bounds: tuple[float | None, float | None]) -> bool:
    """Strictly between the bounds; nan is not."""
    low, high = bounds
    return not math.isnan(value) and (low is None or value > low) and (high is None or value < high)


def _words(precondition: Precondition, profile: str) -> str:
    parts = [_bounds(precondition.wanted(profile))]
    if precondition.each_seed is not None:
        parts.append(f"each {_bounds(precondition.each_seed)}")
    if precondition.sd is not None:
        parts.append(f"sd < {precondition.sd:g}")
    return ", ".join(parts)


def _bounds(bounds: tuple[float | None, float | None]) -> str:
    low, high = bounds
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"> {low:g}" if low is not None else f"< {high:g}"
