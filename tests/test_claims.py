"""Verdicts follow from the runs alone, and a claims file that is wrong says where."""

from __future__ import annotations

import math
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from opd_lib import params, paths
from opd_lib.judge import agreement, claims, prognosis, quantities, vocabulary
from opd_lib.judge.quantities import MODELS, Evidence, NoRecordError, SeedView
from opd_lib.judge.statement import Statement
from opd_lib.maths import diagnostics, stats
from opd_lib.params import Experiment
from opd_lib.report import tables

NOTEBOOK = "04_success_and_failure"
STEPS = (1, 2, 3, 4, 5)

CLAIM = """\
  - id: {id}
    figure: "6"
    statement: "Overlap grows."
    paper: {{value: 0.2, text: ".72 to .92", source: text}}
    notebook: 04_success_and_failure
    quantity: "{quantity}"
    comparison: ">"
    threshold: {{tiny: 0.02, smoke: 0.02, paper: 0.15, gpu: 0.02}}
    statistic: {statistic}
    seeds: 3
    note: "none"
"""
GROWTH = "end('success', 'overlap_k16') - start('success', 'overlap_k16')"


def write(folder: Path, *quantity: str, statistic: str = "seeds") -> Path:
    path = folder / "claims.yaml"
    text = "".join(CLAIM.format(id=f"C{i}", quantity=q, statistic=statistic) for i, q in enumerate(quantity))
    path.write_text(f"paper: test\nconfidence: 0.95\nclaims:\n{text}")
    return path


def steps(growths: dict[int, float]) -> pd.DataFrame:
    """seed → growth: overlap is .8 first and .8 + growth on each of the last three of five points."""
    rows = [
        {"arm": "success", "seed": seed, "step": step, "overlap_k16": 0.8 + (growth if step > 2 else 0)}
        for seed, growth in growths.items()
        for step in STEPS
    ]
    return pd.DataFrame(rows)


def evals(curves: dict[str, list[float]], seed: int = 0) -> pd.DataFrame:
    """arm → accuracy at steps 0, 10, 20 …, on two test sets that lie .1 above and below it."""
    rows = [
        {"arm": arm, "seed": seed, "step": 10 * i, "test_set": test_set, "accuracy": accuracy + shift}
        for arm, curve in curves.items()
        for i, accuracy in enumerate(curve)
        for test_set, shift in (("chain-3", 0.1), ("chain-4", -0.1))
    ]
    return pd.DataFrame(rows)


def evidence(growths: dict[int, float]) -> Evidence:
    return Evidence(profile="tiny", experiments={NOTEBOOK: {"steps": steps(growths)}} if growths else {})


@pytest.mark.parametrize(
    ("growths", "expected"),
    [
        ({0: 0.05, 1: 0.051, 2: 0.049}, "holds"),
        ({0: 0.0, 1: 0.001, 2: -0.001}, "does not hold"),
        ({0: 0.0, 1: 0.04, 2: 0.05}, "inconclusive"),
        ({0: 0.9}, "inconclusive"),
        ({0: 0.05, 1: 0.0501}, "inconclusive"),  # two seeds of three, though the interval lies above
        ({0: 0.05, 1: math.nan, 2: 0.05}, "inconclusive"),
        ({}, "not run"),
    ],
)
def test_verdicts(tmp_path, growths, expected):
    judged = claims.judge(claims.load(write(tmp_path, GROWTH)), evidence(growths))
    assert judged["verdict"].tolist() == [expected]
    assert judged["n_seeds"].tolist() == [len(growths)]
    assert list(judged.columns) == [
        "id",
        "figure",
        "statement",
        "paper",
        "paper_number",
        "verdict",
        "estimate",
        "low",
        "high",
        "threshold",
        "margin",
        "detectable",
        "n_seeds",
        "statistic",
        "precondition",
    ]


def differing(folder: Path, difference: str) -> Path:
    """A claims file whose one claim differs as said at profile paper."""
    path = write(folder, GROWTH)
    path.write_text(
        path.read_text().replace("    comparison:", f"    elsewhere: {{paper: {difference}}}\n    comparison:")
    )
    return path


def test_a_claim_is_judged_by_the_quantity_of_its_profile(tmp_path):
    register = claims.load(differing(tmp_path, """{quantity: "start('success', 'overlap_k16')"}"""))
    runs = evidence({0: 0.05, 1: 0.051, 2: 0.049}).experiments
    for profile, expected in (("tiny", 0.05), ("gpu", 0.05), ("paper", 0.8), ("rehearsal", 0.8)):
        judged = claims.judge(register, Evidence(profile=profile, experiments=runs))
        assert judged["estimate"][0] == pytest.approx(expected) and judged["verdict"].tolist() == ["holds"]


def test_what_a_profile_has_no_part_in_says_so_in_one_line(tmp_path):
    register = claims.load(differing(tmp_path, '{not_part: "no such model is published"}'))
    runs = evidence({0: 0.05, 1: 0.051, 2: 0.049}).experiments
    judged = claims.judge(register, Evidence(profile="paper", experiments=runs))
    line = "not part of profile paper: no such model is published"
    assert judged["verdict"].tolist() == [line] and judged["n_seeds"].tolist() == [0] and math.isnan(judged["low"][0])
    assert line in tables.markdown(tables.verdict_table(judged))
    assert claims.summary(judged).endswith("1 of the claims are no part of this profile.")
    assert claims.judge(register, evidence({0: 0.05, 1: 0.051, 2: 0.049}))["verdict"].tolist() == ["holds"]


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ("{}", "say either quantity or not_part"),
        ('{not_part: ""}', "say either quantity or not_part"),
        ("""{quantity: "start('success', 'x')", not_part: "none"}""", "say either quantity or not_part"),
        ("""{quantity: "begin('success', 'x')"}""", "no function begin"),
        ("""{quantity: "paired_gain('success')"}""", "over problems if and only if"),
        ("""{threshold: 0.1}""", r"paper\.threshold: Extra inputs"),
    ],
)
def test_a_wrong_difference_is_refused(tmp_path, difference, message):
    with pytest.raises(ValueError, match=message):
        claims.load(differing(tmp_path, difference))


