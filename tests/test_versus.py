"""Methods side by side: what an interval of a difference speaks for, against one reference, and what runs spent."""

from __future__ import annotations

import math
from pathlib import Path

import micro
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from opd_lib import methods, params
from opd_lib.judge import versus
from opd_lib.records import record
from opd_lib.report import budgets

NAME = "94_side_by_side"
PROFILES = ("tiny", "smoke", "tiny-next")


def answers(lead: float, noise: float = 0.0, seeds: int = 5) -> pd.DataFrame:
    """Tables of two arms: at each of 40 problems `mine` is better by about `lead` after the start."""
    draws, rows = np.random.default_rng(1), []
    for arm in ("mine", "theirs"):
        for seed in range(seeds):
            shift = (lead if arm == "mine" else 0.0) + noise * draws.standard_normal()
            for step in (0, 10, 20, 30, 40):
                for problem in range(40):
                    share = 0.5 if step == 0 else 0.5 + shift + 0.01 * math.sin(problem + (arm == "mine"))
                    rows.append((arm, seed, step, "chain-3", problem, 1000 * share, 1000))
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "test_set", "problem", "n_correct", "n_samples"])


def test_a_lead_is_found_with_its_size_and_speaks_for_what_was_drawn() -> None:
    found = versus.versus(answers(0.1, noise=0.01), "mine", "theirs")
    assert list(found["interval over"]) == ["seeds", "problems"] * 2 and list(found["n"]) == [5, 40] * 2
    assert (
        np.allclose(found["difference"], found["difference"].iloc[0]) and abs(found["difference"].iloc[0] - 0.1) < 0.02
    )
    assert set(found["verdict"]) == {versus.BETTER}
    turned = versus.versus(answers(0.1, noise=0.01), "theirs", "mine")
    assert set(turned["verdict"]) == {versus.WORSE}
    assert np.allclose(turned["low"], -found["high"], atol=1e-3)


def test_noise_between_seeds_leaves_it_open_and_problems_do_not_know_of_it() -> None:
    found = versus.versus(answers(0.02, noise=0.05), "mine", "theirs").set_index("interval over")
    assert set(found.loc["seeds", "verdict"]) == {versus.OPEN}
    width = found["high"] - found["low"]
    assert width["seeds"].min() > 10 * width["problems"].max() > 0


def test_one_seed_decides_nothing_over_seeds_and_more_tries_widen_every_interval() -> None:
    alone = versus.versus(answers(0.3, seeds=1), "mine", "theirs").set_index("interval over")
    assert set(alone.loc["seeds", "verdict"]) == {versus.OPEN} and alone.loc["seeds", "low"].isna().all()
    once, often = (versus.versus(answers(0.1, noise=0.02), "mine", "theirs", tries=tries) for tries in (1, 20))
    by_seed = once["interval over"] == "seeds"
    assert (often["high"] - often["low"] > once["high"] - once["low"])[by_seed].all()
    with pytest.raises(ValueError, match="nobody and theirs have no seed in common"):
        versus.versus(answers(0.1), "nobody", "theirs")


@pytest.mark.parametrize("tries", [1, 5])
def test_all_four_intervals_of_all_tries_hold_together_with_95_percent(tries: int) -> None:
    """Each has the level 1 − 0.05 / (4 · tries): Student's t by its formula, and quantiles of draws made here."""
    problems = answers(0.02, noise=0.05)
    found = versus.versus(problems, "mine", "theirs", tries=tries).set_index(["quantity", "interval over"])
    tail = 0.05 / (4 * tries) / 2
    accuracy = problems.assign(accuracy=problems["n_correct"] / 1000).query("step > 0")
    pairs = accuracy.pivot_table(index="problem", columns=["arm", "seed"], values="accuracy")
    difference = pairs["mine"] - pairs["theirs"]
    by_seed = difference.mean()
    half = student.ppf(1 - tail, df=4) * by_seed.std(ddof=1) / math.sqrt(5)
    row = found.loc[("on the way", "seeds")]
    assert np.allclose([row["low"], row["high"]], [by_seed.mean() - half, by_seed.mean() + half], rtol=1e-9)
    by_problem = difference.mean(axis=1).to_numpy()
    drawn = by_problem[np.random.default_rng(7).integers(0, 40, (200_000, 40))].mean(axis=1)
    expected, row = np.quantile(drawn, [tail, 1 - tail]), found.loc[("on the way", "problems")]
    assert np.allclose([row["low"], row["high"]], expected, rtol=0, atol=0.03 * (expected[1] - expected[0]))


@pytest.mark.parametrize("spoil", ["arm == 'mine' and step == 40", "arm == 'mine' and seed == 3 and step == 10"])
def test_arms_that_were_not_evaluated_at_the_same_steps_are_not_compared(spoil: str) -> None:
    problems = answers(0.1)
    with pytest.raises(ValueError, match=r"mine/seed\d was evaluated at .*theirs/seed0|mine/seed0.* mine/seed3 at"):
        versus.versus(problems.drop(problems.query(spoil).index), "mine", "theirs")


