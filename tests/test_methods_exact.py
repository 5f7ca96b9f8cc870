"""Every objective against an independent oracle, and the identities that tie the objectives to one another.

Tiny vocabularies, float64, exact enumeration: what is asserted holds to rounding, not on average.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, get_args

import oracles
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from opd_lib import methods
from opd_lib.maths import logprobs
from opd_lib.methods import _opd_refusals, grpo, opd, sft

V = 9
PUBLISHED: dict[str, Any] = {
    "estimator": "topk",
    "k": 3,
    "support": "student",
    "weight": "student_p",
    "normalize": "weights",
    "tail": "drop",
    "stop_gradient": True,
    "direction": "reverse",
    "beta": 0.3,
}
AS_PRINTED = {"normalize": "both", "stop_gradient": False}  # Eq. 5
EXACT = {"estimator": "full", "normalize": "raw", "stop_gradient": False}  # Eq. 4
TRUNCATED = {"normalize": "raw", "stop_gradient": False}
BLIND, ZERO = "blind to the teacher", "identically zero"


def options(**changes: Any) -> opd.Params:
    return opd.Params(**PUBLISHED | changes)


def is_accepted(params: opd.Params) -> bool:
    try:
        opd.check(params, V, True)
    except ValueError:
        return False
    return True


def every_combination() -> list[opd.Params]:
    """The full product of what can be chosen; `sampled` once per choice that it reads."""
    choices = {name: get_args(opd.Params.model_fields[name].annotation) for name in PUBLISHED}
    choices |= {"estimator": ("topk", "full"), "k": (1, 3, V), "stop_gradient": (True, False), "beta": (0.3,)}
    combinations = [opd.Params(**dict(zip(choices, values, strict=True))) for values in product(*choices.values())]
    directions = choices["direction"]
    sampled = [
        options(estimator="sampled", stop_gradient=stop, direction=d) for stop, d in product((True, False), directions)
    ]
    return sampled + [params for params in combinations if params.estimator != "full" or params.k == 1]


COMBINATIONS = every_combination()
ACCEPTED = [params for params in COMBINATIONS if is_accepted(params)]
every_accepted = pytest.mark.parametrize("params", ACCEPTED, ids=lambda p: "-".join(map(str, p.model_dump().values())))


def draw(n: int = 4, vocabulary: int = V, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits, teacher logits, tokens. First position: ranked alike; last position: the other way round."""
    generator = torch.Generator().manual_seed(seed)
    student_NV, teacher_NV = 1.5 * torch.randn(2, n, vocabulary, generator=generator, dtype=torch.float64)
    teacher_NV[0], teacher_NV[-1] = 0.6 * student_NV[0], -student_NV[-1]
    return student_NV, teacher_NV, torch.randint(vocabulary, (n,), generator=generator)


def score(student_NV: Tensor, teacher_NV: Tensor, token_N: Tensor, k: int, whole: bool = False) -> Any:
    places = (token_N, torch.zeros_like(token_N), torch.arange(len(token_N)))
    return logprobs.score(student_NV, teacher_NV, *places, k, whole=whole)


def outcome(
    params: opd.Params, student_NV: Tensor, teacher_NV: Tensor, token_N: Tensor, extra: int = 0
) -> tuple[Tensor, Tensor]:
    """Value and gradient at the student's logits; the lists may be `extra` tokens longer than needed."""
    leaf_NV = student_NV.clone().requires_grad_()
    reads = opd.reads(params)
    k = min(student_NV.shape[-1], reads.k + extra)
    total = opd.value(score(leaf_NV, teacher_NV, token_N, k, reads.distributions), params).sum()
    return total.detach(), torch.autograd.grad(total, leaf_NV)[0]


def gradient(value: Any, student_NV: Tensor) -> Tensor:
    """Gradient of a sum, written with probabilities p (N, V), at the logits."""
    leaf_NV = student_NV.clone().requires_grad_()
    return torch.autograd.grad(value(leaf_NV.softmax(-1)).sum(), leaf_NV)[0]


def top(p_NV: Tensor, k: int) -> Tensor:
    """1 on each row's k most likely tokens, 0 elsewhere."""
    return torch.zeros_like(p_NV).scatter(-1, p_NV.detach().topk(k, dim=-1).indices, 1.0)