def test_a_difference_at_an_unknown_profile_is_refused(tmp_path):
    path = differing(tmp_path, '{not_part: "none"}')
    path.write_text(path.read_text().replace("{paper: {not", "{papr: {not"))
    with pytest.raises(ValueError, match=r"elsewhere\.papr.*'smoke', 'gpu', 'paper'"):
        claims.load(path)


@pytest.mark.parametrize(("comparison", "side"), [(">", 1), ("<", -1)])
def test_beside_a_verdict_stand_its_margin_and_what_its_seeds_could_have_decided(tmp_path, comparison, side):
    path = write(tmp_path, GROWTH, GROWTH)
    path.write_text(path.read_text().replace('comparison: ">"', f'comparison: "{comparison}"'))
    judged = claims.judge(claims.load(path), evidence({0: 0.04, 1: 0.05, 2: 0.06, 3: math.nan}))
    assert judged["detectable"].isna().all() and judged["margin"].isna().all()
    judged = claims.judge(claims.load(path), evidence({0: 0.04, 1: 0.05, 2: 0.06}))
    assert judged["margin"].tolist() == pytest.approx([side * 0.03] * 2)
    error = 0.01 / math.sqrt(3)  # two claims: .975 each, two degrees of freedom
    assert judged["detectable"].tolist() == pytest.approx([stats.detectable(error, 0.975, df=2)] * 2)
    assert judged["detectable"][0] > judged["high"][0] - judged["estimate"][0]


def test_too_few_seeds_decide_nothing_and_their_interval_is_shown(tmp_path):
    judged = claims.judge(claims.load(write(tmp_path, GROWTH)), evidence({0: 0.05, 1: 0.0501}))
    assert judged["low"][0] > 0.02 and judged["n_seeds"][0] == 2 and judged["verdict"][0] == "inconclusive"
    assert judged["margin"][0] == pytest.approx(0.03005) and math.isnan(judged["detectable"][0])


@pytest.mark.parametrize(
    ("growths", "expected"),
    [
        ((-0.001, 0.0, 0.001), "holds"),
        ((0.01, 0.0101, 0.0099), "holds"),
        ((-0.01, -0.0101, -0.0099), "holds"),
        ((0.05, 0.051, 0.049), "does not hold"),
        ((-0.05, -0.051, -0.049), "does not hold"),
        ((0.0, 0.02, 0.04), "inconclusive"),
        ((-0.06, 0.0, 0.06), "inconclusive"),  # both ends outside, and zero within
    ],
)
def test_two_runs_are_the_same_if_the_interval_lies_within_the_bounds(tmp_path, growths, expected):
    path = write(tmp_path, GROWTH)
    path.write_text(path.read_text().replace('comparison: ">"', "comparison: within"))
    judged = claims.judge(claims.load(path), evidence(dict(enumerate(growths))))
    assert judged["verdict"].tolist() == [expected]
    assert judged["threshold"].tolist() == ["within ±0.02"]
    assert judged["margin"].tolist() == pytest.approx([0.02 - abs(judged["estimate"][0])])


def test_smaller_than_turns_the_verdict(tmp_path):
    path = write(tmp_path, GROWTH)
    path.write_text(path.read_text().replace('comparison: ">"', 'comparison: "<"'))
    judged = claims.judge(claims.load(path), evidence({0: 0.05, 1: 0.051, 2: 0.049}))
    assert judged["verdict"].tolist() == ["does not hold"]


def test_the_level_is_that_of_the_whole_file(tmp_path):
    runs = evidence({0: 0.05, 1: 0.06, 2: 0.07})
    alone = claims.judge(claims.load(write(tmp_path, GROWTH)), runs)
    register = claims.load(write(tmp_path, *[GROWTH] * 20))
    among_twenty = claims.judge(register, runs)
    assert register.simultaneous == pytest.approx(0.9975)
    assert among_twenty["low"][0] < alone["low"][0]
    assert claims.judge(register, runs, notebook="03_reverse_distillation").empty


