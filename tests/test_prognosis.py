"""What is known before training: measured as a run would, related to outcomes honestly, refused where unknown."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import conftest
import micro
import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from test_cli import opd

from opd_lib.engine import pair_features, sources, train
from opd_lib.engine.model import models
from opd_lib.judge import prognosis
from opd_lib.maths import stats
from opd_lib.params.schema import NewModel, RunParams
from opd_lib.run import check

STUDENT, TEACHER = "run:00_models/student", "run:00_models/teacher"


def frame(n_pairs: int = 15, seeds: int = 2, seed: int = 0, per_pair: int = 1, **columns: Any) -> pd.DataFrame:
    """Random features that vary between pairs and little between seeds; the given columns replace them."""
    random = np.random.default_rng(seed)
    level = {name: random.normal(size=n_pairs) for name in (*prognosis.FEATURES, "gain")}
    rows = [
        {"arm": f"arm{pair}-{copy}", "seed": s, "pair": f"pair{pair}", "start": 0.5, "teacher": 0.5, "recovery": 1.0}
        | {name: values[pair] + 0.01 * random.normal() for name, values in level.items()}
        for pair in range(n_pairs)
        for copy in range(per_pair)
        for s in range(seeds)
    ]
    found = pd.DataFrame(rows)
    found["end"] = found["start"] + found["gain"]
    return found.assign(**columns)


def measured(**values: float) -> dict[str, float]:
    return dict.fromkeys((*prognosis.FEATURES, "teacher"), 0.0) | {"start": 0.5} | values


def test_features_are_first_steps_and_outcomes_and_know_which_arms_are_one_pair() -> None:
    def steps(arm: str, value: float) -> list[dict[str, Any]]:
        first = dict.fromkeys(prognosis.START, value)
        return [
            {"arm": arm, "seed": 0, "step": 1, **first},
            {"arm": arm, "seed": 0, "step": 2, **first, "reverse_kl": 9},
        ]

    def evals(arm: str, *accuracies: float) -> list[dict[str, Any]]:
        rows = enumerate(accuracies)
        return [{"arm": arm, "seed": 0, "step": s, "test_set": "chain-3", "accuracy": value} for s, value in rows]

    curves = {"a": (0.2, 0.6), "b": (0.2, 0.4), "c": (0.3, 0.6), "d": (0.2, 0.3)}
    found = prognosis.features(
        pd.DataFrame([row for index, arm in enumerate(curves) for row in steps(arm, index)]),
        pd.DataFrame([row for arm, values in curves.items() for row in evals(arm, *values)]),
        pd.DataFrame([*evals("large", 0.1, 0.7), *evals("small", 0.1, 0.25)]),
        {"a": "large", "b": "large", "c": "large", "d": "small"},
    ).set_index("arm")
    assert found["reverse_kl"].to_dict() == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert found["teacher_gap"].to_dict() == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.4, "d": 0.05})
    assert found["gain"].to_dict() == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.3, "d": 0.1})
    assert found["recovery"]["a"] == pytest.approx(0.8)
    pairs = found["pair"]
    assert pairs["a"] == pairs["b"] and len({pairs["a"], pairs["c"], pairs["d"]}) == 3


def test_correlations_are_rank_correlations_of_each_seed_with_their_t_interval() -> None:
    seen = frame(seeds=3)
    seen["overlap_k16"] = np.exp(seen["gain"])
    seen["reverse_kl"] = -seen["gain"]
    seen["truncated_share"] = 0.0
    found = prognosis.correlations(seen, "gain").set_index("feature")
    assert found.loc["overlap_k16", ["correlation", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert found.loc["reverse_kl", "correlation"] == pytest.approx(-1)
    assert math.isnan(found.loc["truncated_share", "correlation"])
    by_hand = [
        float(rows["student_entropy"].rank().corr(rows["gain"].rank())) for _, rows in seen.groupby("seed")
    ]  # Spearman's is Pearson's of the ranks
    interval = stats.t_interval(by_hand)
    assert found.loc["student_entropy", ["correlation", "low", "high"]].tolist() == pytest.approx(
        [interval.estimate, interval.low, interval.high]
    )
    assert set(found["n_arms"]) == {15} and set(found["n_seeds"]) == {3}


def test_arms_without_the_outcome_are_left_out_of_a_correlation() -> None:
    seen = frame(seeds=1)
    seen["recovery"] = seen["gain"].where(seen["gain"] > 0)
    seen["overlap_k16"] = seen["gain"].where(seen["gain"] > 0, -100 * seen["gain"])  # ordered only where there is one
    found = prognosis.correlations(seen, "recovery").set_index("feature")
    assert found.loc["overlap_k16", "correlation"] == pytest.approx(1)
    assert found.loc["overlap_k16", "n_arms"] == int((seen["gain"] > 0).sum()) < 15
    assert math.isnan(found.loc["overlap_k16", "low"])  # one seed decides nothing


def test_leave_one_out_is_the_closed_form_of_least_squares() -> None:
    seen = frame()
    arms = prognosis.by_arm(seen)
    found = prognosis.leave_one_out(seen).set_index("model")
    for name, predictors in prognosis.LINES.items():
        design = np.column_stack([np.ones(len(arms)), *(arms[p] for p in predictors)])
        hat = design @ np.linalg.pinv(design)
        gain = arms["gain"].to_numpy()
        residuals = (gain - hat @ gain) / (1 - np.diag(hat))  # PRESS
        assert found.loc[name, "error"] == pytest.approx(float(np.sqrt((residuals**2).mean())))
    assert found["explained"].iloc[0] == 0 and set(found["n_pairs"]) == {15}


def test_all_runs_of_a_pair_are_left_out_together() -> None:
    one, three = prognosis.leave_one_out(frame(seeds=1)), prognosis.leave_one_out(copies(frame(seeds=1), 3))
    assert three["error"].tolist() == pytest.approx(one["error"].tolist())
    assert (three["n_arms"] == 45).all() and (three["n_pairs"] == 15).all()


def copies(seen: pd.DataFrame, n: int) -> pd.DataFrame:
    """Every run n times under other names: nothing is learnt from them about another pair."""
    return pd.concat([seen.assign(arm=seen["arm"] + f"-{copy}") for copy in range(n)], ignore_index=True)


def test_a_feature_that_says_all_gives_an_exact_prognosis() -> None:
    seen = frame()
    seen["gain"] = 0.02 + 0.1 * seen[prognosis.GAP]
    found = prognosis.predict(seen, measured(teacher_gap=0.7))
    assert found.is_of_use and found.error == pytest.approx(0, abs=1e-12)
    assert (found.gain, found.low, found.high) == pytest.approx((0.09, 0.09, 0.09))
    assert found.outside == ()
    assert prognosis.leave_one_out(seen)["explained"].tolist() == pytest.approx([0, 1, 1])
    text = check.outlook(found, settings(), 0.3)
    assert "by 0.090, with 95 % probability by 0.090 to 0.090" in text and "is cut" not in text


def test_noise_is_no_better_than_the_mean_and_gives_no_number() -> None:
    useless = [prognosis.predict(frame(seed=seed), measured()) for seed in range(40)]
    refused = [found for found in useless if not found.is_of_use]
    assert len(refused) >= 30  # noise alone seldom predicts a pair left out
    assert all(math.isnan(found.gain) and math.isnan(found.low) for found in refused)
    text = check.outlook(refused[0], settings(), 0.3)
    assert text.startswith("No prognosis") and "Leave-one-out error" in text and "accuracy changes" not in text


def test_the_interval_covers_new_pairs() -> None:
    inside = []
    for seed in range(80):
        truth = frame(n_pairs=16, seeds=1, seed=seed)
        random = np.random.default_rng(seed + 10_000)
        noise = 0.03 * random.normal(size=16)
        truth["gain"] = 0.1 * truth[prognosis.GAP] - 0.05 * truth["reverse_kl"] + noise
        new = truth.iloc[-1]
        found = prognosis.predict(truth.iloc[:-1], {**measured(), **new[list(prognosis.FEATURES)].to_dict()})
        inside.append(found.low <= new["gain"] <= found.high)
    assert 0.9 <= sum(inside) / len(inside) <= 0.99


def test_a_prognosis_says_where_it_extends_the_line_and_stays_possible() -> None:
    seen = frame()
    seen["gain"] = 0.1 * seen[prognosis.GAP]
    found = prognosis.predict(seen, measured(teacher_gap=50.0, start=0.4))
    assert found.outside == (prognosis.GAP,)
    assert (found.gain, found.low, found.high) == pytest.approx((0.6, 0.6, 0.6))
    text = check.outlook(found, settings(), 0.4)
    assert "Extrapolated: beyond the arms seen in teacher_gap" in text and "cut where accuracy would be" in text


def test_too_few_pairs_give_no_prognosis() -> None:
    seen = frame(n_pairs=5)
    seen["gain"] = seen[prognosis.GAP]
    found = prognosis.predict(seen, measured())
    assert not found.is_of_use and "too few pairs" in check.outlook(found, settings(), 0.3)
    assert prognosis.predict(frame(n_pairs=1), measured()).outside == prognosis.PREDICTORS


def test_the_nearest_arm_is_the_one_with_the_same_measurements_in_any_unit() -> None:
    seen = frame(seeds=1)
    here = seen.iloc[4][list(prognosis.FEATURES)].to_dict()
    found = prognosis.nearest(seen, here)
    assert found["arm"].iloc[0] == "arm4-0" and found["distance"].iloc[0] == 0 and len(found) == 3
    assert found["distance"].is_monotonic_increasing
    other = prognosis.nearest(
        seen.assign(reverse_kl=1000 * seen["reverse_kl"]), here | {"reverse_kl": 1000 * here["reverse_kl"]}
    )
    assert other["arm"].tolist() == found["arm"].tolist()
    assert other["distance"].tolist() == pytest.approx(found["distance"].tolist())


def settings(**changes: Any) -> RunParams:
    """Parameters of a distillation run in the test world."""
    content = conftest.RUN | {"student": "student", "teacher": "teacher", "method": conftest.OPD} | changes
    return RunParams.model_validate(
        {key: value for key, value in content.items() if key not in ("title", "seeds", "arms")}
    )


def peaked(seed: int) -> sources.Model:
    """A random model that has an opinion, as the gates want it."""
    shape = NewModel.model_validate({**conftest.RUN["student"], "initializer_range": 0.6})
    return models.new_model(shape, seed), models.chain_tokenizer()


def test_measurements_are_those_of_full_distributions_token_by_token() -> None:
    student, teacher = peaked(0), peaked(1)
    found = pair_features.features(settings(), student, teacher, 3, seed=5)
    source = settings().source.model_copy(update={"prompts_per_step": 3})
    which = sources.BatchKey(seed=5, step=1, ranks=pair_features.ALONE)
    asked = settings().model_copy(update={"source": source})
    rollouts = sources.draw(asked, which, sources.Authors(student=student))
    totals: dict[str, list[float]] = {}
    with torch.no_grad():
        for row in range(len(rollouts.prompts)):
            p_NV, q_NV = (
                conftest.logits(model[0], rollouts, torch.tensor([row])).double().softmax(-1).tolist()
                for model in (student, teacher)
            )
            for p, q in zip(p_NV, q_NV, strict=True):
                for name, value in by_hand(p, q).items():
                    totals.setdefault(name, []).append(value)
    means = {name: sum(values) / len(values) for name, values in totals.items()}
    assert {name: found[name] for name in means} == pytest.approx(means, rel=1e-4)
    lengths, finished = rollouts.length_B.tolist(), rollouts.finished_B.tolist()
    assert len(lengths) == 6
    assert found["response_length"] == pytest.approx(sum(lengths) / 6)
    assert found["truncated_share"] == pytest.approx(1 - sum(finished) / 6)


def by_hand(p: list[float], q: list[float]) -> dict[str, float]:
    """Eqs 6, 7, 9, 10, both entropies and the reverse KL at one position, from two whole distributions."""
    tops = [set(sorted(range(len(d)), key=lambda token: -d[token])[:16]) for d in (p, q)]
    shared = tops[0] & tops[1]
    mass_p, mass_q = sum(p[token] for token in shared), sum(q[token] for token in shared)
    found = {}
    if shared:  # elsewhere the advantage is not defined
        terms = [p[v] / mass_p * math.log(q[v] / mass_q * mass_p / p[v]) for v in shared]
        found["advantage_paper_k16"] = sum(terms) / len(shared)
    return found | {
        "overlap_k16": len(shared) / 16,
        "student_mass_k16": mass_p,
        "teacher_mass_k16": mass_q,
        "student_entropy": -sum(x * math.log(x) for x in p),
        "teacher_entropy": -sum(x * math.log(x) for x in q),
        "reverse_kl": sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)),
    }


@pytest.fixture
def eleven(world: Path) -> Path:
    """The world with a notebook 11 that shares both runs of 01, one of which has its own objective."""
    content = conftest.RUN | {"student": STUDENT, "teacher": TEACHER, "method": conftest.OPD}
    content["arms"] = {f"01-{arm}": {"same_as": f"{micro.OPD}/{arm}"} for arm in ("plain", "sampled")}
    with (world / "params" / "tiny" / f"{check.NOTEBOOK}.yaml").open("w") as file:
        YAML().dump(content, file)
    return world


def test_check_measures_what_the_first_step_of_a_run_records(eleven: Path) -> None:
    micro.teach(eleven)
    for spec in (*micro.load(eleven).runs()[:2], *micro.load(eleven, micro.OPD).runs()):
        train.train(spec)
    experiment = micro.load(eleven, check.NOTEBOOK)
    own = check.common(experiment.source)
    seen = check.runs_seen(experiment, own)
    assert seen["arm"].tolist() == ["01-plain"]  # the other was trained on another objective
    pair = check.Pair(student=STUDENT, teacher=TEACHER, results=eleven / "results", root=eleven / "params")
    places = [check.locate(name, pair) for name in (STUDENT, TEACHER)]
    found = check.features(own, places, own.source.prompts_per_step, seed=0)
    expected = seen.iloc[0][[*prognosis.FEATURES, "start", "teacher"]].to_dict()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)
    result = opd(eleven, "check", STUDENT, TEACHER, "--prompts", "4")
    assert result.exit_code == 0, result.output
    assert "overlap_k16" in result.stdout and "the 1 arms of 11_what_predicts_success" in result.stdout
    assert "Among these arms is this pair itself: 01-plain.\n\nNo prognosis" in result.stdout
    shutil.rmtree(eleven / "results" / "tiny" / micro.OPD)
    result = opd(eleven, "check", STUDENT, str(places[1]), "--prompts", "2")
    assert result.exit_code == 0 and "No runs to compare with" in result.stdout


def other_vocabulary(world: Path) -> None:
    """Checkpoints beside the world's: two of one more word, and one whose tokenizer has no end token."""
    tokenizer = models.chain_tokenizer()
    models.save(*peaked(1), world / "peaked")
    tokenizer.eos_token, end = None, tokenizer.eos_token
    models.save(peaked(0)[0], tokenizer, world / "endless")
    tokenizer.eos_token = end
    tokenizer.add_tokens(["hello"])
    for name, seed in (("other", 0), ("others", 1)):
        model = peaked(seed)[0]
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        models.save(model, tokenizer, world / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "names no checkpoint; write a folder, org/name, gguf:FILE, or run:"),
        ("a\nb", "line breaks"),
        ("run:../x/y", "'..' is no name of a notebook"),
        ("run:00_models", "is no run"),
        ("run:00_models/base-small@x", "'x' is no seed"),
        ("run:00_models/nobody", "no arm 'nobody'"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check.locate(name, check.Pair(student=name, teacher=name))


def test_a_pinned_seed_is_the_one_that_is_looked_for() -> None:
    found = [check.locate("run:00_models/base-small@0", check.Pair(student="", teacher="", seed=n)) for n in (0, 1)]
    assert found[0] == found[1] and found[0].endswith("seed0/model")


def test_a_pair_of_another_vocabulary_is_measured_and_gets_no_prognosis(eleven: Path) -> None:
    other_vocabulary(eleven)
    result = opd(eleven, "check", str(eleven / "other"), str(eleven / "others"), "--prompts", "2")
    assert result.exit_code == 0, result.output
    assert "The vocabulary of these checkpoints is not the tiny world's" in result.stdout
    rows = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if len(line.split()) > 3}
    assert 0.0 < float(rows["overlap_k16"]) <= 1.0 and float(rows["reverse_kl"]) > 0.0
    assert rows["start"] == rows["teacher_gap"] == "–" and "Prognosis for" not in result.stdout


BAD = [
    ((STUDENT, TEACHER), ["run:00_models/student", "no weights", "`opd run 00_models student 0 --profile tiny"]),
    (("run:00_models/nobody", TEACHER), ["no arm 'nobody'", "student, teacher"]),
    (("run:07_nothing/x", TEACHER), ["07_nothing.yaml", "00_models"]),
    (("endless", "peaked"), ["student: its tokenizer has no eos_token"]),
    (("other", "peaked"), ["teacher: its vocabulary is not the student's", "needs one tokenizer"]),
    (("peaked", "nowhere/at/all"), ["cannot load a checkpoint from", "nowhere/at/all"]),
]


@pytest.mark.parametrize(("pair", "said"), BAD)
def test_what_cannot_be_checked_is_one_message(eleven: Path, pair: tuple[str, str], said: list[str]) -> None:
    other_vocabulary(eleven)
    names = [name if name.startswith("run:") else str(eleven / name) for name in pair]
    result = opd(eleven, "check", *names, "--prompts", "1")
    assert result.exit_code == 1
    assert all(word in result.stderr for word in said), result.stderr
    assert "Traceback" not in result.output