def close(actual: Tensor, expected: Tensor | float) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).expand_as(actual)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


# --- every combination ---------------------------------------------------------------------------------------------


@every_accepted
def test_value_and_gradient_are_the_oracles(params: opd.Params) -> None:
    batch = draw()
    expected_value, expected_gradient_NV = oracles.of_opd(*batch, params)
    for extra in (0, 3):
        value, gradient_NV = outcome(params, *batch, extra=extra)
        close(value, expected_value)
        close(gradient_NV, expected_gradient_NV)


@every_accepted
def test_gradient_depends_on_the_teachers_probabilities(params: opd.Params) -> None:
    student_NV, teacher_NV, token_N = draw()
    changes = {"direction": "forward", "support": "teacher", "normalize": "weights", "estimator": "topk", "k": 1}
    hard_label = params.model_dump().items() >= changes.items()  # only the teacher's most likely token matters
    other_NV = teacher_NV.roll(1, -1) if hard_label else 1.3 * teacher_NV
    one_NV, two_NV = (outcome(params, student_NV, x_NV, token_N)[1] for x_NV in (teacher_NV, other_NV))
    assert float((one_NV - two_NV).norm()) > 1e-3


@every_accepted
def test_gradient_is_zero_at_a_teacher_that_is_the_student_unless_the_objective_leaks_mass(params: opd.Params) -> None:
    student_NV, _, token_N = draw()
    norm = float(outcome(params, student_NV, student_NV, token_N)[1].norm())
    truncated = params.estimator == "topk" and params.k < V and params.support != "symmetric_difference"
    weighs_mass = params.direction != "jsd" and not params.stop_gradient and params.normalize != "both"
    if truncated and weighs_mass and params.tail == "drop":
        assert norm > 1e-2  # Σ_S ∇p survives
    else:
        assert norm < 1e-12


def test_the_full_product_was_tried() -> None:
    assert len(COMBINATIONS) == 6 + 4 * 5 * 3 * 3 * 2 * 2 * 3  # full has one k, topk three
    assert 250 < len(ACCEPTED) < len(COMBINATIONS) / 2
    assert {(p.estimator, p.support, p.weight, p.normalize, p.tail, p.direction) for p in ACCEPTED} >= {
        ("topk", "student", "student_p", "weights", "drop", "reverse"),  # published default
        ("topk", "student", "student_p", "both", "drop", "reverse"),  # Eq. 5
        ("topk", "symmetric_difference", "student_p", "raw", "drop", "reverse"),  # published Non-Overlap
        ("topk", "teacher", "teacher_p", "weights", "drop", "reverse"),  # published REWARD_WEIGHT_MODE
    }


# --- identities ----------------------------------------------------------------------------------------------------


def test_full_is_the_exact_reverse_kl() -> None:
    student_NV, teacher_NV, token_N = draw()
    expected = torch.nn.functional.kl_div(
        teacher_NV.log_softmax(-1), student_NV.log_softmax(-1), reduction="sum", log_target=True
    )
    for stop_gradient in (True, False):
        for normalize in ("raw", "weights", "both"):
            params = options(**EXACT | {"stop_gradient": stop_gradient, "normalize": normalize})
            value, gradient_NV = outcome(params, student_NV, teacher_NV, token_N)
            close(value, expected)
            close(value, score(student_NV, teacher_NV, token_N, 0).reverse_kl_N.sum())
            close(gradient_NV, outcome(options(**EXACT), student_NV, teacher_NV, token_N)[1])


def test_equation_5_with_the_whole_vocabulary_is_equation_4() -> None:
    batch = draw()
    for printed, exact in zip(
        outcome(options(**AS_PRINTED, k=V), *batch), outcome(options(**EXACT), *batch), strict=True
    ):
        close(printed, exact)


def test_equation_5_at_k_1_is_identically_zero() -> None:
    value, gradient_NV = outcome(options(**AS_PRINTED, k=1), *draw())
    close(value, 0.0)
    close(gradient_NV, 0.0)


