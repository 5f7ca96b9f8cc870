"""Intervals cover what they say they cover."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import integrate
from scipy import stats as scipy_stats

from opd_lib.maths import stats


def share_covering(interval, truth: float) -> float:
    generator = np.random.default_rng(20260413)
    samples = generator.normal(size=(2_000, 5))
    found = [interval(list(sample), 0.95) for sample in samples]
    return float(np.mean([i.low <= truth <= i.high for i in found]))


def test_t_interval_covers_the_mean_at_five_seeds():
    assert abs(share_covering(stats.t_interval, truth=0.0) - 0.95) < 0.015


def test_prediction_interval_covers_a_new_seed():
    generator = np.random.default_rng(7)
    draws = generator.normal(loc=3.0, scale=2.0, size=(2_000, 6))
    ranges = [stats.prediction_interval(list(draw[:5]), 0.95) for draw in draws]
    hits = np.mean([r.low <= draw[5] <= r.high for r, draw in zip(ranges, draws, strict=True)])
    assert abs(hits - 0.95) < 0.015


def test_intervals_equal_the_textbook():
    values = [0.1, 0.4, 0.3, 0.8]
    low, high = scipy_stats.t.interval(0.9, 3, loc=np.mean(values), scale=scipy_stats.sem(values))
    mean = stats.t_interval(values, 0.9)
    new = stats.prediction_interval(values, 0.9)
    assert (mean.low, mean.high) == pytest.approx((low, high))
    assert new.half_width / mean.half_width == pytest.approx(math.sqrt(1 + 4))
    assert mean.n == 4 and mean.estimate == pytest.approx(0.4)


def test_one_value_has_no_bounds_and_equal_values_have_equal_ones():
    alone = stats.t_interval([0.5])
    assert alone.estimate == 0.5 and math.isnan(alone.low) and math.isnan(alone.high) and alone.n == 1
    same = stats.t_interval([0.5, 0.5, 0.5])
    assert (same.low, same.high) == (0.5, 0.5)
    assert math.isnan(stats.t_interval([0.5, math.nan, 0.4]).low)


def test_bonferroni():
    assert stats.simultaneous_confidence(0.95, 1) == pytest.approx(0.95)
    assert stats.simultaneous_confidence(0.95, 25) == pytest.approx(0.998)


def two_conditions(n_problems: int = 200) -> tuple[pd.Series, pd.Series]:
    """Hard and easy problems, each answered 16 times under both conditions."""
    generator = np.random.default_rng(11)
    difficulty = generator.uniform(0.1, 0.9, n_problems)
    accuracies = [generator.binomial(16, np.clip(difficulty + gain, 0, 1)) / 16 for gain in (0.05, 0.0)]
    names = [f"p{i}" for i in range(n_problems)]
    return pd.Series(accuracies[0], index=names), pd.Series(accuracies[1], index=names)


def test_bootstrap_agrees_with_the_normal_theory_of_paired_differences():
    first, second = two_conditions()
    found = stats.paired_cluster_bootstrap(first, second, np.random.default_rng(0))
    half = 1.96 * float((first - second).std(ddof=1)) / math.sqrt(len(first))
    assert found.estimate == pytest.approx(float((first - second).mean()))
    assert found.half_width == pytest.approx(half, rel=0.06)
    assert found.n == 200


def test_bootstrap_is_paired_by_name_and_repeats_with_its_generator():
    first, second = two_conditions()
    shuffled = second.sample(frac=1, random_state=3)
    one, two = (stats.paired_cluster_bootstrap(first, other, np.random.default_rng(5)) for other in (second, shuffled))
    assert one == two
    assert one != stats.paired_cluster_bootstrap(first, second, np.random.default_rng(6))
    unpaired = math.hypot(first.std(), second.std()) * 1.96 / math.sqrt(len(first))
    assert one.half_width < 0.6 * unpaired


def test_bootstrap_covers_the_mean_difference_of_all_problems():
    generator = np.random.default_rng(20260413)
    differences = generator.normal(loc=0.1, scale=0.3, size=(200, 40))
    zero = pd.Series(np.zeros(40))
    found = [stats.paired_cluster_bootstrap(pd.Series(row), zero, generator) for row in differences]
    assert 0.90 < np.mean([i.low <= 0.1 <= i.high for i in found]) < 0.98


def test_bootstrap_resolves_the_tails_of_a_family_of_claims():
    """Beyond each bound lie enough resamples, at 95 % and where Bonferroni asks for far less than one in 10,000."""
    for n_claims in (1, 25, 75, 1000):
        confidence = stats.simultaneous_confidence(0.95, n_claims)
        assert stats.resamples_for(confidence) * (1 - confidence) / 2 >= 100 - 1e-6
    assert stats.resamples_for(0.95) == 10_000
    first, second = two_conditions()
    wide = stats.paired_cluster_bootstrap(
        first, second, np.random.default_rng(0), stats.simultaneous_confidence(0.95, 75)
    )
    half = float(scipy_stats.norm.ppf(1 - 0.025 / 75) * (first - second).std(ddof=1)) / math.sqrt(len(first))
    assert wide.half_width == pytest.approx(half, rel=0.06)


def power_of(shift: float, df: float, confidence: float) -> float:
    """P(t > quantile) of t = (z + shift) / u, integrated over u² ~ χ²/df: the definition, without a noncentral t."""
    quantile = scipy_stats.t.ppf((1 + confidence) / 2, df)

    def at(x: float) -> float:
        return float(scipy_stats.norm.cdf(shift - quantile * math.sqrt(x / df)) * scipy_stats.chi2.pdf(x, df))

    return float(integrate.quad(at, 0, math.inf, epsabs=1e-12, limit=500)[0])


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("n_claims", [1, 75, 1000])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
def test_a_detectable_effect_is_decided_with_its_power(n: int, n_claims: int, power: float) -> None:
    confidence = stats.simultaneous_confidence(0.95, n_claims)
    shift = stats.detectable(1.0, confidence, df=n - 1, power=power)
    assert power_of(shift, n - 1, confidence) == pytest.approx(power, abs=1e-6)
    assert stats.detectable(0.25, confidence, df=n - 1, power=power) == pytest.approx(shift / 4)


def test_detectable_effects_of_textbooks_and_of_none() -> None:
    """Cohen's d of a one-sample t-test with ten values, .05 two-sided, power .8 is 0.996; normal: 1.960 + 0.842."""
    assert stats.detectable(1 / math.sqrt(10), 0.95, df=9) == pytest.approx(0.996, abs=5e-4)
    assert stats.detectable(1.0, 0.95) == pytest.approx(1.959964 + 0.841621, abs=1e-6)
    assert stats.detectable(1.0, 0.95, df=1e6) == pytest.approx(stats.detectable(1.0, 0.95), abs=1e-4)
    assert stats.detectable(0.0, 0.95, df=4) == 0 and math.isnan(stats.detectable(math.nan, 0.95, df=0))
    assert stats.detectable(1.0, 0.95, power=0.025 + 1e-9) == pytest.approx(0, abs=1e-6)


