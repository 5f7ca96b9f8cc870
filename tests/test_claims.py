"""Verdicts follow from the runs alone, and a claims file that is wrong says where."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from opd_lib import paths
from opd_lib.report import claims, quantities
from opd_lib.report.quantities import Evidence, SeedView

NOTEBOOK = "04_success_and_failure"
STEPS = (1, 2, 3, 4, 5)
ARMS = {"03_reverse_distillation": {"same_size", "larger"}, NOTEBOOK: {"success", "failure"}}
CHECKPOINTS = {"distill-small", "distill-large", "justrl-small"}
COLUMNS = {
    "loss",
    "grad_norm",
    "entropy_gap",
    "overlap_k16",
    "student_mass_k16",
    "teacher_mass_k16",
    "advantage_paper_k16",
    "delta_p_k16",
}

CLAIM = """\
  - id: {id}
    figure: "6"
    statement: "Overlap grows."
    paper: {{value: 0.2, text: ".72 to .92", source: text}}
    notebook: 04_success_and_failure
    quantity: "{quantity}"
    comparison: ">"
    threshold: {{tiny: 0.02, smoke: 0.02, paper: 0.15, gpu: 0.02}}
    note: "none"
"""
GROWTH = "end('success', 'overlap_k16') - start('success', 'overlap_k16')"


def write(folder: Path, *quantity: str) -> Path:
    path = folder / "claims.yaml"
    text = "".join(CLAIM.format(id=f"C{i}", quantity=q) for i, q in enumerate(quantity))
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
        "verdict",
        "estimate",
        "low",
        "high",
        "threshold",
        "n_seeds",
    ]


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


def test_every_function():
    curve = pd.DataFrame({"arm": "a", "seed": 0, "step": [1, 2, 3, 4, 5], "x": [9.0, 1.0, 2.0, 3.0, 4.0]})
    accuracies = evals({"a": [0.2, 0.3, 0.4, 0.5, 0.6], "b": [0.2, 0.3, 0.4, 0.5, 0.9]})
    models = evals({"teacher": [0.1, 0.7], "worse": [0.1]})
    experiments = {"x": {"steps": curve, "evals": accuracies}, "00_models": {"evals": models}}
    view = SeedView(evidence=Evidence(profile="tiny", experiments=experiments), experiment="x", seed=0)
    expected = {
        "start('a', 'x')": 9,
        "end('a', 'x')": 3,
        "minimum('a', 'x')": 1,
        "maximum('a', 'x')": 9,
        "mean('a', 'x')": 3.8,
        "slope('a', 'x')": -0.8,
        "accuracy_start('a')": 0.2,
        "accuracy_end('a')": 0.5,
        "accuracy_max_gap('a', 'b')": 0.1,
        "checkpoint('teacher')": 0.7,
        "recovery('a', 'teacher')": 0.6,
        "abs(-2) + min(1, 2) + max(1, 2)": 5,
    }
    assert {name for quantity in expected for name, _ in quantities.calls(quantity)} >= set(quantities.FUNCTIONS)
    for quantity, value in expected.items():
        assert quantities.value_of(quantity, view) == pytest.approx(value), quantity
    assert math.isnan(quantities.value_of("recovery('a', 'worse')", view))
    assert math.isnan(quantities.value_of("1 / (start('a', 'x') - 9)", view))


def test_the_start_is_never_part_of_the_end():
    assert quantities.end_of(pd.Series([0.0, 1.0, 1.0])) == 1.0
    assert quantities.end_of(pd.Series([0.5])) == 0.5


def test_seeds_without_every_run_are_left_out(tmp_path):
    quantity = f"{GROWTH} - end('failure', 'overlap_k16')"
    frame = steps({0: 0.1, 1: 0.1})
    failure = frame[frame["seed"] == 1].assign(arm="failure", overlap_k16=0.0)
    runs = Evidence(profile="tiny", experiments={NOTEBOOK: {"steps": pd.concat([frame, failure])}})
    register = claims.load(write(tmp_path, quantity))
    assert claims.per_seed(register.claims[0], runs) == {1: pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ("end('success', 'overlap_k16') -", "cannot be read"),
        ("finish('success', 'overlap_k16')", "no function finish"),
        ("__import__('os').getcwd()", "no function"),
    ],
)
def test_a_bad_expression_is_refused_when_the_file_is_read(tmp_path, quantity, words):
    with pytest.raises(ValueError, match=words) as refused:
        claims.load(write(tmp_path, quantity))
    assert "claims.yaml" in str(refused.value) and "claims.0.quantity" in str(refused.value)


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
        ("claims:", "claims: [", "YAML"),
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
    table = claims.compare(register, evidence({3: 0.061, 4: 0.5}), committed)
    assert table["agrees"].tolist() == ["yes", "no"]
    assert table["mean"].tolist() == pytest.approx([0.06, 0.06]) and table["committed"].isna().all()
    assert claims.compare(register, evidence({3: 0.061}), evidence({0: 0.05}))["agrees"].tolist() == ["unknown"]
    assert claims.compare(register, evidence({}), committed).empty


def test_compare_holds_a_committed_seed_to_its_committed_self(tmp_path):
    register = claims.load(write(tmp_path, GROWTH))
    committed = evidence({0: 0.05, 1: 0.06, 2: 0.07})  # between-seed standard deviation .01
    table = claims.compare(register, evidence({0: 0.05, 1: 0.069, 2: 0.055}), committed)
    assert table["committed"].tolist() == pytest.approx([0.05, 0.06, 0.07])
    assert table["agrees"].tolist() == ["yes", "yes", "no"]


REGISTER = claims.load(paths.claims_file("rethinking_opd"))


@pytest.mark.parametrize("claim", REGISTER.claims, ids=lambda claim: claim.id)
def test_committed_claims_name_known_arms_and_columns(claim):
    known = ARMS[claim.notebook]
    for name, texts in quantities.calls(claim.quantity):
        if name in quantities.ARITHMETIC:
            continue
        if name == "checkpoint":
            assert set(texts) <= CHECKPOINTS
        elif name == "recovery":
            assert texts[0] in known and texts[1] in CHECKPOINTS
        elif name.startswith("accuracy"):
            assert texts and set(texts) <= known
        else:
            assert texts[0] in known and texts[1] in COLUMNS
    assert claim.threshold.smoke == claim.threshold.tiny


def test_committed_claims_can_all_be_judged():
    columns = dict.fromkeys(COLUMNS, 0.9)
    experiments: dict[str, dict[str, pd.DataFrame]] = {
        name: {
            "steps": pd.DataFrame([{"arm": a, "seed": 0, "step": s, **columns} for a in arms for s in STEPS]),
            "evals": evals({arm: [0.4, 0.6, 0.6] for arm in arms}),
        }
        for name, arms in ARMS.items()
    }
    experiments["00_models"] = {"evals": evals({name: [0.5] for name in CHECKPOINTS})}
    judged = claims.judge(REGISTER, Evidence(profile="tiny", experiments=experiments))
    assert set(judged["verdict"]) == {"inconclusive"} and set(judged["n_seeds"]) == {1}
    assert judged["estimate"].notna().all()