def problems(shares: dict[str, list[list[float]]], seed: int = 0) -> pd.DataFrame:
    """arm → one curve of shares (of 4 samples, at steps 0, 10, 20 …) for each of its problems, on two test sets."""
    rows = [
        {"arm": arm, "seed": seed, "step": 10 * i, "test_set": f"chain-{3 + problem % 2}", "problem": problem // 2}
        | {"n_correct": round(4 * share), "n_samples": 4}
        for arm, curves in shares.items()
        for problem, curve in enumerate(curves)
        for i, share in enumerate(curve)
    ]
    return pd.DataFrame(rows)


def small_world() -> Evidence:
    """Tables of a few rows, so that each function's number can be worked out by hand."""
    steps = pd.concat(
        pd.DataFrame(
            {"arm": arm, "seed": 0, "step": [1, 2, 3, 4, 5], "x": curve, "flat": 2.0, "zero": [-1, 0, 0, 0, 1]}
        )
        for arm, curve in {"a": [9.0, 1.0, 2.0, 3.0, 4.0], "b": [-9.0, -1.0, -2.0, -3.0, -4.0]}.items()
    )
    rewards = pd.DataFrame({"reward_mean": [-1, -2, -3, -4, -5.0], "correct": [1, 1, 0, 1, 0.0]})
    rewards = rewards.assign(arm="rewards", seed=0, length=[10, 20, 20, 30, 30])
    pairs = pd.DataFrame(
        {"arm": "pairs", "seed": 0, "pair": ["st", "st", "so"], "depth": [0, 8, 8], "js": [1.0, 3.0, 7.0]}
    )
    entropy = {1: [1.0, 1.0, 1.0], 5: [1.0, 1.0, 9.0], 10: [1.0, 9.0, 9.0], 15: [9.0, 9.0, 9.0], 20: [9.0, 9.0, 9.0]}
    rows = [{"step": s, "depth": 8 * i, "entropy": v} for s, values in entropy.items() for i, v in enumerate(values)]
    caps = [
        {"arm": "a", "seed": 0, "step": s, "test_set": t, "cap": cap, "accuracy": accuracy + shift}
        for s, cap, accuracy in [(0, 8, 0.1), (0, 72, 0.2), (10, 8, 0.9), (10, 72, 0.9), (20, 8, 0.4), (20, 72, 0.8)]
        for t, shift in (("chain-3", 0.1), ("chain-4", -0.1))
    ]
    tables = {
        "steps": steps,
        "evals": evals({"a": [0.2, 0.3, 0.4, 0.5, 0.6], "b": [0.2, 0.3, 0.4, 0.5, 0.9]}),
        "probe": pd.concat([rewards, pairs]),
        "depth": pd.DataFrame(rows).assign(arm="a", seed=0, n_tokens=99),
        "caps": pd.DataFrame(caps),
        "problems": problems({"a": [[0, 1, 1, 1], [0.5, 0, 0.5, 1]], "b": [[0, 0, 0, 0.75], [0.5, 0.5, 0.5, 0.5]]}),
    }
    models = evals({"teacher": [0.1, 0.7], "worse": [0.1]})
    lengths = {("teacher", 0): 99.0, ("teacher", 10): 30.0, ("worse", 0): 40.0}  # the last of each counts
    shifts = models["test_set"].map({"chain-3": 5, "chain-4": -5})
    models["response_length"] = [lengths[key] for key in zip(models["arm"], models["step"], strict=True)] + shifts
    return Evidence(profile="tiny", experiments={"x": tables, MODELS: {"evals": models}})


EXPECTED = {
    "start('a', 'x')": 9,
    "end('a', 'x')": 3,
    "minimum('a', 'x')": 1,
    "maximum('a', 'x')": 9,
    "mean('a', 'x')": 3.8,
    "slope('a', 'x')": -0.8,
    "roughness('a', 'x')": 4.5,  # changes −8, 1, 1, 1
    "correlation('a', 'b', 'x')": -1,
    "accuracy_start('a')": 0.2,
    "accuracy_end('a')": 0.5,
    "accuracy_end('a', 'chain-3')": 0.6,
    "accuracy_max_gap('a', 'b')": 0.1,
    "checkpoint('teacher')": 0.7,
    "checkpoint('teacher', 'response_length') / checkpoint('worse', 'response_length')": 0.75,  # 30 against 40 tokens
    "weakest('teacher', 'worse')": 0.1,
    "recovery('a', 'teacher')": 0.6,
    "auroc('rewards')": 5 / 6,  # of six pairs one is the wrong way round
    "auroc_within_length('rewards')": 1,
    "probe('pairs', 'js')": 11 / 3,
    "probe_where('pairs', 'js', 'pair', 'st')": 2,
    "probe_where('pairs', 'js', 'pair', 'st', 'depth', 8)": 3,
    "onset_trend('a', 'entropy')": -0.9486833,  # onsets 16, 8, 0, 0 at steps 5, 10, 15, 20
    "cap_gain('a', 8)": 0.3,
    "cap_gain('a', 72)": 0.6,
    "paired_accuracy('a', 'b')": 0.375,  # (1 − .25 + .5 − .5) / 2
    "paired_gain('a')": 0.5,  # (1 − 0 + .5 − .5) / 2
    "abs(-2) + min(1, 2) + max(1, 2)": 5,
}
UNDEFINED = [
    "recovery('a', 'worse')",
    "1 / (start('a', 'x') - 9)",
    "correlation('a', 'b', 'flat')",
    "accuracy_end('a', 'chain-99')",
    "cap_gain('a', 9)",
    "probe_where('pairs', 'js', 'depth', 99)",
    "onset_trend('a', 'flat')",
]


def small_view() -> SeedView:
    found = small_world()
    found.experiments["x"]["depth"]["flat"] = 1.0  # type: ignore[index]
    return SeedView(evidence=found, experiment="x", seed=0)


def test_every_function_against_a_number_worked_out_by_hand():
    called = {name for quantity in EXPECTED for name, _ in vocabulary.calls(quantity)}
    elsewhere = {"rank_correlation", "accuracy_mean", "accuracy_max", "crossing", "tokens_to"}  # below, test_moments
    assert called | elsewhere >= set(vocabulary.FUNCTIONS)
    view = small_view()
    for quantity, value in EXPECTED.items():
        assert vocabulary.value_of(quantity, view) == pytest.approx(value), quantity
    for quantity in UNDEFINED:
        assert math.isnan(vocabulary.value_of(quantity, view)), quantity


def test_without_the_run_there_is_no_record_and_without_the_column_an_error():
    view = small_view()
    elsewhere = SeedView(evidence=view.evidence, experiment="x", seed=7)
    for quantity in EXPECTED.keys() - {"abs(-2) + min(1, 2) + max(1, 2)"}:
        with pytest.raises(NoRecordError):
            vocabulary.value_of(quantity, elsewhere)
    for quantity in (
        "roughness('a', 'y')",
        "correlation('a', 'b', 'y')",
        "probe('pairs', 'kl')",
        "probe_where('pairs', 'js', 'who', 'teacher')",
        "onset_trend('a', 'teacher_entropy')",
    ):
        with pytest.raises(ValueError, match="no column"):
            vocabulary.value_of(quantity, view)
    for table, column, quantity in [
        ("probe", "reward_mean", "auroc('rewards')"),
        ("probe", "length", "auroc_within_length('rewards')"),
        ("caps", "cap", "cap_gain('a', 8)"),
        ("problems", "n_correct", "paired_accuracy('a', 'b')"),
        ("problems", "n_samples", "paired_gain('a')"),
    ]:
        tables = view.evidence.experiments["x"]
        less = Evidence(profile="tiny", experiments={"x": {**tables, table: tables[table].drop(columns=column)}})
        with pytest.raises(ValueError, match=f"no column '{column}'"):
            vocabulary.value_of(quantity, SeedView(evidence=less, experiment="x", seed=0))
    with pytest.raises(ValueError, match="pairs of a column and its value"):
        vocabulary.value_of("probe_where('pairs', 'js', 'pair')", view)


def many_arms(seeds: tuple[int, ...] = (0,)) -> Evidence:
    """Four arms: the higher the first overlap the larger the gain; the teacher of `reverse` has no lead."""
    measured = {"p": (0.5, 0.4), "q": (0.6, 0.5), "r": (0.7, 0.6), "reverse": (0.1, 0.9)}
    first = [
        {"arm": arm, "seed": seed, "step": step, **dict.fromkeys(prognosis.START, 1.0), "overlap_k16": overlap * step}
        for seed in seeds
        for arm, (overlap, _) in measured.items()
        for step in (1, 2)
    ]
    accuracies = [
        evals({arm: [0.2 if arm != "reverse" else 0.9, end]}, s) for s in seeds for arm, (_, end) in measured.items()
    ]
    experiments = {
        "x": {"steps": pd.DataFrame(first), "evals": pd.concat(accuracies)},
        MODELS: {"evals": pd.concat([evals({"good": [0.8]}, seed) for seed in seeds])},
    }
    return Evidence(profile="tiny", experiments=experiments, teachers={"x": dict.fromkeys(measured, "good")})


def test_rank_correlation_is_over_the_arms_that_have_the_outcome():
    view = SeedView(evidence=many_arms(), experiment="x", seed=0)
    assert vocabulary.value_of("rank_correlation('overlap_k16', 'recovery')", view) == pytest.approx(1)
    assert vocabulary.value_of("rank_correlation('overlap_k16', 'end')", view) == pytest.approx(
        -0.2
    )  # ranks 2341, 1234
    assert vocabulary.value_of("rank_correlation('teacher_gap', 'gain')", view) == pytest.approx(math.sqrt(0.6))
    assert math.isnan(vocabulary.value_of("rank_correlation('reverse_kl', 'gain')", view))


def test_rank_correlation_needs_every_arm_and_the_teachers():
    found = many_arms(seeds=(0, 1))
    steps = found.experiments["x"]["steps"]
    fewer = {**found.experiments["x"], "steps": steps[(steps["seed"] == 0) | (steps["arm"] != "q")]}
    quantity = "rank_correlation('overlap_k16', 'recovery')"
    partial = Evidence(profile="tiny", experiments={**found.experiments, "x": fewer}, teachers=found.teachers)
    assert vocabulary.value_of(quantity, SeedView(evidence=partial, experiment="x", seed=0)) == pytest.approx(1)
    with pytest.raises(NoRecordError, match="of q, seed 1"):
        vocabulary.value_of(quantity, SeedView(evidence=partial, experiment="x", seed=1))
    no_models = Evidence(profile="tiny", experiments={"x": found.experiments["x"]}, teachers=found.teachers)
    with pytest.raises(NoRecordError, match="good"):
        vocabulary.value_of(quantity, SeedView(evidence=no_models, experiment="x", seed=0))
    unnamed = Evidence(profile="tiny", experiments=found.experiments)
    with pytest.raises(ValueError, match="names no teachers of x"):
        vocabulary.value_of(quantity, SeedView(evidence=unnamed, experiment="x", seed=0))
    view = SeedView(evidence=found, experiment="x", seed=0)
    with pytest.raises(ValueError, match="'overlap' is unknown"):
        vocabulary.value_of("rank_correlation('overlap', 'gain')", view)
    less = {**found.experiments, "x": {**found.experiments["x"], "steps": steps.drop(columns="reverse_kl")}}
    view = SeedView(evidence=Evidence(profile="tiny", experiments=less), experiment="x", seed=0)
    with pytest.raises(ValueError, match="no column 'reverse_kl'"):
        vocabulary.value_of("rank_correlation('overlap_k16', 'gain')", view)


def test_the_start_is_never_part_of_the_end():
    assert quantities.end_of(pd.Series([0.0, 1.0, 1.0])) == 1.0
    assert quantities.end_of(pd.Series([0.5])) == 0.5


def test_seeds_without_every_run_are_left_out(tmp_path):
    quantity = f"{GROWTH} - end('failure', 'overlap_k16')"
    frame = steps({0: 0.1, 1: 0.1})
    failure = frame[frame["seed"] == 1].assign(arm="failure", overlap_k16=0.0)
    runs = Evidence(profile="tiny", experiments={NOTEBOOK: {"steps": pd.concat([frame, failure])}})
    register = claims.load(write(tmp_path, quantity))
    assert register.claims[0].per_seed(runs) == {1: pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("end('success', 'overlap_k16') -", "cannot be read"),
        ("finish('success', 'overlap_k16')", "no function finish"),
        ("__import__('os').getcwd()", "no function"),
        ("(4000000**4000000)", r"Pow: only \+ - \* /"),
        ("-" * 5000 + "1", "5001 characters; write at most 1000"),
        ("-" * 900 + "1", "at most 32 levels|cannot be read"),
        ("(" * 900 + "1" + ")" * 9, "cannot be read"),
        ("+".join(["1"] * 450), "at most 32 levels"),
        ("max(" + ",".join(["-1"] * 300) + ")", "at most 32 levels and 500 parts"),
        ("1 % 2", "only"),
        ("'a' * 1000000000", "'a': a text is an argument"),
        ("'success'", "'success': a text is an argument"),
        ("max('a', 1)", "max: it takes numbers"),
        ("1 if 1 else 2", "only"),
        ("[1][0]", "only"),
        ("1 < 2", "only"),
        ("1 and 2", "only"),
        ("lambda: 1", "only"),
        ("f'{1}'", "only"),
        ("[x for x in [1]]", "only"),
        ("~1", "only"),
        ("1e999", "a number up to"),
        ("1e10", "a number up to"),
        ("9" * 900, "a number up to"),
        ("1j", "a number up to"),
        ("True", "a number up to"),
        ("None", "a number up to"),
        ("b''", "a number up to"),
        ("...", "a number up to"),
        ("1\\0", "cannot be read"),
        ("end('success', 'overlap_k16').real", "only"),
        ("end(arm='success', column='overlap_k16')", "without names or stars"),
        ("end(*'ab')", "without names or stars"),
        ("end('success')", "missing a required argument: 'column'"),
        ("end('success', 5)", "column: 5: write a text"),
        ("weakest('a', 'b', 5)", "others: 5: write a text"),
        ("weakest()", "missing a required argument: 'name'"),
        ("cap_gain('success', 'x')", "cap: 'x': write a number"),
        ("end('success', 2 * 3)", "its arguments are texts and numbers"),
        ("abs(1, 2)", "abs: 2 arguments"),
        ("max()", "max: 0 arguments"),
        ("success", "only"),
        ("", "cannot be read"),
    ],
)
def test_a_bad_expression_is_refused_when_the_file_is_read(tmp_path, quantity, words):
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=words) as refused:
        claims.load(write(tmp_path, quantity))
    message = str(refused.value)
    assert "claims.yaml: claim C0: claims.0.quantity" in message and len(message) < 2500
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    "quantity", ["(4000000**4000000)", "-" * 5000 + "1", "9" * 5000, "('a' * 1000000000)", "1e999"]
)
def test_an_expression_that_no_file_holds_is_bounded_too(quantity):
    begin = time.perf_counter()
    with pytest.raises(ValueError, match="quantity"):
        vocabulary.value_of(quantity, SeedView(evidence=evidence({0: 0.1}), experiment=NOTEBOOK, seed=0))
    assert time.perf_counter() - begin < 5


