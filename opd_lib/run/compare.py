"""Does this machine agree? Local records beside the committed ones, claim by claim and file by file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from opd_lib import paths
from opd_lib.judge import agreement, claims
from opd_lib.records import record
from opd_lib.records.record import RunRecord
from opd_lib.report import tables
from opd_lib.run import evidence, plan

COMPARED = record.TABLES
IDENTICAL = "identical"


def compare(profile: str, local: Path, committed: Path = paths.RESULTS) -> str:
    """The whole comparison as text. Raises ValueError for an unknown profile, and if there is nothing to compare."""
    plan.require_profile(profile)
    here, there = evidence.records(profile, local), evidence.records(profile, committed)
    if not here:
        raise ValueError(f"{local / profile}: no finished runs; `make reproduce` or `opd reproduce` computes them")
    if not there:
        return f"Nothing is committed for profile {profile} yet: nothing to compare {len(here)} local runs with."
    parts = [_files_text(files(here, there))]
    mine, theirs = evidence.read(profile, local), evidence.read(profile, committed)
    for register in registers(profile):
        frame = agreement.compare(register, mine, theirs)
        if not frame.empty:
            parts.append(_claims_text(register, frame))
    return "\n\n".join(parts)


def registers(profile: str, folder: Path = paths.CLAIMS) -> list[claims.Register]:
    """The claims of every paper that are in force at a profile (`paths.claims_file`)."""
    papers = {path.stem for place in (folder, folder / profile) for path in place.glob("*.yaml")}
    return [claims.load(paths.claims_file(paper, profile, folder)) for paper in sorted(papers)]


def files(here: Mapping[str, RunRecord], there: Mapping[str, RunRecord]) -> pd.DataFrame:
    """One row per local run: is each table byte for byte the committed one, and if not, how far apart are their ends.

    The distance is the largest relative difference over the numeric columns of the rows of the last step.
    """
    rows = []
    for name, present in here.items():
        other = there.get(name)
        row = {"run": name}
        for table in COMPARED:
            row[table] = "not committed" if other is None else _difference(present, other, table)
        if other is not None and other.identity != present.identity:
            row |= dict.fromkeys(COMPARED, "other parameters")
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(present: RunRecord, other: RunRecord, table: str) -> str:
    if present.content(f"{table}.csv") == other.content(f"{table}.csv"):
        return IDENTICAL
    return f"differs, end by {_largest(present.frame(table), other.frame(table)):.2g}"


def _largest(mine: pd.DataFrame, theirs: pd.DataFrame) -> float:
    """Largest |a − b| / max(|a|, |b|) over the rows of the last step; infinite if they are not the same rows."""
    ends = [f[f["step"] == f["step"].max()].select_dtypes("number") if "step" in f else f for f in (mine, theirs)]
    if ends[0].shape != ends[1].shape or list(ends[0].columns) != list(ends[1].columns):
        return math.inf
    a, b = (end.to_numpy(dtype=float) for end in ends)
    worst = 0.0
    for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
        scale = max(abs(x), abs(y))
        if math.isnan(x) != math.isnan(y):
            return math.inf
        worst = max(worst, abs(x - y) / scale if scale > 0 else 0.0)
    return worst


def _files_text(frame: pd.DataFrame) -> str:
    same = int((frame[list(COMPARED)] == IDENTICAL).all(axis=1).sum())
    head = f"{same} of {len(frame)} runs are byte for byte the committed ones"
    if same == len(frame):
        return head + "."
    return f"{head}; relative difference of the last step of the others:\n\n{tables.show(frame)}"


def _claims_text(register: claims.Register, frame: pd.DataFrame) -> str:
    counts = frame["agrees"].value_counts()
    words = ", ".join(f"{counts.get(answer, 0)} {answer}" for answer in ("yes", "no", "unknown"))
    note = "a seed that is committed too must come within one between-seed standard deviation of its committed self"
    return f"Claims of {register.paper}: does each local seed agree? {words}\n({note})\n\n{tables.show(frame)}"
