"""Methods beside `opd`: golden values, exact expectations and gradients by enumeration, reductions to the bit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import OPD
from seams import BRTS, PRUNE, SOD, UNI
from test_methods_exact import TRUNCATED, V, close, draw, options, outcome, score
from torch import Tensor

from opd_lib import methods
from opd_lib.maths import diagnostics, truncation
from opd_lib.methods import blind, brts, eff_opd, filled, opd, opsd, prune, sod, uni_opd, vopd
from opd_lib.seam import Group, View
from opd_lib.types import Prompt

BLANK = Prompt(id="", source="", question="", rendered="", token_ids=(1,), answer="7")


def of(module: Any, **changes: Any) -> Any:
    """A method's options on top of the published objective's."""
    return module.Params(**{key: value for key, value in OPD.items() if key != "name"} | changes)


def seen(lengths: list[int], rewards: list[list[float]], signal: dict[str, list[float]], **more: Any) -> View:
    """A view of responses of these lengths, `rewards` by group."""
    length_B = torch.tensor(lengths)
    reward_PG = torch.tensor(rewards)
    return View(
        signal={name: torch.tensor(values) for name, values in signal.items()},
        token_N=torch.zeros(int(length_B.sum()), dtype=torch.long),
        row_N=torch.arange(len(lengths)).repeat_interleave(length_B),
        position_N=torch.cat([torch.arange(n) for n in lengths]),
        turn_N=more.pop("turn_N", torch.zeros(int(length_B.sum()), dtype=torch.long)),
        reward_PG=reward_PG,
        reward_B=reward_PG.flatten(),
        length_B=length_B,
        finished_B=torch.ones(len(lengths), dtype=torch.bool),
        uniform_B=more.pop("uniform_B", torch.full((len(lengths),), math.nan)),
        prompts=more.pop("prompts", (BLANK,) * len(lengths)),
        shown_numbers={},
        texts=tuple,
        **more,
    )


class Weights:
    """A world of vectors: ten lines that a method cannot tell from a run's."""

    def __init__(self, **weights: Tensor) -> None:
        self.weights, self.settings, self.scores = dict(weights), {}, iter(())
        self.tried: list[Tensor] = []

    def combine(self, into: str, of: Any, only: Any = ()) -> None:
        self.weights[into] = sum((share * self.weights[name] for name, share in of.items()), torch.zeros(2))

    def set(self, key: str, value: float) -> None:
        self.settings[key] = value

    def accuracy(self, n_prompts: int) -> float:
        self.tried.append(self.weights["student"])
        return next(self.scores)


# --- vOPD ------------------------------------------------------------------------------------------------------------


P, Q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64)


def vopd_values(baseline: str, k: int, logits_V: Tensor, teacher_V: Tensor) -> Tensor:
    """The value of each token of the vocabulary, drawn at one position."""
    n = len(logits_V)
    scores = score(logits_V.expand(n, -1), teacher_V.expand(n, -1), torch.arange(n), k)
    return vopd.value(scores, vopd.Params(baseline=baseline, k=k))  # type: ignore[arg-type]


def test_vopd_golden_advantages() -> None:
    value_V = vopd_values("full", 0, P.log(), Q.log())
    torch.testing.assert_close(-value_V, torch.tensor([-0.32473, 0.87925, -0.50705]).double(), atol=1e-5, rtol=0)
    close((P * value_V).sum(), 0.0)


@pytest.mark.parametrize(("baseline", "k"), [("none", 0), ("full", 0), ("topk", 2), ("topk", 3)])
def test_vopd_expects_the_reverse_kls_gradient_whatever_the_baseline(baseline: str, k: int) -> None:
    student_NV, teacher_NV, _ = draw(n=3)
    for student_V, teacher_V in zip(student_NV, teacher_NV, strict=True):
        leaf_V = student_V.clone().requires_grad_()
        value_V = vopd_values(baseline, k, leaf_V, teacher_V)
        (expected_V,) = torch.autograd.grad((student_V.softmax(-1) * value_V).sum(), leaf_V)
        exact_V = student_V.clone().requires_grad_()
        p_V, q_V = exact_V.softmax(-1), teacher_V.softmax(-1)
        (true_V,) = torch.autograd.grad((p_V * (p_V / q_V).log()).sum(), exact_V)
        close(expected_V, true_V)