def test_what_is_wrong_in_judging_names_claim_and_file(tmp_path):
    with pytest.raises(ValueError, match=r"claims\.yaml: claim C0: .*no column 'overlap'"):
        claims.judge(claims.load(write(tmp_path, "end('success', 'overlap')")), evidence({0: 0.1}))
    register = claims.load(write(tmp_path, "end('success', 'overlap')"))
    with pytest.raises(ValueError, match=r"claims\.yaml: claim C0: .*no column 'overlap'"):
        agreement.compare(register, evidence({0: 0.1}), evidence({0: 0.1}))


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("end('success', 'overlap')", "no column 'overlap'"),
        ("end('success')", "cannot be evaluated"),
        ("end(success, 'overlap_k16')", "cannot be evaluated"),
    ],
)
def test_a_wrong_argument_names_the_claim(tmp_path, quantity, words):
    with pytest.raises(ValueError, match=f"claim C0: .*{words}"):
        claims.judge(claims.load(write(tmp_path, quantity)), evidence({0: 0.1}))


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("note:", "notes:", "claims.0.notes"),
        ("gpu: 0.02", "gpu: 0.02, cluster: 1", "claims.0.threshold.cluster"),
        ("confidence: 0.95", "confidnce: 0.95", "confidnce"),
        ('">"', '">="', "claims.0.comparison"),
        ("seeds: 3", "seeds: 1", "claims.0.seeds"),
        ("statistic: seeds", "statistic: tokens", "claims.0.statistic"),
        ("statistic: seeds", "statistic: problems", "over problems if and only if"),
        ("claims:", "claims: [", "YAML"),
        ("confidence: 0.95", "confidence: .inf", "confidence"),
        ("confidence: 0.95", "confidence: 2", "confidence"),
        ("tiny: 0.02", "tiny: .nan", "claims.0.threshold.tiny"),
        ("value: 0.2", "value: .inf", "claims.0.paper.value"),
        ("seeds: 3", "seeds: 1000000", "claims.0.seeds"),
        ("id: C0", "id: '../C0'", "claims.0.id"),
        ("notebook: 04", "notebook: ../04", "no name of a notebook"),
        ("paper: test", "paper: test\npaper: again", "duplicate key"),
        ("paper: test", "paper: &a [*a]", "contains itself"),
        ("paper: test", "paper: !!python/name:os x", "a tag"),
        ("paper: test", "paper: " + "9" * 5000, "cannot be read"),
    ],
)
def test_a_wrong_file_names_file_and_key(tmp_path, old, new, key):
    path = write(tmp_path, GROWTH)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(key)) as refused:
        claims.load(path)
    assert str(path) in str(refused.value)


