"""Two conditions on the same test problems, problem by problem: what a claim over problems compares."""

from __future__ import annotations

import numpy as np
import pandas as pd

from opd_lib.judge.quantities import SeedView, mean_of_end


def paired_accuracy(view: SeedView, first: str, second: str) -> pd.DataFrame:
    """The end accuracy of each problem in two runs, columns first and second, indexed by test set and problem.

    A problem's end is the share of its samples that are right, averaged over the last three evaluations after step 0
    (problems). Raises ValueError if the runs were not tested on the same problems.
    """
    one, two = (_by_problem(view, arm)["end"] for arm in (first, second))
    return _pairs(one, two, f"{first} and {second}")


def paired_gain(view: SeedView, arm: str) -> pd.DataFrame:
    """As `paired_accuracy`, with one run at its end (first) and at step 0 (second)."""
    found = _by_problem(view, arm)
    return _pairs(found["end"], found["start"], arm)


def _by_problem(view: SeedView, arm: str) -> pd.DataFrame:
    """Columns start and end of one run, indexed by test set and problem."""
    rows = view.table("problems", arm, "step", "test_set", "problem", "n_correct", "n_samples")
    return view.evidence.once(("problems", view.experiment, arm, view.seed), lambda: _ends(rows))


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    ordered = rows.sort_values(["test_set", "problem", "step"], kind="stable")
    share = (ordered["n_correct"] / ordered["n_samples"]).to_numpy(dtype=float)
    keys = pd.MultiIndex.from_frame(ordered[["test_set", "problem"]], names=[None, None])
    first = np.flatnonzero(~keys.duplicated())
    ends = [mean_of_end(curve) for curve in np.split(share, first[1:])]
    return pd.DataFrame({"start": share[first], "end": ends}, index=keys[first])


def _pairs(first: pd.Series, second: pd.Series, arms: str) -> pd.DataFrame:
    if set(first.index) != set(second.index):
        raise ValueError(f"{arms}: tested on different problems, which cannot be compared one by one")
    return pd.DataFrame({"first": first, "second": second})
