"""What is known before training, and how well it tells what training will bring (H3), over runs of many notebooks.

A frame has one row per arm and seed: FEATURES, which can be measured before the first step, and OUTCOMES. Seeds say
how sure a number is for these arms. Only leaving out says how sure it is for another pair of models: runs of one pair
differ in their settings alone, so a pair is left out with all its runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr, t

from opd_lib.judge import outcomes
from opd_lib.maths import stats

START = (
    "overlap_k16",
    "student_mass_k16",
    "teacher_mass_k16",
    "student_entropy",
    "teacher_entropy",
    "reverse_kl",
    "advantage_paper_k16",
    "response_length",
    "truncated_share",
)
"""Columns of steps.csv whose first row is measured on the student as it comes (units: maths/diagnostics.UNITS)."""
GAP = "teacher_gap"
"""Accuracy of the teacher minus accuracy of the student, both before training."""
FEATURES = (*START, GAP)
OUTCOMES = ("end", "gain", "recovery")
PREDICTORS = (GAP, "overlap_k16", "reverse_kl")
"""What the prognosis reads: what there is to learn, the paper's compatibility, and the distance of the two models."""
LINES: dict[str, tuple[str, ...]] = {"mean of the others": (), "teacher gap": (GAP,), "prognosis": PREDICTORS}
FEWEST = 3
"""A rank correlation of fewer arms is not computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prognosis:
    """The accuracy gain expected of a run and where it lies with 95 % probability, as shares.

    `error` is the root mean square error of predicting runs of pairs left out, `error_of_mean` that of their mean
    gain. `outside` names the predictors beyond those of the runs seen: there the line is extended. Where the errors
    show no use in the predictors, gain and bounds are nan.
    """

    gain: float
    low: float
    high: float
    error: float
    error_of_mean: float
    n_arms: int
    outside: tuple[str, ...]

    @property
    def is_of_use(self) -> bool:
        """True if pairs left out were predicted better than by the mean."""
        return self.error < self.error_of_mean


def features(
    steps: pd.DataFrame, evals: pd.DataFrame, model_evals: pd.DataFrame, teachers: Mapping[str, str]
) -> pd.DataFrame:
    """arm, seed, START, start, end, gain, teacher, recovery, teacher_gap and pair, one row per arm and seed.

    The arguments are those of `outcomes.recovery`, and the training steps. Arms with the same teacher whose students
    start at the same accuracy with every seed that all arms have are runs of one `pair` of models.
    """
    measured = outcomes.initial(steps, START)
    frame = measured.merge(outcomes.recovery(evals, model_evals, teachers), on=["arm", "seed"], validate="one_to_one")
    frame[GAP] = frame["teacher"] - frame["start"]
    common = set.intersection(*(set(found["seed"]) for _, found in frame.groupby("arm"))) if len(frame) else set()
    shared = frame[frame["seed"].isin(common)].sort_values("seed")
    starts = shared.groupby("arm")["start"].agg(lambda values: " ".join(map(repr, values)))
    frame["pair"] = frame["arm"].map(lambda arm: f"{teachers.get(arm)} {starts.get(arm)}")
    return frame


def correlations(
    frame: pd.DataFrame, outcome: str, confidence: float = 0.95, features: Sequence[str] = FEATURES
) -> pd.DataFrame:
    """Spearman's rank correlation of each feature with an outcome over the arms: mean over seeds and its t-interval.

    Columns feature, correlation, low, high, n_arms (fewest of any seed), n_seeds. Arms without the outcome (a
    recovery without a lead) are left out. A feature that is the same in all arms has no correlation: nan.
    """
    rows = []
    for feature in features:
        found, counts = [], []
        for _, seed in frame.groupby("seed"):
            known = seed[[feature, outcome]].dropna()
            counts.append(len(known))
            varied = len(known) >= FEWEST and bool((known.nunique() > 1).all())
            found.append(float(spearmanr(known[feature], known[outcome]).statistic) if varied else math.nan)
        interval = stats.t_interval(found, confidence)
        rows.append(
            {
                "feature": feature,
                "correlation": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "n_arms": min(counts),
                "n_seeds": len(found),
            }
        )
    return pd.DataFrame(rows)


def by_arm(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its pair, and the mean over seeds of everything else. Arms lacking a feature are left out.

    What is undefined for one seed, such as a recovery without a lead, is undefined in the mean.
    """
    numbers = frame.drop(columns="seed").groupby(["arm", "pair"], sort=False).mean(numeric_only=True, skipna=False)
    return numbers.dropna(subset=[*FEATURES, "gain"]).reset_index()