def test_ids_are_unique(tmp_path):
    path = write(tmp_path, GROWTH, GROWTH)
    path.write_text(path.read_text().replace("C1", "C0"))
    with pytest.raises(ValueError, match="C0"):
        claims.load(path)


def test_compare_places_a_local_seed_in_the_range_for_a_new_one(tmp_path):
    register = claims.load(write(tmp_path, GROWTH))
    committed = evidence({0: 0.05, 1: 0.06, 2: 0.07})
    table = agreement.compare(register, evidence({3: 0.061, 4: 0.5}), committed)
    assert table["agrees"].tolist() == ["yes", "no"]
    assert table["mean"].tolist() == pytest.approx([0.06, 0.06]) and table["committed"].isna().all()
    assert agreement.compare(register, evidence({3: 0.061}), evidence({0: 0.05}))["agrees"].tolist() == ["unknown"]
    assert agreement.compare(register, evidence({}), committed).empty


def test_compare_holds_a_committed_seed_to_its_committed_self(tmp_path):
    register = claims.load(write(tmp_path, GROWTH))
    committed = evidence({0: 0.05, 1: 0.06, 2: 0.07})  # between-seed standard deviation .01
    table = agreement.compare(register, evidence({0: 0.05, 1: 0.069, 2: 0.055}), committed)
    assert table["committed"].tolist() == pytest.approx([0.05, 0.06, 0.07])
    assert table["agrees"].tolist() == ["yes", "yes", "no"]