def test_four_of_five_simulated_experiments_decide_a_detectable_effect() -> None:
    """Ten seeds, sd 2: the whole interval of 75 claims lies above the bound in a share .8 of experiments."""
    confidence, generator = stats.simultaneous_confidence(0.95, 75), np.random.default_rng(20260413)
    effect = stats.detectable(2 / math.sqrt(10), confidence, df=9)
    draws = generator.normal(loc=3.0 + effect, scale=2.0, size=(4_000, 10))
    decided = np.mean([stats.t_interval(list(draw), confidence).low > 3.0 for draw in draws])
    assert abs(decided - 0.8) < 0.02


def test_over_problems_four_of_five_bootstraps_decide_a_detectable_effect() -> None:
    generator, zero = np.random.default_rng(20260413), pd.Series(np.zeros(200))
    effect = stats.detectable(0.3 / math.sqrt(200), 0.95)
    draws = generator.normal(loc=effect, scale=0.3, size=(300, 200))
    found = [stats.paired_cluster_bootstrap(pd.Series(draw), zero, generator) for draw in draws]
    assert abs(np.mean([each.low > 0 for each in found]) - 0.8) < 0.07
    assert np.mean([each.standard_error for each in found]) == pytest.approx(0.3 / math.sqrt(200), rel=0.02)


def test_an_interval_knows_its_standard_error() -> None:
    values = [0.1, 0.4, 0.3, 0.8]
    error = float(scipy_stats.sem(values))
    assert stats.t_interval(values).standard_error == pytest.approx(error)
    assert stats.prediction_interval(values).standard_error == pytest.approx(error * math.sqrt(5))
    assert math.isnan(stats.t_interval([0.5]).standard_error)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.t_interval([]), "no values"),
        (lambda: stats.detectable(1.0, 0.95, power=0.025), "power is 0.025; give a share between 0.025 and 1"),
        (lambda: stats.detectable(1.0, 0.95, power=1.0), "power is 1.0"),
        (lambda: stats.detectable(1.0, 95), "0.95"),
        (lambda: stats.resamples_for(1.0), "0.95"),
        (lambda: stats.t_interval([1.0, 2.0], confidence=95), "0.95"),
        (lambda: stats.simultaneous_confidence(0.95, 0), "n_claims"),
        (
            lambda: stats.paired_cluster_bootstrap(
                pd.Series([1.0, 0.0], index=["a", "b"]),
                pd.Series([1.0, 0.0], index=["a", "c"]),
                np.random.default_rng(0),
            ),
            "same problems",
        ),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_gap_recovery_is_a_share_of_a_lead_that_exists():
    assert stats.gap_recovery(0.4, 0.7, 0.8) == pytest.approx(0.75)
    assert stats.gap_recovery(0.4, 0.3, 0.8) == pytest.approx(-0.25)
    assert math.isnan(stats.gap_recovery(0.4, 0.5, 0.4))
    assert math.isnan(stats.gap_recovery(0.6, 0.5, 0.4))
