"""Is one method better than another? The difference of their accuracies, with what its interval speaks for.

An interval speaks for what was drawn again and for nothing else:

    seeds       pairs of runs with the same seed: other prompts, responses and samples. Student-t over seeds
    problems    the same runs on other test problems. Paired bootstrap over problems, each averaged over seeds

Where all seeds start from the same checkpoints, neither speaks for another student or teacher.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from opd_lib.judge.quantities import end_of
from opd_lib.maths import stats
from opd_lib.maths.stats import Interval

QUANTITIES = {
    "on the way": "accuracy, mean of all evaluations after the start: who learns faster",
    "at the end": "accuracy, mean of the last three evaluations: who ends higher",
}
OVER = ("seeds", "problems")
"""What an interval speaks for."""
BETTER, WORSE, OPEN = "better", "worse", "inconclusive"
DRAWS = 0  # of the bootstrap: the same table gives the same interval


def versus(problems: pd.DataFrame, first: str, second: str, tries: int = 1, margin: float = 0.0) -> pd.DataFrame:
    """`first` − `second` in accuracy: quantity, interval over, difference, low, high, n, verdict; four rows.

    `problems` is the table of that name of both arms' runs. `first` is better if the whole interval lies above
    `margin`, worse if it lies below −margin. All four intervals of all `tries` objectives that were tried hold together
    with 95 % (Bonferroni over tries, quantities and what an interval is over): who tries twenty and shows the best must
    say so. Raises ValueError for arms without a seed in common, or not evaluated at the same steps, and for no tries.
    """
    if not isinstance(tries, int) or tries < 1:
        raise ValueError(f"tries: {tries!r}: write how many objectives were tried, this one included, such as 1")
    curves = {arm: _curves(problems[problems["arm"] == arm]) for arm in (first, second)}
    seeds = sorted(set(curves[first].index.unique("seed")) & set(curves[second].index.unique("seed")))
    if not seeds:
        raise ValueError(f"{first} and {second} have no seed in common; run both with the same seeds")
    _require_same_steps(problems[problems["arm"].isin([first, second]) & problems["seed"].isin(seeds)])
    confidence = stats.simultaneous_confidence(0.95, tries * len(QUANTITIES) * len(OVER))
    rows = []
    for quantity in QUANTITIES:
        one, two = (_values(curves[arm], quantity).unstack("seed")[seeds] for arm in (first, second))
        by_seed = stats.t_interval(list(one.mean() - two.mean()), confidence)
        generator = np.random.default_rng(DRAWS)
        by_problem = stats.paired_cluster_bootstrap(one.mean(axis=1), two.mean(axis=1), generator, confidence)
        for drawn, found in zip(OVER, (by_seed, by_problem), strict=True):
            bounds = {"difference": found.estimate, "low": found.low, "high": found.high, "n": found.n}
            rows.append({"quantity": quantity, "interval over": drawn, **bounds, "verdict": verdict(found, margin)})
    return pd.DataFrame(rows)


def against(problems: pd.DataFrame, reference: str, tries: int | None = None, margin: float = 0.0) -> pd.DataFrame:
    """Every other arm − `reference`, as `versus` says it, four rows for each, the arm in front.

    All intervals of all arms hold together with 95 %: `tries` is how many were tried, those that are here unless it is
    said. Raises ValueError if the reference is not there or alone, or for fewer tries than arms, and as `versus`.
    """
    arms = [str(arm) for arm in problems["arm"].unique() if arm != reference]
    if reference not in set(problems["arm"]) or not arms:
        there = ", ".join(map(str, problems["arm"].unique())) or "none"
        raise ValueError(f"{reference!r} and at least one other arm are compared; there are {there}")
    if tries is not None and tries < len(arms):
        raise ValueError(f"tries: {tries}: {len(arms)} arms are compared here; count every objective that was tried")
    found = [versus(problems, arm, reference, tries or len(arms), margin).assign(arm=arm) for arm in arms]
    whole = pd.concat(found, ignore_index=True)
    return whole[["arm", *(column for column in whole if column != "arm")]]


def verdict(found: Interval, margin: float = 0.0) -> str:
    """better, worse or inconclusive: where the whole interval lies. Bounds that are not known decide nothing."""
    if found.low > margin:
        return BETTER
    return WORSE if found.high < -margin else OPEN


def _require_same_steps(problems: pd.DataFrame) -> None:
    """Raise ValueError naming two runs that were not evaluated at the same steps: their means are of other things."""
    runs = problems["arm"] + "/seed" + problems["seed"].astype(str)
    evaluated = {str(run): sorted(map(int, set(steps))) for run, steps in problems["step"].groupby(runs, sort=False)}
    one, *others = evaluated
    other = next((run for run in others if evaluated[run] != evaluated[one]), None)
    if other is not None:
        raise ValueError(
            f"{one} was evaluated at steps {evaluated[one]}, {other} at {evaluated[other]}; compare runs with the same "
            "train.steps and evaluate.every"
        )


def _curves(problems: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each problem (rows: seed, test set, problem) at each evaluation (columns: steps)."""
    scored = problems.assign(accuracy=problems["n_correct"] / problems["n_samples"])
    return scored.pivot_table(index=["seed", "test_set", "problem"], columns="step", values="accuracy", sort=True)


def _values(curves: pd.DataFrame, quantity: str) -> pd.Series:
    """The quantity of each problem and seed."""
    values: pd.Series = curves.iloc[:, 1:].mean(axis=1) if quantity == "on the way" else curves.apply(end_of, axis=1)
    return values