def over_problems(lead: float, seeds: tuple[int, ...] = (0, 1, 2)) -> Evidence:
    """`success` beats `failure` on two problems of three by twice the lead each, and loses nowhere."""
    won, tied = [[0.25, *[0.25 + 2 * lead] * 3]] * 2, [[0.25] * 4]
    frames = [problems({"success": [*won, *tied] * 20, "failure": [*tied] * 60}, seed) for seed in seeds]
    return Evidence(profile="tiny", experiments={NOTEBOOK: {"problems": pd.concat(frames)}})


PAIRED = "paired_accuracy('success', 'failure')"


@pytest.mark.parametrize(
    ("lead", "seeds", "expected"),
    [
        (0.25, (0, 1, 2), "holds"),
        (0.0, (0, 1, 2), "does not hold"),
        (0.25, (0, 1), "inconclusive"),
        (0.25, (), "not run"),
    ],
)
def test_verdicts_over_problems(tmp_path, lead, seeds, expected):
    register = claims.load(write(tmp_path, PAIRED, statistic="problems"))
    runs = over_problems(lead, seeds) if seeds else Evidence(profile="tiny")
    judged = claims.judge(register, runs)
    assert judged["verdict"].tolist() == [expected] and judged["n_seeds"].tolist() == [len(seeds)]
    if seeds:
        assert judged["estimate"][0] == pytest.approx(4 / 3 * lead)
        assert judged["low"][0] <= judged["estimate"][0] <= judged["high"][0]
    if len(seeds) == 3:  # 120 problems, two of three won by twice the lead: normal, with the deviation of their mean
        error = 2 * lead * math.sqrt(2) / 3 / math.sqrt(60)
        assert judged["detectable"][0] == pytest.approx(stats.detectable(error, 0.95), rel=0.03)


def test_over_problems_the_seeds_are_averaged_and_the_draws_are_the_claims_own(tmp_path):
    """The same seed four times over is no more evidence, and judging again gives the same bounds to the last digit."""
    register = claims.load(write(tmp_path, PAIRED, PAIRED, statistic="problems"))
    once, often = (claims.judge(register, over_problems(0.25, range(n))) for n in (1, 4))
    pd.testing.assert_frame_equal(once[["estimate", "low", "high"]], often[["estimate", "low", "high"]])
    assert once["verdict"].tolist() == ["inconclusive"] * 2 and once["low"].notna().all()
    pd.testing.assert_frame_equal(often, claims.judge(register, over_problems(0.25, range(4))))
    bounds = often[["low", "high"]].to_numpy()
    assert np.ptp(bounds, axis=0).max() < 0.02 and 0.1 < often["low"][0] < often["high"][0] < 0.5


def test_different_problems_cannot_be_paired(tmp_path):
    runs = over_problems(0.25)
    frame = runs.experiments[NOTEBOOK]["problems"]
    less = Evidence(
        profile="tiny",
        experiments={NOTEBOOK: {"problems": frame[(frame["arm"] == "success") | (frame["problem"] > 0)]}},
    )
    with pytest.raises(ValueError, match="claim C0: success and failure: tested on different problems"):
        claims.judge(claims.load(write(tmp_path, PAIRED, statistic="problems")), less)


@pytest.mark.parametrize("quantity", [f"{PAIRED} - 1", f"abs({PAIRED})", f"{PAIRED} + end('success', 'x')"])
def test_a_paired_quantity_stands_alone(tmp_path, quantity):
    with pytest.raises(ValueError, match="stand alone"):
        claims.load(write(tmp_path, quantity, statistic="problems"))
    with pytest.raises(ValueError, match="over problems if and only if"):
        claims.load(write(tmp_path, GROWTH, statistic="problems"))


REGISTER = claims.load(paths.claims_file("rethinking_opd"))
NEXT = claims.load(paths.claims_file("rethinking_opd", "tiny-next"))


@lru_cache
def experiment(name: str, profile: str = "tiny") -> Experiment:
    return params.load(name, profile)


def columns_of(name: str, arm: str, profile: str = "tiny") -> set[str]:
    """The columns that an arm's steps table has: those with a k once for each k of its diagnostics."""
    ks = experiment(name, profile).arms[arm].diagnose.ks
    return set(diagnostics.UNITS) | {f"{column}_k{k}" for column in diagnostics.UNITS for k in ks}


PROBE_COLUMNS = {
    "gradient": {"coherence", "half_batch_cosine", "against_cosine"},
    "teachers": {"js"},
    "continuation": {"accuracy"},
    "prefix": {f"right_{who}" for who in ("alone", "own", "gold", "student")}
    | {"revision_student", "signal", "signal_first", "signal_last"},
    "mixture": {"kl_geometric_behind", "kl_arithmetic_behind"},
}
PAIRS = {"teacher-other", "student-teacher", "student-other"}


