"""How sure a number is: intervals over seeds (Student t) and over problems (paired bootstrap), and what they decide.

Seeds are few, so their interval is Student's: with three seeds a 95 % percentile bootstrap covers about 75 %.
Problems are many and shared by the two conditions compared, so theirs is a bootstrap of paired differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import scipy

TAIL_RESAMPLES = 100  # a bound is known to a tenth of its tail's probability
FEWEST_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate, its interval in the same unit, and how many independent values stand behind it.

    With too few values the bounds are nan: every comparison with them is false, so nothing is concluded.
    `standard_error`: the standard deviation of the estimate from repetition to repetition, in the same unit (of a
    prediction: of a new value's distance from it); nan where it is not known.
    """

    estimate: float
    low: float
    high: float
    n: int
    standard_error: float = math.nan

    @property
    def half_width(self) -> float:
        """Half the length of the interval, in the unit of the estimate."""
        return (self.high - self.low) / 2


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values (seeds) lies in this interval in a share `confidence` of repetitions.

    One value has bounds nan; a nan among the values makes everything nan. Raises ValueError without values.
    Source: Student's t; exact for normal values.
    """
    return _student(values, confidence, spread=lambda n: math.sqrt(1 / n))


def prediction_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """One new independent value lies in this interval in a share `confidence` of repetitions.

    Wider than `t_interval`, for the new value scatters too: sqrt(1 + 1/n) instead of sqrt(1/n).
    """
    return _student(values, confidence, spread=lambda n: math.sqrt(1 + 1 / n))


def detectable(standard_error: float, confidence: float, df: float = math.inf, power: float = 0.8) -> float:
    """How far beyond a bound the truth must lie for the whole interval to lie there in a share `power` of repetitions.

    The smallest effect that is decided, in the unit of `standard_error`, which is taken for the true one; nan if it is.
    The interval is two-sided at `confidence`. With `df` degrees of freedom it is Student's (`t_interval` of n values:
    n − 1), and (estimate − bound) / standard error is noncentral t: exact for normal values. With infinitely many
    estimate and quantile are normal, as for a bootstrap over many problems.
    Raises ValueError for a power that an effect of zero has already.

    >>> round(detectable(1, 0.95), 2), round(detectable(1, 0.95, df=4), 2)
    (2.8, 3.76)
    """
    _require_confidence(confidence)
    if not (1 - confidence) / 2 < power < 1:
        raise ValueError(f"power is {power}; give a share between {(1 - confidence) / 2:g} and 1, for example 0.8")
    return math.nan if math.isnan(standard_error) else standard_error * _shift(df, confidence, power)


def simultaneous_confidence(confidence: float, n_claims: int) -> float:
    """At this level each, `n_claims` intervals are right together with at least `confidence` (Bonferroni)."""
    _require_confidence(confidence)
    if n_claims < 1:
        raise ValueError(f"n_claims is {n_claims}; a family of claims has at least one")
    return 1 - (1 - confidence) / n_claims


def paired_cluster_bootstrap(
    first: pd.Series,
    second: pd.Series,
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> Interval:
    """mean(first) − mean(second) over the same problems, with its interval under a new draw of problems.

    Both series hold one accuracy per problem (share of its samples that are correct), indexed by problem; so
    a problem is drawn with all its samples and in both conditions at once. Percentile bootstrap, with as many
    resamples as `resamples_for(confidence)`. Raises ValueError when the problems differ, repeat, or are fewer than two.
    """
    _require_confidence(confidence)
    if first.index.has_duplicates or second.index.has_duplicates or set(first.index) != set(second.index):
        raise ValueError("the two conditions must hold the same problems, each once; index both series by problem")
    difference_P = (first - second.reindex(first.index)).to_numpy(dtype=float)
    if len(difference_P) < 2:
        raise ValueError(f"{len(difference_P)} problem(s) cannot be resampled; give at least two")
    draws = scipy.stats.bootstrap(
        (difference_P,),
        np.mean,
        n_resamples=resamples_for(confidence),
        batch=1_000,
        confidence_level=confidence,
        method="percentile",
        rng=generator,
    )
    low, high = draws.confidence_interval
    estimate, n = float(difference_P.mean()), len(difference_P)
    return Interval(
        estimate=estimate, low=float(low), high=float(high), n=n, standard_error=float(draws.standard_error)
    )


def resamples_for(confidence: float) -> int:
    """How many resamples resolve a percentile interval: TAIL_RESAMPLES beyond each of its bounds, 10,000 at least.

    >>> resamples_for(0.95), resamples_for(0.999)
    (10000, 200000)
    """
    _require_confidence(confidence)
    return max(FEWEST_RESAMPLES, round(TAIL_RESAMPLES / ((1 - confidence) / 2)))


def gap_recovery(before: float, after: float, teacher: float) -> float:
    """(after − before) / (teacher − before): the share of the teacher's lead that a student gained; NaN without a lead.

    Source: arXiv 2604.13016 §3.2.

    >>> round(gap_recovery(0.4, 0.7, 0.8), 3)
    0.75
    """
    return (after - before) / (teacher - before) if teacher > before else math.nan


def _student(values: Sequence[float], confidence: float, spread: Callable[[int], float]) -> Interval:
    _require_confidence(confidence)
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("no values: an interval needs at least one")
    mean = float(array.mean())
    if array.size == 1:
        return Interval(estimate=mean, low=math.nan, high=math.nan, n=1)
    quantile = float(scipy.stats.t.ppf((1 + confidence) / 2, array.size - 1))
    sd, share = float(array.std(ddof=1)), spread(array.size)
    half = quantile * sd * share
    return Interval(estimate=mean, low=mean - half, high=mean + half, n=array.size, standard_error=sd * share)


@lru_cache
def _shift(df: float, confidence: float, power: float) -> float:
    """`detectable` in standard errors: the noncentrality at which t exceeds the interval's quantile with `power`."""
    quantile = float(scipy.stats.t.ppf((1 + confidence) / 2, df))
    if math.isinf(df):
        return quantile + float(scipy.stats.norm.ppf(power))
    # t = (z + shift) / u: at this shift both z > −a and u < b, which suffices, are as likely as the root of the power
    a, b = scipy.stats.norm.ppf(math.sqrt(power)), math.sqrt(scipy.stats.chi2.ppf(math.sqrt(power), df) / df)
    found = scipy.optimize.brentq(lambda shift: scipy.stats.nct.sf(quantile, df, shift) - power, 0, quantile * b + a)
    return float(found)


def _require_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, for example 0.95")
