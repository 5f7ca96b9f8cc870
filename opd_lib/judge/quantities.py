"""One number of one seed, read from the tables of its runs: training curves and accuracies.

These numbers are what claims are about; `judge/vocabulary` has the others and evaluates a claim's expression.
The first logged point is the start; the end is the mean of the last three points after it, so that the start is never
part of the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from opd_lib.maths import stats

END_POINTS = 3
SMOOTHING_POINTS = 3
FEWEST_POINTS = 3  # a scatter or a correlation of fewer points is not computed
MODELS = "00_models"  # the experiment whose arms are the checkpoints
Found = TypeVar("Found")


class EmptyTableError(ArithmeticError):
    """The run is there but wrote nothing into the table that is asked for: what is read from it is undefined."""


class NoRecordError(LookupError):
    """This seed has no run for an arm that the quantity names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was run at one profile: experiment → table (a name in `record.TABLES`) → tidy frame.

    Every frame has columns arm and seed; steps and evals also have step. A table may be empty or missing. The
    checkpoints' own accuracies are experiment `00_models`, one arm each. `teachers`: experiment → arm → the
    checkpoint that teaches it.
    """

    profile: str
    experiments: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    teachers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _found: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rows(self, experiment: str, table: str, arm: str, seed: int) -> pd.DataFrame | None:
        """The rows of one run in a table, in their order; None if there are none.

        Where they stand is found once for a whole table: a search for each run would read all rows for each.
        """
        places = self.places(experiment, table).get((arm, seed))
        return None if places is None else _taken(self.experiments[experiment][table], places)

    def places(self, experiment: str, table: str) -> dict[tuple[str, int], np.ndarray]:
        """(arm, seed) → the numbers of its rows in a table, in order; nothing for a table that is not there."""
        frame = self.experiments.get(experiment, {}).get(table)
        return self.once(("places", experiment, table), lambda: _places(frame))

    def once(self, key: tuple[Any, ...], find: Callable[[], Found]) -> Found:
        """What `find` gives, found when it is first asked for: many claims read the same numbers of the same runs."""
        if key not in self._found:
            self._found[key] = find()
        found: Found = self._found[key]
        return found

    def seeds(self, experiment: str) -> tuple[int, ...]:
        """Every seed of which this experiment has a run, in order."""
        tables = self.experiments.get(experiment, {}).values()
        return tuple(sorted({int(seed) for table in tables if not table.empty for seed in table["seed"].unique()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedView:
    """The runs of one experiment with one seed.

    Every method raises NoRecordError when a run is not there and ValueError when a column is not. Columns of steps
    have the units of `maths/diagnostics.UNITS`; accuracies are shares, averaged over the test sets.
    """

    evidence: Evidence
    experiment: str
    seed: int

    def start(self, arm: str, column: str) -> float:
        """The first logged value, in the column's unit (steps)."""
        return float(self.curve(arm, column).iloc[0])

    def end(self, arm: str, column: str) -> float:
        """The mean of the last three logged values after the first, in the column's unit (steps)."""
        return end_of(self.curve(arm, column))

    def minimum(self, arm: str, column: str) -> float:
        """The smallest logged value, in the column's unit (steps)."""
        return float(self.curve(arm, column).min(skipna=False))

    def maximum(self, arm: str, column: str) -> float:
        """The largest logged value, in the column's unit (steps)."""
        return float(self.curve(arm, column).max(skipna=False))

    def mean(self, arm: str, column: str) -> float:
        """The mean over all logged values, in the column's unit (steps)."""
        return float(self.curve(arm, column).mean(skipna=False))

    def slope(self, arm: str, column: str) -> float:
        """The least-squares change, in the column's unit per training step (steps). One point has no slope: nan."""
        curve = self.curve(arm, column)
        if len(curve) < 2:
            return math.nan
        return float(np.polyfit(curve.index.to_numpy(dtype=float), curve.to_numpy(dtype=float), deg=1)[0])

    def roughness(self, arm: str, column: str) -> float:
        """The standard deviation of the changes from each logged value to the next, in the column's unit (steps).

        A steady rise has none, so it is the scatter that is measured. nan for fewer than three values.
        """
        curve = self.curve(arm, column).to_numpy(dtype=float)
        return float(np.diff(curve).std(ddof=1)) if len(curve) >= FEWEST_POINTS else math.nan

    def correlation(self, first: str, second: str, column: str) -> float:
        """Pearson's correlation of two runs' curves over the steps that both have logged, from −1 to 1 (steps).

        nan for fewer than three common steps, and where a curve is constant or undefined.
        """
        curves = pd.concat([self.curve(arm, column) for arm in (first, second)], axis=1, join="inner")
        values = curves.to_numpy(dtype=float)
        if len(values) < FEWEST_POINTS or (np.ptp(values, axis=0) == 0).any():
            return math.nan
        return float(np.corrcoef(values.T)[0, 1])

    def accuracy_start(self, arm: str) -> float:
        """Accuracy of the first evaluation (step 0), averaged over the test sets (evals)."""
        return float(self.accuracy(arm).iloc[0])

    def accuracy_end(self, arm: str, test_set: str | None = None) -> float:
        """Accuracy averaged over the last three evaluations after the first, and over the test sets (evals).

        With `test_set`, of that one alone; nan at a profile that does not have it.
        """
        if test_set is None:
            return end_of(self.accuracy(arm))
        rows = self.table("evals", arm, "step", "test_set", "accuracy")
        chosen = rows[rows["test_set"] == test_set]
        return end_of(_by_step(chosen)) if len(chosen) else math.nan

    def accuracy_max_gap(self, first: str, second: str) -> float:
        """The largest distance between two accuracy curves after a three-point moving average (evals)."""
        curves = pd.concat([self.accuracy(arm) for arm in (first, second)], axis=1).dropna()
        if curves.empty:
            return math.nan
        smooth = curves.rolling(min(SMOOTHING_POINTS, len(curves))).mean().dropna()
        return float((smooth.iloc[:, 0] - smooth.iloc[:, 1]).abs().max())

    def checkpoint(self, name: str, column: str = "accuracy") -> float:
        """Last evaluation of a checkpoint of the same seed, mean over the test sets, in the column's unit (evals)."""
        return float(self._evaluated(MODELS, name, column).iloc[-1])

    def weakest(self, name: str, *others: str) -> float:
        """The accuracy of that of these checkpoints which scores lowest (evals); nan if one is undefined."""
        return float(np.min([self.checkpoint(each) for each in (name, *others)]))

    def recovery(self, arm: str, teacher: str) -> float:
        """(end − start) / (teacher − start) in accuracy (evals); nan when the teacher is no better than the start.

        Source: §3.2 of arXiv 2604.13016, gap recovery rate, as a share.
        """
        return stats.gap_recovery(self.accuracy_start(arm), self.accuracy_end(arm), self.checkpoint(teacher))

    def table(self, table: str, arm: str, *columns: str, experiment: str | None = None) -> pd.DataFrame:
        """The rows of one run, which must have these columns."""
        return self._checked(self._rows(experiment or self.experiment, table, arm), table, columns)

    def all_arms(self, table: str, *columns: str) -> pd.DataFrame:
        """The rows of every arm. Raises NoRecordError if this seed lacks an arm that another seed has."""
        places = self.evidence.places(self.experiment, table)
        mine = {arm: rows for (arm, seed), rows in places.items() if seed == self.seed}
        missing = sorted({arm for arm, _ in places} - {*mine})
        if missing or not mine:
            raise NoRecordError(f"{self.experiment}: no {table} of {', '.join(missing) or 'any arm'}, seed {self.seed}")
        frame = self.evidence.experiments[self.experiment][table]
        return self._checked(_taken(frame, np.sort(np.concatenate([*mine.values()]))), table, columns)

    def curve(self, arm: str, column: str) -> pd.Series:
        """Step → the logged value, in the column's unit (steps)."""
        rows = self.table("steps", arm, "step", column)
        return self.evidence.once(
            ("curve", self.experiment, arm, self.seed, column),
            lambda: rows[["step", column]].set_index("step")[column].sort_index(),
        )

    def accuracy(self, arm: str) -> pd.Series:
        """Step → accuracy, averaged over the test sets (evals)."""
        return self._evaluated(self.experiment, arm, "accuracy")

    def _evaluated(self, experiment: str, arm: str, column: str) -> pd.Series:
        """Step → mean over the test sets."""
        rows = self.table("evals", arm, "step", column, experiment=experiment)
        return self.evidence.once(("evals", experiment, arm, self.seed, column), lambda: _by_step(rows, column))

    def _rows(self, experiment: str, table: str, arm: str) -> pd.DataFrame:
        rows = self.evidence.rows(experiment, table, arm, self.seed)
        if rows is not None:
            return rows
        others = self.evidence.experiments.get(experiment, {})
        where = f"{experiment}: no {table} of arm {arm!r}, seed {self.seed}"
        if any(self.evidence.rows(experiment, other, arm, self.seed) is not None for other in others):
            raise EmptyTableError(where)
        raise NoRecordError(where)

    def _checked(self, rows: pd.DataFrame, table: str, columns: tuple[str, ...]) -> pd.DataFrame:
        for column in columns:
            if column not in rows.columns:
                raise ValueError(
                    f"{table} of {self.experiment}: no column {column!r}; it has {', '.join(rows.columns)}"
                )
        return rows


def end_of(curve: pd.Series) -> float:
    """The mean of the last three values after the first; a single value is its own end."""
    return mean_of_end(curve.to_numpy(dtype=float))


def mean_of_end(values: np.ndarray) -> float:
    """As `end_of`, of values alone; nan for none."""
    after_start = values[1:] if len(values) > 1 else values
    return float(np.mean(after_start[-END_POINTS:])) if len(values) else math.nan


def _places(frame: pd.DataFrame | None) -> dict[tuple[str, int], np.ndarray]:
    found = {} if frame is None or frame.empty else frame.groupby(["arm", "seed"], sort=False).indices
    return {(str(name), int(number)): rows for (name, number), rows in found.items()}


def _taken(frame: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """The rows of these numbers, which grow; without a copy where they are neighbours, as those of a run are."""
    first, last = int(rows[0]), int(rows[-1])
    return frame.iloc[first : last + 1] if last - first + 1 == len(rows) else frame.take(rows)


def _by_step(evals: pd.DataFrame, column: str = "accuracy") -> pd.Series:
    return evals.groupby("step")[column].mean().sort_index()