def check_call(profile: str, notebook: str, name: str, arguments: tuple[Any, ...]) -> None:
    """Every arm, column, checkpoint, test set, cap, depth and pair that a call names is one of the profile."""
    arms, models = experiment(notebook, profile).arms, experiment(MODELS, profile).arms
    trained = {arm for arm, found in arms.items() if found.probe is None}
    first, rest = arguments[0], arguments[1:]
    if name == "rank_correlation":
        assert first in prognosis.FEATURES and rest[0] in prognosis.OUTCOMES
    elif name == "checkpoint":
        assert first in models and set(rest) <= {"response_length"}
    elif name == "weakest":
        assert {first, *rest} <= set(models)
    elif name == "correlation":
        assert {first, rest[0]} <= trained and rest[1] in columns_of(notebook, first, profile)
    elif name in ("accuracy_mean", "accuracy_max"):
        assert first in trained and all(0 < share <= 1 for share in rest)
    elif name == "crossing":
        assert first in trained and rest[0] in {"accuracy"} | columns_of(notebook, first, profile)
    elif name == "tokens_to":
        assert {first, rest[1]} <= trained and 0 < rest[0] <= 1
    elif name in ("accuracy_max_gap", "paired_accuracy", "paired_gain", "accuracy_start"):
        assert {first, *rest} <= trained
    elif name == "accuracy_end":
        assert first in trained and set(rest) <= set(arms[first].task.test_sets)
    elif name == "recovery":
        assert first in trained and arms[first].teacher == f"run:{MODELS}/{rest[0]}"
    elif name == "cap_gain":
        assert first in trained and rest[0] in arms[first].evaluate.caps
    elif name in ("auroc", "auroc_within_length"):
        assert arms[first].probe.kind == "reward"  # type: ignore[union-attr]
    elif name in ("probe", "probe_where"):
        probe = arms[first].probe
        assert probe is not None and rest[0] in PROBE_COLUMNS[probe.kind]
        for key, value in zip(rest[1::2], rest[2::2], strict=True):
            known = {"pair": PAIRS, "depth": getattr(probe, "depths", ()), "who": {"teacher", "student"}}
            assert value in {**known, "budget": {"total", "new"}}.get(key, {0, 1})
            assert key in {*known, "budget", "valid", "right", "stated_alone", "stated_student", "behind"}
    elif name == "onset_trend":
        assert first in trained and rest[0].startswith(diagnostics.BY_DEPTH)
    else:
        assert first in trained and rest[0] in columns_of(notebook, first, profile), f"{name}{arguments}"


NOTEBOOKS = {
    folder.name: {path.stem for path in folder.glob("[0-9]*.yaml")} - {"93_methods"}
    for folder in sorted(paths.PARAMS.iterdir())
    if folder != paths.CLAIMS and [*folder.glob("[0-9]*.yaml")]
}
"""profile → its notebooks; 93_methods is none"""


def check_claim(claim: Statement, profile: str) -> None:
    for name, arguments in vocabulary.calls(claim.at(profile).quantity):
        if name not in vocabulary.ARITHMETIC:
            check_call(profile, claim.notebook, name, arguments)


def names_what_is_there(said: Statement, profile: str) -> bool:
    try:
        check_claim(said, profile)
    except (AssertionError, KeyError):
        return False
    return True


@pytest.mark.parametrize("profile", NOTEBOOKS)
def test_committed_claims_name_what_a_profile_has_or_are_no_part_of_it(profile):
    assert profile not in ("tiny", "smoke", "gpu", "paper") or NOTEBOOKS[profile] == NOTEBOOKS["tiny"]
    register = claims.load(paths.claims_file("rethinking_opd", profile))
    left_out = {claim.id for claim in register.claims if claim.at(profile).not_part}
    assert left_out == {"paper": {"C1e"}, "gpu-math": {"C1e", "C4s"}, "rehearsal": {"C1e"}}.get(profile, set())
    said = (*register.claims, *register.preconditions)
    judged = [each for each in said if each.notebook in NOTEBOOKS[profile] and not each.at(profile).not_part]
    assert judged
    for each in judged:
        check_claim(each, profile)


FACES = claims.load(paths.claims_file("many_faces", "tiny-next"))


@pytest.mark.parametrize("said", [*FACES.claims, *FACES.preconditions], ids=lambda said: said.id)
def test_the_second_papers_claims_name_what_their_notebooks_have(said: Statement) -> None:
    check_claim(said, "tiny-next")
    assert said.seeds == len(experiment(said.notebook, "tiny-next").seeds)


def test_the_second_papers_claims_are_complete_and_their_preconditions_are_rested_on() -> None:
    topics = {re.sub(r"[a-z]$", "", claim.id) for claim in FACES.claims}
    assert topics >= {f"MF{n}" for n in range(1, 20)}
    assert not {each.id for each in FACES.claims} & {each.id for each in (*NEXT.claims, *NEXT.preconditions)}
    assert {each.id for each in FACES.preconditions} == {name for claim in FACES.claims for name in claim.rests_on}


def test_what_the_next_world_must_have_and_the_present_one_has_not_is_known():
    """Limits, caps, depths and a student of the next tiny world; all else that its register names is here already."""
    missing = {each.id for each in (*NEXT.claims, *NEXT.preconditions) if not names_what_is_there(each, "tiny")}
    assert missing == {"H9", "C8a", "C8b", "C8c", "C8d", "C8e", "H7a", "H7b", "H8", "P2f", "P4a", "P4b", "P9b"}


def test_a_name_that_a_profile_lacks_is_found():
    claim = next(claim for claim in REGISTER.claims if claim.id == "C1d")
    plain = claim.model_copy(update={"elsewhere": {}})
    check_claim(plain, "smoke")
    with pytest.raises(AssertionError):
        check_claim(plain, "paper")


def test_every_difference_between_profiles_is_one():
    for claim in REGISTER.claims:
        assert claim.at("tiny").quantity == claim.quantity, claim.id
        assert all(difference.quantity != claim.quantity for difference in claim.elsewhere.values()), claim.id


def test_the_teachers_whose_scores_are_compared_are_those_of_the_two_runs():
    (claim,) = (claim for claim in REGISTER.claims if claim.id == "C1a")
    for profile in ("tiny", "smoke", "gpu", "paper"):
        named = {arguments[0] for name, arguments in vocabulary.calls(claim.at(profile).quantity) if name != "abs"}
        arms = experiment(claim.notebook, profile).arms
        assert {f"run:{MODELS}/{name}" for name in named} == {
            arms[arm].teacher for arm in ("compatible", "incompatible")
        }


