"""When something happens in a run, and how much has been spent by then: one number of one seed."""

from __future__ import annotations

import math

import pandas as pd

from opd_lib.judge.quantities import SeedView

ACCURACY = "accuracy"
"""Names the curve of evaluations where a column of steps might stand."""
SMOOTH = 5
"""Logged steps over which a column is averaged before it is said to have crossed something."""


def accuracy_mean(view: SeedView, arm: str, until: float = 1.0) -> float:
    """Accuracy averaged over the evaluations of this first share of the run, the start left out (evals)."""
    curve = view.accuracy(arm)
    seen = curve[(curve.index > 0) & (curve.index <= until * curve.index.max())]
    return float(seen.mean()) if len(seen) else math.nan


def accuracy_max(view: SeedView, arm: str) -> float:
    """The highest accuracy of an evaluation, the start included (evals)."""
    return float(view.accuracy(arm).max(skipna=False))


def crossing(view: SeedView, arm: str, column: str, factor: float) -> float:
    """The first evaluation by which a curve has crossed `factor` times its reference, in steps (evals, steps).

    `accuracy`: its reference is its peak so far. A column of steps, averaged over five logged steps, is held to its
    first value; above one the curve has to rise to it, below one to fall. What never crosses is said to do so one
    evaluation behind the last. Everything is counted in evaluations, so that what is seen at every step is not found
    earlier for that alone.
    """
    evaluated = view.accuracy(arm)
    if column == ACCURACY:
        curve, reference = evaluated, evaluated.cummax()
    else:
        logged = view.curve(arm, column)
        curve, reference = logged.rolling(SMOOTH, min_periods=1).mean(), pd.Series(logged.iloc[0], index=logged.index)
    level = factor * reference
    crossed = curve.index[curve >= level if factor > 1 else curve <= level]
    steps = evaluated.index.to_numpy(dtype=float)
    after = steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 0.0)
    if not len(crossed):
        return float(after)
    return float(min((step for step in steps if step >= crossed[0]), default=after))


def tokens_to(view: SeedView, arm: str, share: float, other: str) -> float:
    """Sampled response tokens until accuracy first reaches this share of another arm's at its end (steps, evals).

    All tokens of the run where it never does: then it is what was needed at least.
    """
    curve, spent = view.accuracy(arm), view.curve(arm, "n_tokens").cumsum()
    reached = curve.index[curve >= share * view.accuracy_end(other)]
    until = reached[0] if len(reached) else curve.index.max()
    return float(spent[spent.index <= until].max()) if until > 0 else 0.0
