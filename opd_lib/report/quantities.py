"""The vocabulary in which a claim is written: one number of one seed, read from the tables of its runs.

A claim's quantity is an expression such as `end('success', 'overlap_k16') - start('success', 'overlap_k16')`.
The public methods of `SeedView` are its functions; `value_of` evaluates it. The first logged point is the
start; the end is the mean of the last three points after it, so that the start is never part of the end.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import simpleeval

from opd_lib.maths import stats

END_POINTS = 3
SMOOTHING_POINTS = 3
MODELS = "00_models"  # the experiment whose arms are the checkpoints


class NoRecordError(LookupError):
    """This seed has no run for an arm that the quantity names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was run at one profile: experiment → {"steps": frame, "evals": frame}, both tidy.

    A steps frame has columns arm, seed, step and one per logged quantity; an evals frame has arm, seed, step,
    test_set, accuracy. The checkpoints' own accuracies are experiment `00_models`, one arm each.
    """

    profile: str
    experiments: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)

    def seeds(self, experiment: str) -> tuple[int, ...]:
        """Every seed of which this experiment has a run, in order."""
        tables = self.experiments.get(experiment, {}).values()
        return tuple(sorted({int(seed) for table in tables for seed in table["seed"].unique()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedView:
    """The runs of one experiment with one seed. Its public methods are the functions a claim may use.

    Each raises NoRecordError when the run is not there and ValueError when the column is not.
    """

    evidence: Evidence
    experiment: str
    seed: int

    def start(self, arm: str, column: str) -> float:
        """The first logged value."""
        return float(self._curve(arm, column).iloc[0])

    def end(self, arm: str, column: str) -> float:
        """The mean of the last three logged values after the first."""
        return end_of(self._curve(arm, column))

    def minimum(self, arm: str, column: str) -> float:
        """The smallest logged value."""
        return float(self._curve(arm, column).min(skipna=False))

    def maximum(self, arm: str, column: str) -> float:
        """The largest logged value."""
        return float(self._curve(arm, column).max(skipna=False))

    def mean(self, arm: str, column: str) -> float:
        """The mean over all logged values."""
        return float(self._curve(arm, column).mean(skipna=False))

    def slope(self, arm: str, column: str) -> float:
        """The least-squares change per training step. One point has no slope: nan."""
        curve = self._curve(arm, column)
        if len(curve) < 2:
            return math.nan
        return float(np.polyfit(curve.index.to_numpy(dtype=float), curve.to_numpy(dtype=float), deg=1)[0])

    def accuracy_start(self, arm: str) -> float:
        """Accuracy of the first evaluation (step 0), averaged over the test sets."""
        return float(self._accuracy(self.experiment, arm).iloc[0])

    def accuracy_end(self, arm: str) -> float:
        """Accuracy averaged over the test sets and over the last three evaluations after the first."""
        return end_of(self._accuracy(self.experiment, arm))

    def accuracy_max_gap(self, first: str, second: str) -> float:
        """The largest distance between two accuracy curves after a three-point moving average."""
        curves = pd.concat([self._accuracy(self.experiment, arm) for arm in (first, second)], axis=1).dropna()
        if curves.empty:
            return math.nan
        smooth = curves.rolling(min(SMOOTHING_POINTS, len(curves))).mean().dropna()
        return float((smooth.iloc[:, 0] - smooth.iloc[:, 1]).abs().max())

    def checkpoint(self, name: str) -> float:
        """Accuracy of a checkpoint of the same seed, averaged over the test sets: its last evaluation."""
        return float(self._accuracy(MODELS, name).iloc[-1])

    def recovery(self, arm: str, teacher: str) -> float:
        """(end − start) / (teacher − start) in accuracy; nan when the teacher is no better than the start.

        Source: §3.2 of arXiv 2604.13016, gap recovery rate, as a share.
        """
        return stats.gap_recovery(self.accuracy_start(arm), self.accuracy_end(arm), self.checkpoint(teacher))

    def _curve(self, arm: str, column: str) -> pd.Series:
        rows = self._rows(self.experiment, "steps", arm)
        if column not in rows.columns:
            raise ValueError(f"steps of {self.experiment}: no column {column!r}; it has {', '.join(rows.columns)}")
        return rows.set_index("step")[column].sort_index()

    def _accuracy(self, experiment: str, arm: str) -> pd.Series:
        return self._rows(experiment, "evals", arm).groupby("step")["accuracy"].mean().sort_index()

    def _rows(self, experiment: str, table: str, arm: str) -> pd.DataFrame:
        frame = self.evidence.experiments.get(experiment, {}).get(table)
        if frame is not None:
            frame = frame[(frame["arm"] == arm) & (frame["seed"] == self.seed)]
        if frame is None or frame.empty:
            raise NoRecordError(f"{experiment}: no {table} of arm {arm!r}, seed {self.seed}")
        return frame


FUNCTIONS = (
    "start",
    "end",
    "minimum",
    "maximum",
    "mean",
    "slope",
    "accuracy_start",
    "accuracy_end",
    "accuracy_max_gap",
    "checkpoint",
    "recovery",
)


def _least(*values: float) -> float:
    return float(np.min(values))  # unlike min, nan if any is


def _greatest(*values: float) -> float:
    return float(np.max(values))


ARITHMETIC: dict[str, Callable[..., float]] = {"abs": abs, "min": _least, "max": _greatest}


def end_of(curve: pd.Series) -> float:
    """The mean of the last three values after the first; a single value is its own end."""
    after_start = curve.iloc[1:] if len(curve) > 1 else curve
    return float(after_start.iloc[-END_POINTS:].mean(skipna=False))


def calls(quantity: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Every function call in a quantity with its text arguments, outermost first.

    Raises ValueError when the quantity cannot be read or names an unknown function.
    """
    try:
        nodes = [node for node in ast.walk(ast.parse(quantity, mode="eval")) if isinstance(node, ast.Call)]
    except SyntaxError as error:
        raise ValueError(f"quantity {quantity!r} cannot be read: {error.msg}") from error
    found = tuple((ast.unparse(node.func), _texts(node)) for node in nodes)
    for name, _ in found:
        if name not in (*FUNCTIONS, *ARITHMETIC):
            raise ValueError(f"quantity {quantity!r}: no function {name}; use {', '.join((*FUNCTIONS, *ARITHMETIC))}")
    return found


def value_of(quantity: str, view: SeedView) -> float:
    """The number that this quantity is for one seed; nan where it divides by zero.

    Raises ValueError when the expression is wrong and NoRecordError when a run that it names is missing.
    """
    functions = ARITHMETIC | {name: getattr(view, name) for name in FUNCTIONS}
    try:
        return float(simpleeval.SimpleEval(functions=functions, names={}).eval(quantity))
    except ZeroDivisionError:
        return math.nan
    except (simpleeval.InvalidExpression, SyntaxError, TypeError) as error:
        raise ValueError(f"quantity {quantity!r} cannot be evaluated: {error}") from error


def _texts(call: ast.Call) -> tuple[str, ...]:
    return tuple(a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