@pytest.mark.parametrize("claim", REGISTER.claims, ids=lambda claim: claim.id)
def test_committed_claims_have_one_bound_for_the_tiny_world_and_its_seeds(claim):
    assert claim.threshold.smoke == claim.threshold.tiny == claim.threshold.gpu
    assert claim.seeds == len(experiment(claim.notebook).seeds)


def test_committed_claims_are_complete_and_use_every_function():
    said = (*REGISTER.claims, *NEXT.claims, *NEXT.preconditions, *FACES.claims)
    assert {name for each in said for name, _ in vocabulary.calls(each.quantity)} >= set(vocabulary.FUNCTIONS)
    figures = {figure for claim in REGISTER.claims for figure in re.findall(r"\d+", claim.figure)}
    assert figures >= {str(n) for n in range(1, 24)}
    topics = {re.sub(r"[a-z]$", "", claim.id) for claim in REGISTER.claims}
    assert topics == {*(f"C{n}" for n in range(1, 11)), *(f"H{n}" for n in (*range(1, 11), 12))}


def probe_rows(kind: str, depths: tuple[int, ...], rng: np.random.Generator) -> list[dict[str, Any]]:
    """A few rows of a probe table with numbers of no meaning."""
    if kind == "reward":
        return [{"reward_mean": rng.normal(), "correct": i % 2, "length": 10 * (i % 5)} for i in range(20)]
    if kind == "teachers":
        return [{"pair": pair, "js": rng.uniform(0.1, 1)} for pair in PAIRS]
    if kind == "gradient":
        return [{column: rng.uniform(0.1, 1) for column in PROBE_COLUMNS["gradient"]}]
    return [
        {"depth": depth, "who": who, "budget": budget, "accuracy": rng.uniform()}
        for depth in depths
        for who in ("teacher", "student")
        for budget in ("total", "new")
    ]


def made_up(name: str, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """One seed of every table of every arm of a notebook, in the shape the runs write them."""
    tables: dict[str, list[dict[str, Any]]] = {}
    onsets = {1: 99, 5: 24, 10: 16, 15: 8, 20: 0}  # at this step entropy is high from this depth on
    for arm, found in experiment(name).arms.items():
        run = {"arm": arm, "seed": 0}
        if found.probe is not None:
            depths = getattr(found.probe, "depths", ())
            tables.setdefault("probe", []).extend(run | row for row in probe_rows(found.probe.kind, depths, rng))
            continue
        columns = columns_of(name, arm)
        tables.setdefault("steps", []).extend(
            run | {c: rng.uniform(0.5, 1) for c in columns} | {"step": s} for s in STEPS
        )
        tables.setdefault("depth", []).extend(
            run
            | {"step": s, "depth": d, "n_tokens": 99}
            | dict.fromkeys(("student_entropy", "teacher_entropy"), 1.0 + 9 * (d >= o))
            for s, o in onsets.items()
            for d in range(0, 32, 8)
        )
        for step in (0, 10, 20, 30):
            for test_set in found.task.test_sets:
                at = run | {"step": step, "test_set": test_set}
                tables.setdefault("evals", []).append(at | {"accuracy": rng.uniform(0.1, 0.9)})
                tables.setdefault("caps", []).extend(
                    at | {"cap": c, "accuracy": rng.uniform()} for c in found.evaluate.caps
                )
                tables.setdefault("problems", []).extend(
                    at | {"problem": i, "n_correct": int(rng.integers(5)), "n_samples": 4} for i in range(4)
                )
    return {table: pd.DataFrame(rows) for table, rows in tables.items()}


@pytest.mark.parametrize(
    ("value", "found", "expected"),
    [
        (0.5, claims.HOLDS, "inside"),
        (-0.5, claims.HOLDS, "outside"),
        (0.5, claims.DOES_NOT_HOLD, "outside"),
        (-0.5, claims.DOES_NOT_HOLD, "inside"),
        (0.5, claims.INCONCLUSIVE, "open"),
        (0.5, claims.NOT_RUN, "open"),
        (None, claims.HOLDS, ""),
    ],
)
def test_the_papers_number_lies_where_our_verdict_says_or_not(value, found, expected):
    claim = next(claim for claim in REGISTER.claims if claim.bound("paper") == 0)
    changed = claim.model_copy(update={"paper": claim.paper.model_copy(update={"value": value}), "comparison": ">"})
    assert claims.paper_number(changed, found) == expected


def test_the_summary_counts_verdicts_and_the_papers_numbers():
    verdicts = [claims.HOLDS, claims.HOLDS, claims.DOES_NOT_HOLD, claims.INCONCLUSIVE]
    judged = pd.DataFrame({"verdict": verdicts, "paper_number": ["inside", "", "outside", "open"], "precondition": ""})
    text = claims.summary(judged)
    assert "precondition" not in text
    assert "Of 4 claims 2 hold, 1 do not, 1 are inconclusive and 0 were not run" in text
    assert (
        "a number for 3 of them: 1 lie on the side of the bound that our verdict names, 1 on the other, 1 where" in text
    )


def test_committed_claims_can_all_be_judged():
    rng = np.random.default_rng(3)
    names = [path.stem for path in sorted((paths.PARAMS / "tiny").glob("*.yaml"))]
    experiments = {name: made_up(name, rng) for name in names}
    teachers = {name: experiment(name).teachers for name in names}
    found = Evidence(profile="tiny", experiments=experiments, teachers=teachers)
    judged = claims.judge(REGISTER, found)
    assert set(judged["verdict"]) == {"inconclusive"} and set(judged["n_seeds"]) == {1}
    undefined = set(judged["id"][judged["estimate"].isna()])
    assert undefined <= {"C4j", "C4k"}, "a recovery without a lead is all that may be undefined here"
    paired = judged["statistic"] == "problems"
    assert judged["low"][paired].notna().all() and judged["low"][~paired].isna().all()
