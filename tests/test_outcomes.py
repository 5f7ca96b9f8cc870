"""Outcomes of runs against what can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_lib.judge import outcomes

NAN = math.nan


def evaluations(curves: dict[tuple[str, int], list[float]], every: int = 20) -> pd.DataFrame:
    """Two test sets 0.1 to either side of each accuracy."""
    rows = [
        {"arm": arm, "seed": seed, "step": every * place, "test_set": name, "accuracy": value + side}
        for (arm, seed), values in curves.items()
        for place, value in enumerate(values)
        for name, side in (("chain-4", 0.1), ("chain-3", -0.1))
    ]
    return pd.DataFrame(rows)


EVALS = evaluations(
    {
        ("success", 0): [0.2, 0.3, 0.5, 0.6, 0.7],
        ("success", 1): [0.3, 0.4, 0.4, 0.4, 0.4],
        ("failure", 0): [0.5, 0.4, 0.4, 0.4, 0.4],
    }
)
MODELS = evaluations({("strong", 0): [0.1, 0.8], ("strong", 1): [0.8, 0.5], ("weak", 0): [0.9, 0.45]})


def test_accuracy_ends_with_the_last_three_evaluations():
    assert outcomes.accuracy(EVALS).round(12).values.tolist() == [
        ["success", 0, 0.2, 0.6, 0.4],
        ["success", 1, 0.3, 0.4, 0.1],
        ["failure", 0, 0.5, 0.4, -0.1],
    ]


def test_recovery_is_the_share_of_the_lead_and_undefined_without_one():
    found = outcomes.recovery(EVALS, MODELS, {"success": "strong", "failure": "weak"})
    assert found["teacher"].tolist() == pytest.approx([0.8, 0.5, 0.45])
    assert found["recovery"].tolist() == pytest.approx([0.4 / 0.6, 0.1 / 0.2, NAN], nan_ok=True)
    alone = outcomes.recovery(EVALS, MODELS, {"failure": "weak"}).set_index(["arm", "seed"])
    assert alone.loc["success", ["teacher", "recovery"]].isna().all(axis=None)
    assert alone["gain"].tolist() == found["gain"].tolist()


def test_a_teacher_without_evaluations_is_refused():
    with pytest.raises(ValueError, match=r"teachers \['stronger'\] have no evaluations; there are strong, weak; give"):
        outcomes.recovery(EVALS, MODELS, {"success": "stronger"})


def test_initial_values_are_those_of_the_first_step_of_each_run():
    steps = pd.DataFrame(
        {"arm": ["b", "b", "a", "a"], "seed": [0, 0, 1, 1], "step": [2, 1, 5, 6], "kl": [9.0, 0.1, 0.2, 9.0], "x": 7}
    )
    assert outcomes.initial(steps, ["kl"]).to_dict("list") == {"arm": ["b", "a"], "seed": [0, 1], "kl": [0.1, 0.2]}


def counted(rows: pd.DataFrame) -> tuple[float, int]:
    """Wins of the right over the wrong, ties half, and the number of pairs: one by one."""
    right, wrong = (rows[rows["correct"] == label]["reward_mean"] for label in (1.0, 0.0))
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in right for b in wrong)
    return wins, len(right) * len(wrong)


def responses(n: int = 60, seed: int = 5) -> pd.DataFrame:
    """Rewards with many ties, that depend on length and a little on being right."""
    generator = np.random.default_rng(seed)
    correct = generator.integers(0, 2, n)
    length = generator.integers(10, 40, n) - 6 * correct
    reward = np.round(-length / 40 + 0.1 * correct + generator.normal(0, 0.15, n), 1)
    return pd.DataFrame(
        {"arm": "success", "seed": 0, "batch": 0, "reward_mean": reward, "correct": correct * 1.0, "length": length}
    )


def test_auroc_counts_pairs_and_ties_half():
    rows = responses()
    wins, pairs = counted(rows)
    found = outcomes.auroc(rows).iloc[0]
    assert rows["reward_mean"].duplicated().any()
    assert found["auroc"] == pytest.approx(wins / pairs, abs=1e-12)
    assert found["n_correct"] * found["n_wrong"] == pairs
    assert found["mean_correct"] == pytest.approx(rows.query("correct == 1")["reward_mean"].mean())
    assert found["mean_wrong"] == pytest.approx(rows.query("correct == 0")["reward_mean"].mean())


def test_auroc_within_length_compares_only_responses_of_one_third():
    rows = responses()
    short, long = rows["length"].quantile([1 / 3, 2 / 3])
    parts = [rows["length"] <= short, (rows["length"] > short) & (rows["length"] <= long), rows["length"] > long]
    wins, pairs = np.sum([counted(rows[part]) for part in parts], axis=0)
    assert all(part.any() for part in parts)
    assert outcomes.auroc(rows)["auroc_within_length"].iloc[0] == pytest.approx(wins / pairs, abs=1e-12)


def test_a_reward_that_only_knows_length_tells_nothing_within_length():
    lengths = [10] * 30 + [20] * 30 + [30] * 30
    right = [1.0] * 25 + [0.0] * 5 + [1.0] * 15 + [0.0] * 15 + [1.0] * 5 + [0.0] * 25
    rows = pd.DataFrame({"arm": "a", "seed": 0, "correct": right, "length": lengths})
    found = outcomes.auroc(rows.assign(reward_mean=-rows["length"] / 10)).iloc[0]
    assert found["auroc"] > 0.75
    assert found["auroc_within_length"] == 0.5


def test_a_response_of_which_nobody_knows_whether_it_is_right_is_not_wrong():
    known = pd.DataFrame({"correct": [1.0, 0.0, 1.0, 0.0], "reward_mean": [-1.0, -2.0, -3.0, -4.0]})
    rows = known.assign(arm="a", seed=0, length=[9, 9, 9, 9])
    unknown = rows.assign(correct=float("nan"), reward_mean=9.0)
    found = outcomes.auroc(pd.concat([unknown, rows], ignore_index=True)).iloc[0]
    assert found["auroc"] == 0.75 == found["auroc_within_length"] and found["n_wrong"] == 2
    assert outcomes.auroc(unknown)[["auroc", "auroc_within_length"]].isna().all(axis=None)


def test_auroc_is_per_run_and_undefined_without_pairs():
    rows = responses()
    other = rows.assign(seed=1, reward_mean=-rows["reward_mean"])
    none = rows.assign(arm="failure", correct=1.0)
    found = outcomes.auroc(pd.concat([rows, other, none], ignore_index=True))
    assert found[["arm", "seed"]].values.tolist() == [["success", 0], ["success", 1], ["failure", 0]]
    assert found["auroc"].iloc[1] == pytest.approx(1 - found["auroc"].iloc[0])
    assert found[["auroc", "auroc_within_length", "mean_wrong"]].iloc[2].isna().all()


def entropies(values: dict[int, list[float]], step_order: list[int]) -> pd.DataFrame:
    rows = [
        {"arm": "a", "seed": 0, "step": step, "depth": 8 * place, "entropy": value, "n_tokens": 99}
        for step in step_order
        for place, value in reversed(list(enumerate(values[step])))
    ]
    return pd.DataFrame(rows)


def test_onset_is_the_first_position_that_has_risen_since_the_first_step():
    first = [1.0, 2.0, 3.0]  # standard deviation 1: a rise ends above 4, 5 and 6
    depth = entropies(
        {1: first, 10: [1.0, 5.1, 9.0], 20: [4.2, 1.0, 5.3], 30: [4.0, 5.0, 6.0], 40: [6.0]}, [20, 1, 30, 10, 40]
    )
    found = outcomes.onset(depth, "entropy")
    assert found["step"].tolist() == [1, 10, 20, 30, 40]
    assert found["onset"].tolist() == pytest.approx([NAN, 8.0, 0.0, NAN, 0.0], nan_ok=True)


def test_a_bucket_of_a_few_tokens_has_no_onset():
    depth = entropies({1: [1.0, 2.0, 3.0], 10: [1.0, 9.0, 9.0]}, [1, 10])
    depth.loc[depth["depth"] == 8, "n_tokens"] = outcomes.FEWEST_TOKENS - 1
    assert outcomes.onset(depth, "entropy")["onset"].tolist() == pytest.approx([NAN, 16.0], nan_ok=True)


def test_one_position_has_no_onset():
    assert outcomes.onset(entropies({1: [1.0], 10: [99.0]}, [1, 10]), "entropy")["onset"].isna().all()


def test_tokens_accumulate_within_each_run():
    steps = pd.DataFrame(
        {"arm": ["b", "a", "b", "a"], "seed": 0, "step": [1, 1, 2, 2], "n_tokens": [10, 1, 20, 2], "loss": 0.5}
    )
    found = outcomes.cumulative(steps)
    assert found["arm"].unique().tolist() == ["b", "a"]  # the order of arms, and so of colours, stays
    assert found.set_index(["arm", "step"])["tokens"].to_dict() == {
        ("b", 1): 10,
        ("a", 1): 1,
        ("b", 2): 30,
        ("a", 2): 3,
    }


def test_caps_are_those_of_the_first_and_the_last_evaluation():
    rows = [
        {"arm": "a", "seed": 0, "step": step, "test_set": name, "cap": cap, "accuracy": step / 100 + cap / 1000 + side}
        for step in (0, 20, 40)
        for name, side in (("chain-3", 0.1), ("chain-4", -0.1))
        for cap in (8, 16)
    ]
    found = outcomes.caps(pd.DataFrame(rows)).set_index(["when", "cap"])
    assert found["accuracy"].to_dict() == pytest.approx(
        {("before", 8): 0.008, ("before", 16): 0.016, ("after", 8): 0.408, ("after", 16): 0.416}
    )
    assert found["step"].tolist() == [0, 0, 40, 40]
