"""Does this machine agree? Local records beside the committed ones, claim by claim and file by file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from opd_lib import paths
from opd_lib.judge import agreement, claims
from opd_lib.records import record
from opd_lib.records.record import RunRecord
from opd_lib.report import tables
from opd_lib.run import evidence, plan

COMPARED = record.TABLES
IDENTICAL, OTHER = "identical", "other parameters"


def compare(profile: str, local: Path, committed: Path = paths.RESULTS, every: bool = False) -> str:
    """The comparison as text: what disagrees, or with `every` all rows, then the verdict and the next step.

    Raises ValueError for an unknown profile, and if there is nothing to compare.
    """
    plan.require_profile(profile)
    here, there = evidence.records(profile, local), evidence.records(profile, committed)
    if not here:
        raise ValueError(f"{local / profile}: no finished runs; `make reproduce` or `opd reproduce` computes them")
    if not there:
        return f"Nothing is committed for profile {profile} yet: nothing to compare {len(here)} local runs with."
    mine, theirs = evidence.read(profile, local), evidence.read(profile, committed)
    compared = [(register.paper, agreement.compare(register, mine, theirs)) for register in registers(profile)]
    of_claims = [(paper, frame) for paper, frame in compared if not frame.empty]
    of_files = files(here, there)
    parts = [_files_text(of_files if every else of_files[~_same(of_files)])]
    parts += [_claims_text(paper, frame if every else frame[frame["agrees"] == "no"]) for paper, frame in of_claims]
    return "\n\n".join([*(part for part in parts if part), _verdict(of_files, of_claims, profile, local, every)])


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
            row |= dict.fromkeys(COMPARED, OTHER)
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


def _same(frame: pd.DataFrame) -> pd.Series:
    return (frame[list(COMPARED)] == IDENTICAL).all(axis=1)


def _files_text(frame: pd.DataFrame) -> str:
    """A table of runs; nothing without any."""
    return "" if frame.empty else f"Tables of a run beside the committed ones:\n\n{tables.show(frame)}"


def _claims_text(paper: str, frame: pd.DataFrame) -> str:
    """A table of local seeds; nothing without any."""
    if frame.empty:
        return ""
    note = "a seed that is committed too must come within one between-seed standard deviation of its committed self"
    return f"Claims of {paper}: does each local seed agree?\n({note})\n\n{tables.show(frame)}"


def _verdict(
    of_files: pd.DataFrame, of_claims: Sequence[tuple[str, pd.DataFrame]], profile: str, local: Path, every: bool
) -> str:
    """What came out, counted, and the command that leads on."""
    same, answers = int(_same(of_files).sum()), {"yes": 0, "no": 0, "unknown": 0}
    lines = [f"{same} of {len(of_files)} runs are byte for byte the committed ones."]
    for paper, frame in of_claims:
        counts = {answer: int((frame["agrees"] == answer).sum()) for answer in answers}
        answers = {answer: number + counts[answer] for answer, number in answers.items()}
        words = f"{counts['yes']} agree, {counts['no']} do not, {counts['unknown']} unknown"
        lines += [f"Claims of {paper}, each at each local seed: {words}."]
    apart = (of_files[list(COMPARED)] == OTHER).all(axis=1).sum()
    if answers["no"]:
        lines += [f"Verdict: this machine disagrees in {answers['no']} of {sum(answers.values())}."]
    elif not answers["yes"]:
        lines += ["Verdict: none; no claim has its number both here and in what is committed."]
    else:
        lines += ["Verdict: this machine agrees."]
    return "\n".join([*lines, f"Next: {_next_step(answers, same == len(of_files), int(apart), profile, local, every)}"])


def _next_step(answers: Mapping[str, int], identical: bool, apart: int, profile: str, local: Path, every: bool) -> str:
    where = ("" if profile == "tiny" else f" --profile {profile}") + (
        "" if local == paths.LOCAL else f" --results {local}"
    )
    if apart:
        return f"`opd status --runs{where}` names what differs in the parameters of {apart} runs."
    if answers["no"]:
        return f"`opd status --runs --verify{where}` says whether the records are whole, and of which versions."
    if not answers["yes"]:
        return f"`opd reproduce{where}` trains what the claims need."
    if identical or every:
        return (
            f"`opd claims --results {local}" + ("" if profile == "tiny" else f" --profile {profile}") + "` judges them."
        )
    return f"`opd compare --all{where}` shows every number beside the committed one."