def several(*leads: float) -> pd.DataFrame:
    """The reference `theirs`, and an arm for each lead."""
    found = [answers(lead, noise=0.02) for lead in leads]
    mine = [frame[frame["arm"] == "mine"].assign(arm=f"arm{place}") for place, frame in enumerate(found)]
    return pd.concat([found[0][found[0]["arm"] == "theirs"], *mine])


def test_against_a_reference_every_arm_is_compared_and_all_intervals_hold_together() -> None:
    problems = several(0.1, -0.1)
    found = versus.against(problems, "theirs")
    assert list(found["arm"]) == ["arm0"] * 4 + ["arm1"] * 4
    for arm, rows in found.groupby("arm"):
        alone = versus.versus(problems, str(arm), "theirs", tries=2)
        pd.testing.assert_frame_equal(rows.drop(columns="arm").reset_index(drop=True), alone)
    over_problems = found[found["interval over"] == "problems"]
    assert list(over_problems["verdict"]) == [versus.BETTER] * 2 + [versus.WORSE] * 2
    more = versus.against(problems, "theirs", tries=9)
    pd.testing.assert_frame_equal(more[more["arm"] == "arm0"], versus.against(several(0.1), "theirs", tries=9))


@pytest.mark.parametrize(("reference", "tries", "says"), [("nobody", None, "theirs, arm0"), ("theirs", 1, "2 arms")])
def test_a_reference_that_is_not_there_and_too_few_tries_are_refused(
    reference: str, tries: int | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        versus.against(several(0.1) if tries is None else several(0.1, 0.2), reference, tries)


# --- the notebook's arms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_all_arms_are_those_of_one_pair_and_differ_in_the_method_alone(profile: str) -> None:
    experiment = params.load(NAME, profile)
    published = experiment.arms["published"].said()
    assert published == params.load("92_your_own_method", profile).arms["paper"].said()
    for arm in experiment.arms.values():
        assert arm.said() | {"method": published["method"]} == published
        assert methods.load(arm.method["name"]).needs <= {"teacher", "reward"}


def test_only_some_arms_are_taken_and_their_runs_stay_the_same() -> None:
    whole = params.load(NAME, "smoke", {"arms.mine": {"method.k": 4}})
    some = whole.only(["mine", "vopd", "published"])
    assert list(some.arms) == ["mine", "vopd", "published"] and some.varied == {"mine"}
    assert [spec.identity for spec in some.runs()] == [whole.spec(arm, 0).identity for arm in some.arms]
    assert [spec.folder for spec in some.runs()] == [whole.spec(arm, 0).folder for arm in some.arms]
    with pytest.raises(ValueError, match=r"94_side_by_side\.yaml: no arm 'vodp'; its arms are published, sampled"):
        whole.only(["vodp"])


# --- budgets ---------------------------------------------------------------------------------------------------------


def spent(world: Path, arm: str, columns: str, rows: list[str]) -> record.RunRecord:
    """A finished record of an arm of the smoke profile with these steps."""
    spec = params.load(NAME, "smoke", results=world).spec(arm, 0)
    micro.write_record(spec)
    (spec.folder / "steps.csv").write_text("\n".join([columns, *rows]) + "\n")
    found = record.read(spec.folder)
    assert found is not None
    return found.renamed(NAME, arm)


def test_a_budget_counts_what_each_author_writes_and_what_is_trained_on(tmp_path: Path) -> None:
    """The smoke profile has 4 prompts of 2 responses; `brts` has the teacher write 2 to each."""
    plain = spent(
        tmp_path, "sampled", "step,truncated_share,response_length,n_tokens", ["1,0,10.0,80", "2,0.5,12.5,100"]
    )
    tries = spent(
        tmp_path,
        "eff_opd",
        "step,truncated_share,response_length,n_tokens,tried_tokens",
        ["1,0,10.0,80,0", "2,0,10.0,80,70"],
    )
    columns = "step,truncated_share,response_length,n_tokens,teacher.response_length,teacher.n_tokens"
    both = spent(tmp_path, "brts", columns, ["1,0,10.0,80,5.0,20", "2,0,10.0,80,7.0,30"])
    found = budgets.table([plain, tries, both]).set_index("arm")
    assert list(found["steps"]) == [2, 2, 2] and list(found["n_seeds"]) == [1, 1, 1]
    assert found[budgets.CUT].to_dict() == {"sampled": 0.25, "eff_opd": 0.0, "brts": 0.0}
    assert found[budgets.STUDENT].to_dict() == pytest.approx({"sampled": 0.18, "eff_opd": 0.23, "brts": 0.16})
    assert found[budgets.TEACHER].to_dict() == pytest.approx({"sampled": 0.0, "eff_opd": 0.0, "brts": 8 * 12 / 1000})
    assert found[budgets.TRAINED].to_dict() == pytest.approx({"sampled": 0.18, "eff_opd": 0.16, "brts": 0.21})


def test_the_teachers_responses_are_as_many_as_the_method_asks_for() -> None:
    options, method = params.load(NAME, "smoke").arms["brts"].method_options, methods.load("brts")
    assert method.branches is not None
    for hint, written in (("", 2), ("{question}", 3)):
        (branch,) = method.branches(method.Params(**options | {"hint": hint}))
        assert f"{branch.name}." == budgets.PART and branch.changes["source.per_prompt"] == written
