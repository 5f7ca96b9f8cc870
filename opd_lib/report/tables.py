"""Frames to text with fixed digits, so that two machines with the same numbers print the same bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from opd_lib.judge.quantities import end_of
from opd_lib.maths import stats
from opd_lib.records.reference import FILE
from opd_lib.report import frames

MISSING = "–"


def show(frame: pd.DataFrame, digits: int = 3) -> str:
    """The frame as aligned plain text: numbers to the right with fixed digits, text to the left, no index."""
    return _render(frame, digits, layout="simple")


def markdown(frame: pd.DataFrame, digits: int = 3) -> str:
    """The frame as a GitHub table; line breaks inside a cell become spaces."""
    flat = frame.map(lambda cell: " ".join(cell.split("\n")) if isinstance(cell, str) else cell)
    return _render(flat, digits, layout="github")


def cell(value: object, digits: int) -> str:
    """A value as text: nothing is a dash."""
    if value is None:
        return MISSING
    return number(value, digits) if isinstance(value, float) else str(value)


def number(value: float, digits: int = 3) -> str:
    """Fixed digits; nan is a dash; what rounds to zero has no sign."""
    if math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def interval(values: Sequence[float], digits: int = 3, confidence: float = 0.95) -> str:
    """mean ± half-width of the Student-t interval over seeds; the mean alone when there is one seed."""
    found = stats.t_interval(values, confidence)
    digits = places(found.estimate, digits)
    mean = number(found.estimate, digits)
    return mean if math.isnan(found.half_width) else f"{mean} ± {number(found.half_width, digits)}"


def places(value: float, digits: int = 3) -> int:
    """At least `digits` decimals, and more (up to six) where a small value would lose its second digit."""
    if value == 0 or not math.isfinite(value):
        return digits
    return max(digits, min(6, 1 - math.floor(math.log10(abs(value)))))


def curve_table(frame: pd.DataFrame, column: str, steps: Sequence[int], digits: int = 3) -> pd.DataFrame:
    """Columns step and one per arm: mean ± half-width over seeds of `column` at these steps; no rows for no runs.

    Raises ValueError for a step that no run has logged.
    """
    unknown = sorted(set(steps) - set(frame["step"]))
    if unknown:
        raise ValueError(f"steps {unknown} were not logged; choose from {sorted(frame['step'].unique())}")
    rows = []
    for step in steps:
        cells: dict[str, object] = {"step": step}
        for arm in frame["arm"].unique():
            values = frame[(frame["arm"] == arm) & (frame["step"] == step)][column]
            cells[arm] = interval(list(values), digits) if len(values) else MISSING
        rows.append(cells)
    return pd.DataFrame(rows, columns=["step", *frame["arm"].unique()])


def a_few_steps(frame: pd.DataFrame, n: int = 8) -> list[int]:
    """About n logged steps, evenly spread, first and last among them; none if nothing was logged."""
    logged = sorted(int(step) for step in frame["step"].unique())
    chosen = {round(i * (len(logged) - 1) / max(1, n - 1)) for i in range(n)}
    return [logged[index] for index in sorted(chosen)] if logged else []


def end_table(frame: pd.DataFrame, columns: Sequence[str], digits: int = 3) -> pd.DataFrame:
    """One row per column and arm: start and end (last three points), mean ± half-width over seeds."""
    rows = []
    for column in columns:
        for arm in frame["arm"].unique():
            curves = _curves(frame[frame["arm"] == arm], column)
            rows.append(
                {
                    "quantity": column,
                    "arm": arm,
                    "start": interval([float(curve.iloc[0]) for curve in curves], digits),
                    "end": interval([end_of(curve) for curve in curves], digits),
                    "n_seeds": len(curves),
                }
            )
    return pd.DataFrame(rows, columns=["quantity", "arm", "start", "end", "n_seeds"])


def accuracy_table(evals: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """`end_table` of the accuracy on each test set, which are the quantities."""
    return end_table(frames.by_test_set(evals), sorted(evals["test_set"].unique()), digits)


def course_table(
    frame: pd.DataFrame, columns: Sequence[str], said: Sequence[str] = tuple(frames.COURSE), digits: int = 3
) -> pd.DataFrame:
    """One row per column and arm: what is `said` of the curve (`frames.COURSE`), mean ± half-width over seeds."""
    return summary(frames.course(frame, columns), ["quantity", "arm"], said, digits)


def summary(frame: pd.DataFrame, by: str | Sequence[str], columns: Sequence[str], digits: int = 3) -> pd.DataFrame:
    """One row per distinct `by` (a column or several): mean ± half-width over seeds of each column, and n_seeds.

    Rows of one seed are averaged first, so that a seed with more rows weighs no more. Undefined in one row is undefined
    in the mean: a dash.
    """
    keys = [by] if isinstance(by, str) else list(by)
    rows = []
    for names, found in frame.groupby(keys, sort=False):
        by_seed = found.groupby("seed")[list(columns)].mean(skipna=False)
        cells = {column: interval(list(by_seed[column]), digits) for column in columns}
        rows.append({**dict(zip(keys, names, strict=True)), **cells, "n_seeds": len(by_seed)})
    return pd.DataFrame(rows, columns=[*keys, *columns, "n_seeds"])


def verdict_table(judged: pd.DataFrame, width: int = 44, digits: int = 3) -> pd.DataFrame:
    """What `claims.judge` found, for reading: statement wrapped to `width`, paper's value and verdict to half of it.

    `detectable`: how far beyond the bound an effect has to lie for these seeds to decide it with probability .8.
    """
    marked = ["" if pd.isna(mark) else mark for mark in judged["precondition"]]  # an empty cell of a CSV is nan
    said, room = zip(judged["verdict"], marked, strict=True), max(width // 2, len("inconclusive"))
    return pd.DataFrame(
        {
            "id": judged["id"],
            "figure": [textwrap.fill(text, 8) for text in judged["figure"]],
            "statement": [textwrap.fill(text, width) for text in judged["statement"]],
            "paper": [textwrap.fill(text, width // 2) for text in judged["paper"]],
            "ours": [number(value, places(value, digits)) for value in judged["estimate"]],
            "interval": [
                _bounds(*row, digits) for row in zip(judged["estimate"], judged["low"], judged["high"], strict=True)
            ],
            "claimed": judged["threshold"],
            "detectable": [number(value, places(value, digits)) for value in judged["detectable"]],
            "seeds": judged["n_seeds"],
            "verdict": ["\n".join(textwrap.fill(text, room) for text in each if text) for each in said],
        }
    )


def precondition_table(states: pd.DataFrame, width: int = 30, digits: int = 3) -> pd.DataFrame:
    """What `preconditions.judge` found, for reading: statement wrapped to `width`, the other texts to two thirds."""
    fails = (": " + states["fails"]).where(states["fails"] != "", "")
    texts = {"paper": states["paper"], "wanted": states["wanted"], "state": states["state"] + fails}
    wrapped = {name: [textwrap.fill(text, 2 * width // 3) for text in column] for name, column in texts.items()}
    return pd.DataFrame(
        {
            "id": states["id"],
            "precondition": [textwrap.fill(text, width) for text in states["statement"]],
            "paper": wrapped["paper"],
            "wanted": wrapped["wanted"],
            **{name: [number(value, digits) for value in states[name]] for name in ("mean", "lowest", "highest")},
            "seeds": states["n_seeds"],
            "state": wrapped["state"],
        }
    )


def checkpoint_table(evals: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """One row per checkpoint (arm), one column per test set and their mean: accuracy of the last evaluation.

    Each cell is mean ± half-width over seeds.
    """
    last = _last(evals)
    rows = []
    for arm in last["arm"].unique():
        by_seed = last[last["arm"] == arm].pivot(index="seed", columns="test_set", values="accuracy")
        cells = {test_set: interval(list(by_seed[test_set]), digits) for test_set in by_seed.columns}
        mean = interval(list(by_seed.mean(axis=1, skipna=False)), digits)
        rows.append({"checkpoint": arm, **cells, "mean": mean})
    return pd.DataFrame(rows).fillna(MISSING)


def last_scores(evals: pd.DataFrame) -> dict[str, dict[str, float]]:
    """arm → test set → accuracy at the last evaluation, mean over seeds."""
    last = _last(evals)
    means = last.groupby(["arm", "test_set"])["accuracy"].mean()
    return {str(arm): means[arm].to_dict() for arm in last["arm"].unique()}


def token_table(example: Mapping[str, Any], n: int = 20) -> pd.DataFrame:
    """The first n tokens of a kept response with what both models said about them (nats)."""
    columns = ["student_logp", "teacher_logp", "student_entropy", "teacher_entropy", "reverse_kl"]
    frame = pd.DataFrame({"token": example["tokens"], **{name: example[name] for name in columns if name in example}})
    return frame.head(n)


def hyper_parameters(reference_table: pd.DataFrame, ours: Mapping[str, object]) -> pd.DataFrame:
    """Each setting of a paper's table (columns item, value, source) beside ours; a dash where we have none.

    Raises ValueError for an item of ours that the paper's table does not have.
    """
    unknown = sorted(set(ours) - set(reference_table["item"]))
    if unknown:
        where = reference_table.attrs.get(FILE, "the paper's table")
        raise ValueError(f"{where}: has no items {unknown}; use {sorted(reference_table['item'])}")
    return pd.DataFrame(
        {
            "item": reference_table["item"],
            "paper": reference_table["value"],
            "ours": [str(ours.get(item, MISSING)) for item in reference_table["item"]],
            "source": reference_table["source"],
        }
    )


def _last(evals: pd.DataFrame) -> pd.DataFrame:
    return evals[evals["step"] == evals.groupby(["arm", "seed"])["step"].transform("max")]


def _curves(frame: pd.DataFrame, column: str) -> list[pd.Series]:
    return [rows.set_index("step")[column].sort_index() for _, rows in frame.groupby("seed")]


def _bounds(estimate: float, low: float, high: float, digits: int) -> str:
    digits = places(estimate, digits)
    return MISSING if math.isnan(low) else f"[{number(low, digits)}, {number(high, digits)}]"


def _render(frame: pd.DataFrame, digits: int, layout: str) -> str:
    if frame.empty:
        return "(no rows)"
    texts = {name: [cell(value, digits) for value in column] for name, column in frame.items()}
    sides = ["right" if pd.api.types.is_numeric_dtype(column) else "left" for _, column in frame.items()]
    table = tabulate(texts, headers="keys", tablefmt=layout, colalign=sides, disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.splitlines())
