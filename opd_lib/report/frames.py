"""Frames of records in the shapes that figures and tables ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from opd_lib.judge.quantities import end_of

POINT = ["arm", "seed", "step"]
"""What tells one point of a run's curve from another."""
COURSE = {"start": "first", "lowest": "min", "highest": "max", "end": end_of}
"""What a table says of a whole curve."""


def pick(frame: pd.DataFrame, arms: Iterable[str]) -> pd.DataFrame:
    """The rows of these arms, in the frame's order."""
    return frame[frame["arm"].isin(list(arms))]


def mean_accuracy(evals: pd.DataFrame) -> pd.DataFrame:
    """arm, seed, step, accuracy: the mean over the test sets (share correct), arms in the order of the frame."""
    return evals.groupby(POINT, as_index=False, sort=False)["accuracy"].mean()


def by_test_set(evals: pd.DataFrame) -> pd.DataFrame:
    """arm, seed, step and a column per test set, its accuracy (share correct), arms in the order of the frame."""
    wide = evals.pivot(index=POINT, columns="test_set", values="accuracy")
    return wide.reindex(pd.MultiIndex.from_frame(evals[POINT].drop_duplicates())).reset_index()


def course(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """quantity, arm, seed and of each run's curve: start, lowest, highest, end (`end_of`), in the column's unit."""
    long = frame.melt(POINT, columns, "quantity", "reading")
    curves = long.groupby(["quantity", "arm", "seed"], sort=False)["reading"]
    return curves.agg(**COURSE).reset_index()


def together(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two frames of runs' curves as one: a row per arm, seed and step of either, nan where one has no value there."""
    return pd.concat([first, second]).groupby(POINT, as_index=False, sort=False).first()