def test_published_gradient_is_the_truncated_sum_over_the_student_mass() -> None:
    student_NV, teacher_NV, token_N = draw()
    p_NV, q_NV = student_NV.softmax(-1), teacher_NV.softmax(-1)
    mask_NV = top(p_NV, 3)
    share_NV = mask_NV * p_NV / (mask_NV * p_NV).sum(-1, keepdim=True)
    expected_NV = gradient(lambda p: share_NV * (p_NV / q_NV).log() * p.log(), student_NV)
    close(outcome(options(), student_NV, teacher_NV, token_N)[1], expected_NV)


def test_published_gradient_is_that_of_the_generalised_reverse_kl() -> None:
    student_NV, teacher_NV, token_N = draw(vocabulary=50)
    q_NV = teacher_NV.softmax(-1)
    mask_NV = top(student_NV, 8)
    mass_N1 = (mask_NV * student_NV.softmax(-1)).sum(-1, keepdim=True)
    expected_NV = gradient(lambda p: mask_NV * (p * (p / q_NV).log() - p + q_NV) / mass_N1, student_NV)
    close(outcome(options(k=8), student_NV, teacher_NV, token_N)[1], expected_NV)


def test_published_gradient_is_equation_5s_plus_a_push_on_the_mass_of_the_support() -> None:
    student_NV, teacher_NV, token_N = draw()
    p_NV, q_NV = student_NV.softmax(-1), teacher_NV.softmax(-1)
    mask_NV = top(p_NV, 3)
    share_NV = mask_NV * p_NV / (mask_NV * p_NV).sum(-1, keepdim=True)
    mean_ratio_N = (share_NV * (p_NV / q_NV).log()).sum(-1)
    push_NV = gradient(lambda p: mean_ratio_N * (mask_NV * p).sum(-1).log(), student_NV)
    printed_NV = outcome(options(**AS_PRINTED), student_NV, teacher_NV, token_N)[1]
    close(outcome(options(), student_NV, teacher_NV, token_N)[1], printed_NV + push_NV)


def test_centring_the_published_log_ratio_gives_equation_5() -> None:
    student_NV, teacher_NV, token_N = draw()
    p_NV, q_NV = student_NV.softmax(-1), teacher_NV.softmax(-1)
    mask_NV = top(p_NV, 3)
    share_NV = mask_NV * p_NV / (mask_NV * p_NV).sum(-1, keepdim=True)
    ratio_NV = (p_NV / q_NV).log()
    centred_NV = ratio_NV - (share_NV * ratio_NV).sum(-1, keepdim=True)
    expected_NV = gradient(lambda p: share_NV * centred_NV * p.log(), student_NV)
    close(outcome(options(**AS_PRINTED), student_NV, teacher_NV, token_N)[1], expected_NV)


def test_the_plain_truncated_reverse_kl_has_the_mass_of_the_support_as_extra_gradient() -> None:
    student_NV, teacher_NV, token_N = draw()
    mask_NV = top(student_NV, 3)
    extra_NV = gradient(lambda p: mask_NV * p, student_NV)
    score_form_NV = outcome(options(normalize="raw"), student_NV, teacher_NV, token_N)[1]
    close(outcome(options(**TRUNCATED), student_NV, teacher_NV, token_N)[1], score_form_NV + extra_NV)


def expected_over_tokens(gradient_at: Any, student_NV: Tensor) -> Tensor:
    """Σ_y p(y) gradient(y), every position taking every token in turn."""
    p_NV = student_NV.softmax(-1)
    tokens = (torch.full((len(student_NV),), y) for y in range(V))
    return torch.stack([p_NV[:, y : y + 1] * gradient_at(token_N) for y, token_N in enumerate(tokens)]).sum(0)


def test_sampled_token_is_unbiased_for_the_full_reverse_kl() -> None:
    student_NV, teacher_NV, token_N = draw()
    sampled_NV = expected_over_tokens(
        lambda y_N: outcome(options(estimator="sampled"), student_NV, teacher_NV, y_N)[1], student_NV
    )
    close(sampled_NV, outcome(options(**EXACT), student_NV, teacher_NV, token_N)[1])


def test_differentiating_a_sampled_log_ratio_has_expected_gradient_zero() -> None:
    student_NV, teacher_NV, _ = draw()

    def naive(y_N: Tensor) -> Tensor:
        q_NV = teacher_NV.softmax(-1)
        return gradient(lambda p: (p / q_NV).log().gather(-1, y_N[:, None]), student_NV)

    close(expected_over_tokens(naive, student_NV), 0.0)


