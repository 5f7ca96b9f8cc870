"""When something happens in a run and what was spent by then, against curves made by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from opd_lib.judge import moments, vocabulary
from opd_lib.judge.quantities import Evidence, SeedView

NOTEBOOK = "22_collapse"


def view(
    accuracy: dict[int, float], more: dict[str, dict[int, float]] | None = None, **columns: list[float]
) -> SeedView:
    """One seed: `plain` with these accuracies by step, and columns logged at every step from 1 on."""
    arms = {"plain": accuracy, **(more or {})}
    evals = [
        {"arm": arm, "seed": 0, "step": step, "test_set": test_set, "accuracy": value + shift}
        for arm, curve in arms.items()
        for step, value in curve.items()
        for test_set, shift in (("chain-3", 0.05), ("chain-4", -0.05))
    ]
    length = max(map(len, columns.values()), default=0)
    steps: list[dict[str, Any]] = [
        {"arm": "plain", "seed": 0, "step": i + 1} | {name: values[i] for name, values in columns.items()}
        for i in range(length)
    ]
    tables = {"evals": pd.DataFrame(evals), "steps": pd.DataFrame(steps)}
    return SeedView(evidence=Evidence(profile="tiny", experiments={NOTEBOOK: tables}), experiment=NOTEBOOK, seed=0)


RISE_AND_FALL = {0: 0.5, 10: 0.7, 20: 0.8, 30: 0.66, 40: 0.2}


def test_the_mean_is_of_the_first_part_and_leaves_the_start_out() -> None:
    curve = view(RISE_AND_FALL)
    assert moments.accuracy_mean(curve, "plain") == pytest.approx((0.7 + 0.8 + 0.66 + 0.2) / 4)
    assert moments.accuracy_mean(curve, "plain", 0.5) == pytest.approx(0.75)
    assert math.isnan(moments.accuracy_mean(curve, "plain", 0.1))
    assert moments.accuracy_max(curve, "plain") == pytest.approx(0.8)


@pytest.mark.parametrize(("factor", "step"), [(0.9, 30), (0.8, 40), (0.2, 50)])
def test_accuracy_is_held_to_its_peak_so_far(factor: float, step: int) -> None:
    assert moments.crossing(view(RISE_AND_FALL), "plain", "accuracy", factor) == step


@pytest.mark.parametrize(
    ("values", "factor", "step"),
    [
        ([1.0] * 12 + [2.0] * 28, 1.5, 20),  # the mean of five is 1.6 at step 15: seen at the next evaluation
        ([1.0] * 12 + [2.0] + [1.0] * 27, 1.5, 50),  # one value is no crossing
        ([1.0] * 20 + [0.5] * 20, 0.95, 30),
        ([1.0] * 40, 1.5, 50),
        ([1.0] * 40, 0.95, 50),
    ],
)
def test_a_column_is_held_to_its_first_value_and_counted_in_evaluations(
    values: list[float], factor: float, step: int
) -> None:
    assert moments.crossing(view(RISE_AND_FALL, hedge_share=values), "plain", "hedge_share", factor) == step


def test_what_never_crosses_does_so_behind_the_last_evaluation_so_that_a_lead_is_never_invented() -> None:
    quiet = view(RISE_AND_FALL, hedge_share=[1.0] * 40)
    lead = "crossing('plain', 'accuracy', 0.8) - crossing('plain', 'hedge_share', 1.5)"
    assert vocabulary.value_of(lead, quiet) == 40 - 50


def test_tokens_are_counted_up_to_the_evaluation_that_reaches_the_share() -> None:
    other = {"teacher": {0: 0.8}}
    curve = view(RISE_AND_FALL, other, n_tokens=[100.0] * 40)
    assert moments.tokens_to(curve, "plain", 0.95, "teacher") == 2000
    assert moments.tokens_to(curve, "plain", 0.6, "teacher") == 0, "there from the start"
    assert moments.tokens_to(curve, "plain", 1.2, "teacher") == 4000, "never: all that was sampled"
