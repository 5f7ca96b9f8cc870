"""Intervals cover what they say they cover."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
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


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.t_interval([]), "no values"),
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