def leave_one_out(frame: pd.DataFrame) -> pd.DataFrame:
    """How well the gain of a pair of models is predicted from the runs of all other pairs.

    One row per linear model of LINES: model, error (root mean square over arms, share of accuracy), explained
    (1 − its square over that of the mean; at most 1, negative if worse than the mean), n_arms, n_pairs.
    """
    arms = by_arm(frame)
    found = {name: left_out_error(arms, predictors) for name, predictors in LINES.items()}
    baseline = next(iter(found.values()))
    return pd.DataFrame(
        {
            "model": list(found),
            "error": list(found.values()),
            "explained": [1.0 - (error / baseline) ** 2 if baseline else math.nan for error in found.values()],
            "n_arms": len(arms),
            "n_pairs": arms["pair"].nunique(),
        }
    )


def predict(frame: pd.DataFrame, measured: Mapping[str, float], confidence: float = 0.95) -> Prognosis:
    """The gain of a pair with these measured PREDICTORS and `start`, if the runs seen show that it can be predicted.

    Least squares over arms. The interval is Student's t times the error of pairs left out, so it holds the scatter
    between pairs and the uncertainty of the line; it supposes that the new pair is like those seen. All are cut to
    what is possible: an accuracy stays between 0 and 1.
    """
    arms = by_arm(frame)
    error, of_mean = left_out_error(arms, PREDICTORS), left_out_error(arms, ())
    gain = half = math.nan
    if error < of_mean:  # Prognosis.is_of_use
        coefficients = fit(arms, PREDICTORS)
        gain = float(coefficients @ [1.0, *(measured[name] for name in PREDICTORS)])
        half = float(t.ppf((1 + confidence) / 2, arms["pair"].nunique() - len(coefficients))) * error
    gain, low, high = np.clip([gain, gain - half, gain + half], -measured["start"], 1.0 - measured["start"]).tolist()
    beyond = [name for name in PREDICTORS if not arms[name].min() <= measured[name] <= arms[name].max()]
    return Prognosis(
        gain=gain,
        low=low,
        high=high,
        error=error,
        error_of_mean=of_mean,
        n_arms=len(arms),
        outside=tuple(beyond),
    )


def nearest(frame: pd.DataFrame, measured: Mapping[str, float], n: int = 3) -> pd.DataFrame:
    """The n arms most like what was measured, with distance and outcome: arm, distance, FEATURES, start, OUTCOMES.

    The distance is Euclidean over the features, each in standard deviations over the arms.
    """
    arms = by_arm(frame)
    varied = [name for name in FEATURES if arms[name].std(ddof=0) > 0]
    here = pd.Series({name: measured[name] for name in varied})
    scaled = (arms[varied] - here) / arms[varied].std(ddof=0)
    arms["distance"] = np.sqrt((scaled**2).sum(axis=1, skipna=False))
    return arms.sort_values("distance", kind="stable").head(n)[["arm", "distance", *FEATURES, "start", *OUTCOMES]]


def left_out_error(arms: pd.DataFrame, predictors: Sequence[str]) -> float:
    """Root mean square error of the gain of arms whose pair was left out; nan with too few pairs to fit a line."""
    squares = []
    for pair in arms["pair"].unique():
        others, left = arms[arms["pair"] != pair], arms[arms["pair"] == pair]
        if others["pair"].nunique() <= len(predictors) + 1:
            return math.nan
        predicted = design(left, predictors) @ fit(others, predictors)
        squares += [float(value) for value in (left["gain"].to_numpy() - predicted) ** 2]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan


def fit(arms: pd.DataFrame, predictors: Sequence[str]) -> np.ndarray:
    """Least-squares coefficients of the gain: the constant, then one per predictor."""
    coefficients: np.ndarray = np.linalg.lstsq(design(arms, predictors), arms["gain"].to_numpy(dtype=float))[0]
    return coefficients


def design(arms: pd.DataFrame, predictors: Sequence[str]) -> np.ndarray:
    """A column of ones and one per predictor."""
    return np.column_stack([np.ones(len(arms)), *(arms[name].to_numpy(dtype=float) for name in predictors)])