def test_vopd_without_baseline_is_the_sampled_objective_to_the_bit() -> None:
    student_NV, teacher_NV, token_N = draw()
    scores = score(student_NV, teacher_NV, token_N, 0)
    mine_N = vopd.value(scores, vopd.Params(baseline="none", k=0))
    assert mine_N.equal(opd.value(scores, options(estimator="sampled")))
    baselines = [vopd.expected_ratio(score(student_NV, teacher_NV, token_N, V), vopd.Params(baseline="topk", k=V)),
                 vopd.expected_ratio(scores, vopd.Params(baseline="full", k=0))]  # fmt: skip
    close(*baselines)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"baseline": "topk", "k": 1}, "a baseline over one token is 0; use 2 ≤ k ≤ 7"),
        ({"baseline": "topk", "k": 8}, "use 2 ≤ k ≤ 7"),
        ({"baseline": "full", "k": 2}, "baseline full reads no list; write k: 0"),
    ],
)
def test_vopd_refuses(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vopd.check(vopd.Params(**params), 7, True)
    whole = vopd.Params(baseline="full", k=0)
    with pytest.raises(ValueError, match=r"method\.baseline: full: a vLLM server scores"):
        vopd.check_served(whole)
    with pytest.raises(ValueError, match="teacher: null"):
        vopd.check(whole, 7, False)


# --- the fill-in of the second paper's code, and losses that teach nothing --------------------------------------------


def slope(module: Any, params: Any, student_NV: Tensor, teacher_NV: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
    """A method's values (N) and their gradient at the student's logits."""
    leaf_NV = student_NV.clone().requires_grad_()
    value_N = module.value(score(leaf_NV, teacher_NV, token_N, module.reads(params).k), params)
    return value_N.detach(), torch.autograd.grad(value_N.sum(), leaf_NV)[0]


@pytest.mark.parametrize("held", [True, False])
def test_a_teacher_asked_for_its_list_alone_has_the_closed_forms_gradient(held: bool) -> None:
    student_NV, teacher_NV, token_N = draw(n=16)
    logp_NV, logq_NV = student_NV.log_softmax(-1), teacher_NV.log_softmax(-1)
    support_NV, listed_NV = truncation.top(student_NV, 3), truncation.top(teacher_NV, 3)
    value_N, slope_NV = slope(filled, filled.Params(k=3, stop_gradient=held), student_NV, teacher_NV, token_N)
    name = "filled-held" if held else "filled"
    close(slope_NV, truncation.gradient(name, student_NV, logq_NV, support_NV, listed_NV))
    close(value_N, (logp_NV.exp() * (logp_NV - logq_NV) * (support_NV & listed_NV)).sum(-1))
    assert (support_NV & ~listed_NV).any(1).sum() > 4


@pytest.mark.parametrize("held", [True, False])
def test_a_teacher_that_lists_everything_has_nothing_filled_in(held: bool) -> None:
    batch = draw()
    total, slope_NV = outcome(options(k=V, normalize="raw", stop_gradient=held), *batch)
    value_N, mine_NV = slope(filled, filled.Params(k=V, stop_gradient=held), *batch)
    assert value_N.sum().equal(total) and mine_NV.equal(slope_NV)


@pytest.mark.parametrize(("loss", "k"), [("sampled", 0), ("advantage", 3)])
def test_a_blind_loss_expects_no_gradient(loss: Any, k: int) -> None:
    student_NV, teacher_NV, token_N = draw()
    params = blind.Params(loss=loss, k=k, control=True)
    expected_NV = torch.zeros_like(student_NV)
    for token in range(V):
        slope_NV = slope(blind, params, student_NV, teacher_NV, torch.full_like(token_N, token))[1]
        assert slope_NV.norm() > 1e-2, "one draw of it does move the student"
        expected_NV += student_NV.softmax(-1)[:, token, None] * slope_NV
    close(expected_NV, 0.0)
    others = slope(blind, params, student_NV, teacher_NV.roll(1, -1), token_N)[1]
    assert others.equal(slope(blind, params, student_NV, teacher_NV, token_N)[1]) == (loss == "sampled")


def test_one_token_differentiated_falls_under_every_teacher() -> None:
    student_NV, _, token_N = draw()
    student_NV[:, 2] = 4.0
    assert (student_NV.softmax(-1)[:, 2] > 1 / math.e).all()
    teachers = [draw(seed=seed)[1] for seed in range(20)] + [student_NV * 2]
    params = blind.Params(loss="top1", k=0, control=True)
    for teacher_NV in teachers:
        slope_NV = slope(blind, params, student_NV, teacher_NV, token_N)[1]
        assert (slope_NV[:, 2] > 0).all()
        close(slope_NV, outcome(options(k=1, **TRUNCATED), student_NV, teacher_NV, token_N)[1])


@pytest.mark.parametrize(
    ("module", "params", "message"),
    [
        (filled, {"k": 0, "stop_gradient": True}, r"method\.k: 0: the vocabulary has 9 tokens; use 1 ≤ k ≤ 9"),
        (filled, {"k": 10, "stop_gradient": True}, r"method\.k: 10: .*use 1 ≤ k ≤ 9"),
        (
            filled,
            {"k": 1, "stop_gradient": False},
            r"method\.stop_gradient: false: .*; use stop_gradient: true, or k > 1",
        ),
        (
            blind,
            {"loss": "sampled", "k": 0, "control": False},
            r"method\.control: false: .*does not contain the teacher",
        ),
        (
            blind,
            {"loss": "top1", "k": 2, "control": True},
            r"method\.k: 2: loss top1 has no list to choose; write k: 0",
        ),
        (blind, {"loss": "advantage", "k": 0, "control": True}, r"method\.k: 0: .*use 1 ≤ k ≤ 9"),
    ],
)
def test_what_cannot_be_filled_in_and_what_is_no_control_is_refused(
    module: Any, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        module.check(module.Params(**params), V, True)
    right = {"k": 2, "loss": "advantage", "control": True, "stop_gradient": True}
    known = module.Params(**{key: right[key] for key in params})
    module.check(known, V, True)
    with pytest.raises(ValueError, match="teacher: null"):
        module.check(known, V, False)


# --- gradients of what is sampled, summed over all tokens -------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.7])
@pytest.mark.parametrize("module", [uni_opd, sod])
def test_a_sampled_token_expects_the_reverse_kls_gradient_whatever_is_added(module: Any, shift: float) -> None:
    """A constant of the response (Uni-OPD's c, SOD's group advantage) has no gradient in expectation."""
    asked = uni_opd.Params(**UNI | {"route": {}}) if module is uni_opd else sod.Params(**SOD)
    student_NV, teacher_NV, _ = draw(n=3)
    for student_V, teacher_V in zip(student_NV, teacher_NV, strict=True):
        for against_V in (teacher_V, student_V):
            leaf_V = student_V.clone().requires_grad_()
            scores = score(leaf_V.expand(V, -1), against_V.expand(V, -1), torch.arange(V), 0)
            ratio_V = (scores.student_logp_N - scores.teacher_logp_N).detach()
            added_V = torch.full((V,), shift, dtype=torch.float64)
            given_V = added_V if module is uni_opd else added_V - ratio_V
            value_V = module.value(replace(scores, advantage_N=given_V), asked)
            (expected_V,) = torch.autograd.grad((leaf_V.detach().softmax(-1) * value_V).sum(), leaf_V)
            exact_V = student_V.clone().requires_grad_()
            p_V, q_V = exact_V.softmax(-1), against_V.softmax(-1)
            (true_V,) = torch.autograd.grad((p_V * (p_V / q_V).log()).sum(), exact_V)
            close(expected_V, true_V)
            close(value_V.detach(), ratio_V - added_V)
            assert against_V is teacher_V or expected_V.abs().max() < 1e-12, "nothing to learn from oneself"


def test_the_objective_that_weights_and_branches_stand_beside_is_opds_own() -> None:
    assert prune.value is brts.value is eff_opd.value is opsd.value is opd.value


# --- Prune-OPD -------------------------------------------------------------------------------------------------------


def test_prune_golden_weights_begin_anew_in_each_response() -> None:
    bad = [0.0, 1.0, 1.0, 0.0, 1.0]
    view = seen([5, 5], [[1.0, 0.0]], {"overlap_k2": [1.0 - b for b in [*bad, *bad]]})
    weight_N = prune.weights(view, of(prune, **PRUNE))
    torch.testing.assert_close(weight_N, torch.tensor([1.0, 0.99, 0.98, 0.98, 0.97] * 2))
    assert prune.weights(view, of(prune, **PRUNE | {"base": 0.5})).equal(weight_N + 0.5)
    hard = of(prune, **PRUNE | {"drop": 0.5, "limit_start": 3})
    assert prune.weights(view, hard).tolist() == [1.0, 0.5, 0.0, 0.0, 0.0] * 2
    assert prune.notes(view, hard) == {"effective_length": (4.0, 2.0), "limit_hits": (2.0, 2.0)}


def test_prune_without_threshold_and_base_weighs_every_token_alike() -> None:
    view = seen([2, 3], [[1.0, 0.0]], {"overlap_k2": [0.0, 0.1, 1.0, 0.0, 0.5]})
    assert prune.weights(view, of(prune, **PRUNE | {"threshold": 0.0})).tolist() == [1.0] * 5
    assert prune.value is opd.value


def test_prune_moves_the_limit_between_its_bounds() -> None:
    params, world, state = of(prune, **PRUNE), Weights(), {}
    hits = [0.5, 0.9, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5]
    limits = []
    for step, share in enumerate([math.nan, *hits]):
        state = dict(prune.after_step(world, {"step": step, "limit_hits": share}, state, params))
        params = params.model_copy(update={"limit_start": int(world.settings["method.limit_start"])})
        limits.append(params.limit_start)
        assert world.settings["source.max_new_tokens"] == params.limit_start
    assert limits == [8, 10, 12, 12, 12, 12, 10, 10, 10, 8, 8, 8, 6, 8]
    still = of(prune, **PRUNE | {"limit_step": 0})
    assert prune.after_step(Weights(), {"step": 0}, {}, still) == {}


# --- OPSD ------------------------------------------------------------------------------------------------------------


def test_opsd_shows_the_teacher_another_user_message_and_nothing_else() -> None:
    prompt = replace(BLANK, chat=(("system", "T1"), ("user", "3 + 4")), solution="3 + 4 = 7 ; <ans> 7")
    groups = [Group(texts=("a", "b"), rewards=(1.0, 0.0))]
    shows = of(opsd, shows="{question} <ans> {answer}", decay=1.0)
    found = opsd.shown([prompt], groups, shows, lambda name, chats: ())
    assert found.chats == [(("system", "T1"), ("user", "3 + 4 <ans> 7"))] * 2
    same = opsd.shown([prompt], groups, of(opsd, shows="{question}", decay=1.0), lambda name, chats: ())
    assert same.chats == [prompt.chat] * 2
    with pytest.raises(ValueError, match=r"method\.shows: '\{hint\}': 'hint'; use \{question\}, \{answer\}"):
        opsd.check(of(opsd, shows="{hint}", decay=1.0), 128, True)


def test_opsd_moves_a_teacher_of_its_own_after_each_step() -> None:
    world = Weights(student=torch.tensor([1.0, 0.0]), teacher=torch.tensor([0.0, 1.0]))
    params = of(opsd, shows="{question}", decay=0.75)
    for step in (0, 1):
        opsd.after_step(world, {"step": step}, {}, params)
    assert world.weights["teacher"].tolist() == [0.25, 0.75]
    opsd.after_step(world, {"step": 2}, {}, of(opsd, shows="{question}", decay=1.0))
    assert world.weights["teacher"].tolist() == [0.25, 0.75]


# --- EffOPD ----------------------------------------------------------------------------------------------------------


def test_eff_opd_tries_multiples_of_the_way_and_takes_the_best() -> None:
    """Offsets 2Δ, 4Δ, …; the first that is not better ends the search."""
    world, params = Weights(student=torch.zeros(2)), of(eff_opd, k_max=5, tried=4)
    state = eff_opd.after_step(world, {"step": 0}, {}, params)
    world.weights["student"] = torch.tensor([1.0, 2.0])
    world.scores = iter([0.1, 0.2, 0.3, 0.3])
    state = eff_opd.after_step(world, {"step": 1}, state, params)
    assert [tried.tolist() for tried in world.tried] == [[1.0, 2.0], [3.0, 6.0], [5.0, 10.0], [7.0, 14.0]]
    assert world.weights["student"].tolist() == world.weights["anchor"].tolist() == [5.0, 10.0] and state == {"k": 2.0}
    world.scores = iter([0.5, 0.4])
    world.weights["student"] = torch.tensor([6.0, 10.0])
    assert eff_opd.after_step(world, {"step": 2}, state, params) == {"k": 0.0}
    assert world.weights["student"].tolist() == world.weights["anchor"].tolist() == [6.0, 10.0]
    world.scores = iter(())
    assert eff_opd.after_step(world, {"step": 3}, state, params) == state, "between powers of two nothing happens"
    world.scores = iter([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    world.weights["student"] = torch.tensor([7.0, 10.0])
    assert eff_opd.after_step(world, {"step": 4}, state, params) == {"k": 5.0}
    assert world.weights["student"].tolist() == [17.0, 10.0]


# --- Uni-OPD ---------------------------------------------------------------------------------------------------------


def uni(**changes: Any) -> uni_opd.Params:
    return uni_opd.Params(**UNI | changes)


def test_uni_opd_golden_shift_puts_the_right_ahead_by_the_margin() -> None:
    """ū .1 of the right and .3 of the wrong response become .4 and 0; other groups stay."""
    u_N = [0.0, 0.2, 0.3, 0.3, 0.9, 0.1, 0.2, 0.3]
    view = seen([2, 2, 1, 1, 1, 1], [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], {"sampled_reverse_kl": [-u for u in u_N]})
    shift_B = uni_opd.advantages(view, uni())
    torch.testing.assert_close(shift_B, torch.tensor([0.3, -0.3, 0.0, 0.0, 0.0, 0.0]))
    assert not uni_opd.advantages(view, uni(margin=None)).any()
    weight_N = uni_opd.weights(view, uni(extreme=0.3))
    assert weight_N.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]


def test_uni_opd_balances_groups_by_chance() -> None:
    reward_PG = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0] * 4, [1.0, 1.0, 0.0, 0.0]]
    uniform_B = torch.tensor([0.5, 0.2, 0.1, 0.3] * 4)
    view = seen([1] * 16, reward_PG, {"sampled_reverse_kl": [0.0] * 16}, uniform_B=uniform_B)
    kept_PG = uni_opd.select(view, uni(balance=True)).view(4, 4).tolist()
    assert kept_PG == [[True, False, True, False], [False, False, True, True], [True] * 4, [True] * 4]
    assert uni_opd.select(view, uni()).all()


def test_uni_opd_routes_by_content_and_reads_each_teachers_log_ratio() -> None:
    params = uni(route={"chain-a": "one", "chain-b": "two"}, margin=0.4)
    prompts = (replace(BLANK, domain="chain-a"), replace(BLANK, domain="chain-b"))
    signal = {"sampled_reverse_kl@one": [1.0, 2.0, 9.0], "sampled_reverse_kl@two": [9.0, 9.0, 3.0]}
    view = seen([2, 1], [[1.0, 0.0]], signal, prompts=prompts)
    assert {name: share.tolist() for name, share in uni_opd.shares(view, params).items()} == {
        "one": [1.0, 1.0, 0.0], "two": [0.0, 0.0, 1.0]
    }  # fmt: skip
    assert uni_opd.log_ratio(view, params).tolist() == [-1.0, -2.0, -3.0]
    assert uni_opd.reads(params).signals == set(signal)


def test_uni_opd_without_margin_is_the_sampled_objective_to_the_bit() -> None:
    student_NV, teacher_NV, token_N = draw()
    scores = replace(score(student_NV, teacher_NV, token_N, 0), advantage_N=torch.zeros(len(token_N)).double())
    assert uni_opd.value(scores, uni(margin=None)).equal(opd.value(scores, options(estimator="sampled")))


# --- BRTS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "overlap", "chosen"),
    [
        ([1.0, 1.0, 0.0], [0.2, 0.6, 0.9], 1),  # tier 1: the right one nearest to the student
        ([1.0, 0.0, 1.0], [0.2, 0.6, 0.9], 0),  # never a wrong one while a right one is there
        ([1.0, 1.0, 0.0], [0.5, 0.5, 0.0], 0),  # the first of equals
        ([0.0, 0.0, 1.0], [0.2, 0.6, 0.1], 2),  # tier 2: written with the hint
        ([0.0, 0.0, 0.0], [0.2, 0.6, 0.9], 1),  # tier 3: the most similar of those without
    ],
)
def test_brts_chooses_by_tiers(rewards: list[float], overlap: list[float], chosen: int) -> None:
    params = of(brts, **BRTS | {"part": "teacher", "hint": "{question} <ans> {answer}"})
    view = seen([1, 1, 1], [rewards], {"overlap_k2": overlap})
    assert brts.select(view, params).tolist() == [i == chosen for i in range(3)]
    tier1, tier2 = (brts.notes(view, params)[name][0] for name in ("tier1", "tier2"))
    assert (tier1, tier2) == (float(chosen < 2 and max(rewards[:2]) > 0), float(chosen == 2))


def test_brts_without_hint_has_two_tiers_and_its_student_part_is_opd() -> None:
    params = of(brts, **BRTS | {"part": "teacher"})
    view = seen([1, 2], [[0.0, 0.0]], {"overlap_k2": [0.9, 0.1, 0.2]})
    assert brts.select(view, params).tolist() == [True, False]
    assert brts.value is opd.value
    student = of(brts, **BRTS)
    assert brts.select(view, student).all() and brts.notes(view, student) == {}
    (branch,) = brts.branches(student)
    assert branch.coef == 1.0 and branch.changes["source.per_prompt"] == 2
    taught = methods.load("brts").Params(**{k: v for k, v in branch.changes["method"].items() if k != "name"})
    assert (taught.direction, taught.support, taught.part) == ("forward", "teacher", "teacher")
    assert brts.branches(taught) == ()


# --- the seam --------------------------------------------------------------------------------------------------------


def test_signals_are_single_tokens_values_and_undefined_where_a_metric_is() -> None:
    student_NV, teacher_NV, token_N = draw()
    scores = score(student_NV, teacher_NV, token_N, 3)
    found = diagnostics.signals(scores, {"reverse_kl", "overlap_k2", "advantage_paper_k1", "student_entropy"})
    p_NV, q_NV = student_NV.softmax(-1), teacher_NV.softmax(-1)
    close(found["reverse_kl"], (p_NV * (p_NV / q_NV).log()).sum(-1))
    close(found["student_entropy"], -(p_NV * p_NV.log()).sum(-1))
    shared_N = torch.tensor(
        [len({*a} & {*b}) for a, b in zip(p_NV.topk(2)[1].tolist(), q_NV.topk(2)[1].tolist(), strict=True)]
    )
    close(found["overlap_k2"], shared_N / 2)
    one_N = p_NV.argmax(-1) == q_NV.argmax(-1)
    assert found["advantage_paper_k1"].isnan().equal(~one_N) and not one_N.all() and one_N.any()
    with pytest.raises(ValueError, match=r"signal 'overlop_k2' is unknown; there are .*overlap_k2, .*reverse_kl"):
        diagnostics.signals(scores, {"overlop_k2"})


# --- SOD -------------------------------------------------------------------------------------------------------------


def test_sod_golden_weights_by_turn() -> None:
    """d = (.2, .4, .1, .8) → (1, .5, 1.2, .25), however long a turn is; the only turn of a response has 1."""
    ratio = [0.2, 0.5, -0.3, 0.1, 0.8, 0.9]
    turn_N = torch.tensor([0, 1, 1, 2, 3, 0])
    view = seen([5, 1], [[1.0, 0.0]], {"sampled_reverse_kl": ratio}, turn_N=turn_N)
    weight_N = sod.turn_weights(view, sod.Params(**SOD))
    torch.testing.assert_close(weight_N, torch.tensor([1.0, 0.5, 0.5, 1.2, 0.25, 1.0]), atol=1e-4, rtol=0)
    advantage_N = sod.advantages(view, sod.Params(**SOD | {"outcome": True, "coef": 2.0}))
    group_N = torch.tensor([0.5] * 5 + [-0.5])
    torch.testing.assert_close(advantage_N, group_N - 2.0 * weight_N * torch.tensor(ratio))


def test_sod_of_one_turn_without_outcome_is_the_sampled_objective_to_the_bit() -> None:
    student_NV, teacher_NV, token_N = draw()
    scores = score(student_NV, teacher_NV, token_N, 0)
    signal = diagnostics.signals(scores, {"sampled_reverse_kl"})
    view = replace(seen([4], [[1.0]], {}), signal=signal)
    taught = replace(scores, advantage_N=sod.advantages(view, sod.Params(**SOD)))
    assert sod.value(taught, sod.Params(**SOD)).equal(opd.value(scores, options(estimator="sampled")))