def test_the_tail_bucket_lies_between_nothing_and_the_full_kl_and_grows_with_k() -> None:
    batch = draw()
    values = [float(outcome(options(**TRUNCATED, tail="bucket", k=k), *batch)[0]) for k in range(1, V)]
    exact = float(outcome(options(**EXACT), *batch)[0])
    assert values == sorted(values) and values[0] > 0
    assert values[-1] == pytest.approx(exact, rel=1e-12)


def test_a_tail_of_one_token_is_that_token_however_unlikely() -> None:
    student_NV, teacher_NV, token_N = draw()
    for changes in ({}, {"direction": "forward", "weight": "teacher_p"}, {"direction": "jsd"}):
        bucket, exact = (
            outcome(options(**TRUNCATED | how | changes), 3 * student_NV, 2 * teacher_NV, token_N)
            for how in ({"tail": "bucket", "k": V - 1}, {"estimator": "full"})
        )
        torch.testing.assert_close(bucket[0], exact[0], rtol=1e-7, atol=0)
        torch.testing.assert_close(bucket[1], exact[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_jensen_shannon_is_the_entropy_of_the_mixture_less_the_mean_entropy(beta: float) -> None:
    student_NV, teacher_NV, token_N = draw()
    p_NV, q_NV = student_NV.softmax(-1), teacher_NV.softmax(-1)
    entropy = lambda x_NV: torch.special.entr(x_NV).sum()
    expected = entropy(beta * q_NV + (1 - beta) * p_NV) - beta * entropy(q_NV) - (1 - beta) * entropy(p_NV)
    params = options(**EXACT | {"direction": "jsd", "beta": beta})
    close(outcome(params, student_NV, teacher_NV, token_N)[0], expected)
    mirrored = options(**EXACT | {"direction": "jsd", "beta": 1 - beta})
    close(outcome(mirrored, teacher_NV, student_NV, token_N)[0], expected)


def test_jensen_shannon_tends_to_the_kls() -> None:
    batch, beta = draw(), 1e-6
    for small, direction, weight in ((1 - beta, "reverse", "student_p"), (beta, "forward", "teacher_p")):
        jsd = outcome(options(**EXACT | {"direction": "jsd", "beta": small}), *batch)[0] / beta
        kl = outcome(options(**EXACT | {"direction": direction, "weight": weight}), *batch)[0]
        torch.testing.assert_close(jsd, kl, rtol=1e-3, atol=0)


# --- bookkeeping and rounding --------------------------------------------------------------------------------------


def test_positions_without_support_count_but_neither_weigh_nor_poison() -> None:
    student_NV, teacher_NV, token_N = draw()
    for params in ACCEPTED:
        if params.support in ("intersection", "symmetric_difference") and params.k == 3 and params.tail == "drop":
            match_NV = -student_NV if params.support == "intersection" else student_NV
            value, gradient_NV = outcome(params, student_NV, match_NV, token_N)
            assert float(value) == 0.0
            assert not gradient_NV.any()
    scores = score(student_NV, teacher_NV, token_N, 2)
    assert opd.value(scores, options(k=2, support="intersection")).shape == token_N.shape


def test_sums_add_over_micro_batches() -> None:
    student_NV, teacher_NV, token_N = draw()
    for params in ACCEPTED[::7]:
        whole = outcome(params, student_NV, teacher_NV, token_N)
        parts = [outcome(params, student_NV[s], teacher_NV[s], token_N[s]) for s in (slice(0, 1), slice(1, 4))]
        close(sum(value for value, _ in parts), whole[0])  # type: ignore[arg-type]
        close(torch.cat([gradient_NV for _, gradient_NV in parts]), whole[1])


@every_accepted
def test_float32_stays_finite_when_the_models_are_certain(params: opd.Params) -> None:
    student_NV, teacher_NV, token_N = draw()
    for scale in (30.0, 0.0):
        value, gradient_NV = outcome(params, (scale * student_NV).float(), (scale * teacher_NV).float(), token_N)
        assert value.isfinite() and gradient_NV.isfinite().all()


def test_scores_that_cannot_serve_the_objective_are_refused() -> None:
    student_NV, teacher_NV, token_N = draw()
    with pytest.raises(ValueError, match="lists of 2 tokens, but the objective reads 3"):
        opd.value(score(student_NV, teacher_NV, token_N, 2), options())
    with pytest.raises(ValueError, match="its lists or distributions"):
        opd.value(score(student_NV, teacher_NV, token_N, 4), options(estimator="full"))
    bare = logprobs.score(student_NV, None, token_N, token_N, token_N, 4)
    for estimator in ("sampled", "topk", "full"):
        with pytest.raises(ValueError, match="scores without a teacher"):
            opd.value(bare, options(estimator=estimator))


# --- refusals ------------------------------------------------------------------------------------------------------

FORWARD = {"direction": "forward", "weight": "teacher_p", "stop_gradient": False}
JSD = {"direction": "jsd", "normalize": "raw", "stop_gradient": False}
BUCKET = {"tail": "bucket", "normalize": "raw"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"k": 0}, "method.k: 0: a list needs a token"),
    ({"k": 10}, "method.k: 10: the vocabulary has 9 tokens"),
    ({"estimator": "sampled", "direction": "forward"}, "method.direction: forward: .* the reverse KL only"),
    ({"estimator": "sampled", "stop_gradient": False}, "method.stop_gradient: false: .* expected gradient zero"),
    ({"support": "symmetric_difference", "k": V}, "method.support: symmetric_difference: .* identically zero"),
    ({**BUCKET, "estimator": "full"}, "method.tail: bucket: all 9 tokens leave no tail"),
    ({**BUCKET, "normalize": "weights"}, "method.normalize: weights: the tail bucket completes"),
    ({**BUCKET, "weight": "uniform"}, "method.weight: uniform: with the tail bucket"),
    ({**FORWARD, "stop_gradient": True}, "method.stop_gradient: true: .* belongs to the reverse KL"),
    ({**FORWARD, "weight": "student_p"}, "method.weight: student_p: .* expectation under the teacher"),
    ({**JSD, "weight": "teacher_p"}, "method.weight: teacher_p: .* brings its own weights"),
    ({**JSD, "normalize": "weights"}, "method.normalize: weights: .* brings its own weights"),
    ({"weight": "uniform", "stop_gradient": False}, "method.weight: uniform: .* blind to the teacher"),
    ({"weight": "teacher_p", "stop_gradient": False}, "method.weight: teacher_p: .* maximises the forward KL"),
    ({"k": 1, "normalize": "both", "support": "intersection"}, "method.normalize: both: .* identically zero"),
    ({"k": 1, "stop_gradient": False}, "method.normalize: weights: .* blind to the teacher"),
    ({"stop_gradient": False}, "method.normalize: weights: .* pushes all mass out of S under every teacher"),
    ({**TRUNCATED, "k": 1}, "method.stop_gradient: false: .* every teacher lowers a p above 1/e"),
    ({**FORWARD, "k": 1}, "method.k: 1: .* no teacher changes the gradient's direction"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda x: x if isinstance(x, str) else "")
def test_refusal_names_key_value_reason_and_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*; (use|write) "):
        opd.check(options(**changes), V, True)


def test_every_refusal_has_its_example() -> None:
    with pytest.raises(ValueError, match=r"teacher: null: .*; name one"):
        opd.check(options(), V, False)
    assert len(REFUSED) == len(_opd_refusals.REFUSALS) - 1


def test_refused_as_blind_or_zero_is_blind_or_zero() -> None:
    student_NV, teacher_NV, token_N = draw()
    reasons = set()
    for params in COMBINATIONS:
        try:
            opd.check(params, V, True)
        except ValueError as error:
            reason = next((reason for reason in (BLIND, ZERO) if reason in str(error)), "")
            gradients = [outcome(params, student_NV, x * teacher_NV, token_N)[1] for x in (1.0, 1.3)] if reason else []
            if reason == BLIND:
                close(*gradients)
            elif reason == ZERO:
                close(gradients[0], 0.0)
            reasons.add(reason)
    assert reasons == {BLIND, ZERO, ""}


def test_params_take_only_what_they_know() -> None:
    for changes in ({"beta": 0.0}, {"beta": 1.0}, {"k": -1}, {"k": "3"}, {"support": "both"}, {"extra": 1}):
        with pytest.raises(ValidationError):
            options(**changes)
    with pytest.raises(ValidationError):
        opd.Params()  # type: ignore[call-arg]
    assert all(field.description for field in opd.Params.model_fields.values())


# --- the catalogue, SFT, GRPO --------------------------------------------------------------------------------------


def test_the_folder_is_the_catalogue() -> None:
    assert {"grpo", "opd", "sft"} <= set(methods.names())
    assert not any(name.startswith("_") for name in methods.names())
    for name in methods.names():
        method = methods.load(name)
        assert method.name == name and method.needs <= {"teacher", "teachers", "reward"}
        assert method.Params.model_config == opd.Params.model_config, name
    with pytest.raises(ValueError, match=r"method\.name: 'dpo' is unknown; choose from .*grpo, .*opd, .*sft"):
        methods.load("dpo")


def test_sft_is_cross_entropy() -> None:
    student_NV, _, token_N = draw()
    leaf_NV = student_NV.clone().requires_grad_()
    scores = logprobs.score(leaf_NV, None, token_N, token_N, token_N, 0)
    result = sft.value(scores, sft.Params()).sum()
    value, gradient_NV = oracles.of_sft(student_NV, None, token_N)
    close(result, torch.nn.functional.cross_entropy(student_NV, token_N, reduction="sum"))
    close(result, value)
    close(torch.autograd.grad(result, leaf_NV)[0], gradient_NV)


@pytest.mark.parametrize("group", [2, 3, 5])
def test_grpo_expects_the_policy_gradient_times_the_share_that_centring_leaves(group: int) -> None:
    """On a bandit of two tokens, over all group outcomes: (G − 1)/G ∇E[r], as the group mean holds a G-th of itself."""
    logits_V = torch.tensor([0.4, -0.3], dtype=torch.float64)
    reward_V = torch.tensor([0.2, 1.0], dtype=torch.float64)
    params = grpo.Params(normalize_std=False, epsilon=1e-6)
    expected_V = torch.zeros_like(logits_V)
    for outcome_G in product((0, 1), repeat=group):
        token_N = torch.tensor(outcome_G)
        leaf_V = logits_V.clone().requires_grad_()
        scores = logprobs.score(leaf_V.expand(group, -1), None, token_N, torch.arange(group), token_N * 0, 0)
        advantage_N = grpo.centred(reward_V[token_N].view(1, -1), params)[0]
        result = grpo.value(replace(scores, advantage_N=advantage_N), params)
        (gradient_V,) = torch.autograd.grad(result.mean(), leaf_V)
        expected_V += logits_V.softmax(-1)[token_N].prod() * gradient_V
    true_V = gradient(lambda p_V: p_V * reward_V, logits_V)
    close(expected_V, -true_V * (group - 1) / group)


def test_grpo_advantages() -> None:
    reward_PG = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1]])
    centred_PG = grpo.centred(reward_PG, grpo.Params(normalize_std=False, epsilon=1e-6))
    assert centred_PG.tolist() == [[0.75, -0.25, -0.25, -0.25], [0.0] * 4, [0.0] * 4]
    scaled_PG = grpo.centred(reward_PG, grpo.Params(normalize_std=True, epsilon=1e-9))
    torch.testing.assert_close(scaled_PG[0], torch.tensor([3.0, -1.0, -1.0, -1.0]) / 3**0.5)
    assert not scaled_PG[1:].any()
    with pytest.raises(ValueError, match="a group of one has nothing to be compared with; use 2 or more"):
        grpo.centred(reward_PG[:, :1], grpo.Params(normalize_std=True, epsilon=1e-9))
    for bad in (torch.nan, torch.inf):
        spoilt_PG = reward_PG.clone()
        spoilt_PG[1, 2] = bad
        with pytest.raises(ValueError, match=f"rewards: {bad} of response 2 to prompt 1; .* use a task whose answers"):
            grpo.centred(spoilt_PG, grpo.Params(normalize_std=True, epsilon=1e-9))
    student_NV, _, token_N = draw()
    with pytest.raises(ValueError, match="scores without advantages"):
        grpo.value(logprobs.score(student_NV, None, token_N, token_N, token_N, 0), None)  # type: ignore[arg-type]
