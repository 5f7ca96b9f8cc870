"""What truncated objectives do to a softmax: closed forms against the losses that train, and where they end."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_methods_exact import EXACT, TRUNCATED, close, draw, options, outcome
from torch import Tensor

from opd_lib.maths import descent, one_context, self_distillation, truncation
from opd_lib.run import sliders

K = 3
TRAINED: dict[str, dict[str, Any]] = {
    "full": EXACT,
    "plain": TRUNCATED,
    "held": {"normalize": "raw"},
    "published": {},
    "renormalised": {"normalize": "both", "stop_gradient": False},
    "bucket": TRUNCATED | {"tail": "bucket"},
    "jsd": TRUNCATED | {"direction": "jsd", "beta": truncation.BETA},
    "forward": TRUNCATED | {"direction": "forward", "weight": "teacher_p"},
}
"""objective → the options of `methods/opd` that train with it."""


def sloped(objective: str, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """The gradient at each position, on the student's top K."""
    whole = torch.ones_like(student_NV, dtype=torch.bool)
    support = whole if objective == "full" else truncation.top(student_NV, K)
    logq_NV = teacher_NV.log_softmax(-1)
    return truncation.gradient(objective, student_NV, logq_NV, support, truncation.top(logq_NV, K))


@pytest.mark.parametrize("objective", TRAINED)
def test_a_closed_form_is_the_gradient_of_the_loss_that_trains(objective: str) -> None:
    student_NV, teacher_NV, token_N = draw(n=16)
    close(
        sloped(objective, student_NV, teacher_NV),
        outcome(options(**TRAINED[objective]), student_NV, teacher_NV, token_N)[1],
    )


def test_those_that_no_loss_trains_with_are_the_gradients_of_their_expressions() -> None:
    student_NV, teacher_NV, _ = draw(n=16)
    logq_NV, mask_NV = teacher_NV.log_softmax(-1), truncation.top(student_NV, K)
    listed_NV, alpha = truncation.top(teacher_NV, K), truncation.ALPHA

    def slope(expression: Any) -> Tensor:
        leaf_NV = student_NV.clone().requires_grad_()
        total = (expression(leaf_NV.log_softmax(-1)) * mask_NV).sum()
        return torch.autograd.grad(total, leaf_NV)[0]

    def filled_in(logp_NV: Tensor) -> Tensor:
        return torch.where(listed_NV, logq_NV, logp_NV.detach())

    def generalised(logp_NV: Tensor) -> Tensor:
        return logp_NV.exp() * (logp_NV - logq_NV) - logp_NV.exp() + logq_NV.exp()

    close(
        sloped("skew", student_NV, teacher_NV),
        slope(lambda a: a.exp() * (a - (alpha * a.exp() + (1 - alpha) * logq_NV.exp()).log())),
    )
    close(sloped("filled", student_NV, teacher_NV), slope(lambda a: a.exp() * (a - filled_in(a))))
    close(sloped("filled-held", student_NV, teacher_NV), slope(lambda a: a.exp() * (a.detach() - filled_in(a))))
    close(sloped("held", student_NV, teacher_NV), slope(generalised))
    assert (listed_NV & mask_NV).any() and (mask_NV & ~listed_NV).any()


def test_the_sampled_objective_expects_the_gradient_of_the_full_one() -> None:
    student_NV, teacher_NV, token_N = draw(n=6)
    expected_NV = torch.zeros_like(student_NV)
    for token in range(student_NV.shape[1]):
        slope_NV = outcome(options(estimator="sampled"), student_NV, teacher_NV, torch.full_like(token_N, token))[1]
        expected_NV += student_NV.softmax(-1)[:, token, None] * slope_NV
    close(expected_NV, sloped("full", student_NV, teacher_NV))


def test_the_surviving_one_takes_mass_from_the_support_whatever_the_teacher_says() -> None:
    """Plain − held is the gradient of M; by logits a token loses unless q > p exp(1 − M − L), not q > e p."""
    student_NV, teacher_NV, _ = draw(n=64)
    support_NV, logp_NV, logq_NV = truncation.top(student_NV, K), student_NV.log_softmax(-1), teacher_NV.log_softmax(-1)
    slope_NV = sloped("plain", student_NV, teacher_NV)
    leaf_NV = student_NV.clone().requires_grad_()
    mass = (leaf_NV.softmax(-1) * support_NV).sum()
    close(slope_NV - sloped("held", student_NV, teacher_NV), torch.autograd.grad(mass, leaf_NV)[0])
    mass_N1 = truncation.mass(logp_NV, support_NV)[:, None]
    loss_N1 = (logp_NV.exp() * (logp_NV - logq_NV) * support_NV).sum(-1, keepdim=True)
    gains_NV = logq_NV > logp_NV + 1.0 - mass_N1 - loss_N1
    assert torch.equal(slope_NV[support_NV] < 0, gains_NV[support_NV])
    assert 0 < gains_NV[support_NV].sum() < support_NV.sum()
    assert not torch.equal(gains_NV[support_NV], (logq_NV > logp_NV + 1.0)[support_NV])


# --- where they end --------------------------------------------------------------------------------------------------


def teachers(n: int, spread: float) -> tuple[Tensor, Tensor]:
    """A start (1, 6), and n teachers (n, 1, 6) around it, further apart the larger `spread`."""
    generator = torch.Generator().manual_seed(3)
    start = descent.head_and_tail([0.5, 0.2, 0.2, 0.1], [0.1], 6)
    noise = spread * torch.randn(n, 1, 6, generator=generator, dtype=torch.float64)
    return start, (start + noise).log_softmax(-1)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("objective", ["full", "plain", "held", "published", "renormalised", "bucket"])
def test_descent_on_a_fixed_support_rests_where_the_closed_form_says(objective: str, n: int) -> None:
    start, logq = teachers(n, spread=0.7)
    course = descent.descend(objective, start, logq, 4, [4.0], 1200, "sgd", is_fixed=True)
    support = truncation.top(start, 4)
    close_to = truncation.mass_at_rest(objective, start, logq, support)
    torch.testing.assert_close(course.mass_TR[-1], close_to, rtol=0, atol=1e-6)
    inside = course.logits_RV.log_softmax(-1)[support]
    wanted = logq.mean(0)[support]
    torch.testing.assert_close(inside - inside[0], wanted - wanted[0], rtol=0, atol=1e-5)  # renormalised, all agree
    if n == 2:
        assert {"plain": close_to < 0.4, "held": close_to < 0.97}.get(objective, True)


def test_jsd_rests_at_the_teacher_and_the_forward_kl_empties_the_tail() -> None:
    start, logq = teachers(1, spread=0.7)
    support = truncation.top(start, 4)
    course = descent.descend("jsd", start, logq, 4, [16.0], 1800, "sgd", is_fixed=True)
    torch.testing.assert_close(course.mass_TR[-1], truncation.mass(logq[0], support), rtol=0, atol=1e-6)
    course = descent.descend("forward", start, logq, 4, [4.0], 1200, "sgd", is_fixed=True)
    assert course.mass_TR[0] < 0.901 and course.mass_TR[-1] > 0.999


def test_the_loss_comes_sooner_with_a_heavier_tail_and_a_higher_rate_as_the_optimiser_sets_it() -> None:
    """SGD: steps × rate × tail is nearly constant. Adam: steps × rate grows with the logarithm of 1/tail alone."""
    tails = [1e-1, 1e-2, 1e-3]
    rows = descent.head_and_tail([0.6, 0.2, 0.12, 0.08], tails * 2, 64)
    by_sgd = descent.onsets(descent.descend("plain", rows, rows, 4, [4.0] * 3 + [8.0] * 3, 1200, "sgd"))
    scaled = [step * rate * tail for step, rate, tail in zip(by_sgd, [4.0] * 3 + [8.0] * 3, tails * 2, strict=True)]
    assert max(scaled) < 1.25 * min(scaled)
    by_adam = descent.onsets(descent.descend("plain", rows, rows, 4, [0.02] * 3 + [0.04] * 3, 200, "adam"))
    assert by_adam[0] < by_adam[1] < by_adam[2] < 4 * by_adam[0]
    assert all(1.5 < slow / fast < 2.5 for slow, fast in zip(by_adam[:3], by_adam[3:], strict=True))
    safe = descent.onsets(descent.descend("held", rows, rows, 4, [4.0] * 6, 300, "sgd"))
    assert all(map(math.isnan, safe))


def test_what_cannot_be_descended_is_refused() -> None:
    start, logq = teachers(1, 0.1)
    with pytest.raises(ValueError, match="choose from full, plain"):
        descent.descend("kl", start, logq, 4, [1.0], 1)
    with pytest.raises(ValueError, match="choose from adam, sgd"):
        descent.descend("full", start, logq, 4, [1.0], 1, "lion")
    with pytest.raises(ValueError, match="one rate a row"):
        descent.descend("full", start, logq, 4, [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="jsd: where it rests is not known"):
        truncation.mass_at_rest("jsd", start, teachers(2, 0.1)[1], truncation.top(start, 4))


# --- self-distillation -----------------------------------------------------------------------------------------------


def test_no_student_is_nearer_to_all_teachers_than_their_means() -> None:
    generator = torch.Generator().manual_seed(5)
    logq_IV = torch.randn(4, 7, generator=generator, dtype=torch.float64).log_softmax(-1)
    weight_I = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

    def reverse(logp_V: Tensor) -> Tensor:
        return weight_I @ (logp_V.exp() * (logp_V - logq_IV)).sum(-1)

    def forward(logp_V: Tensor) -> Tensor:
        return weight_I @ (logq_IV.exp() * (logq_IV - logp_V)).sum(-1)

    for mean, value in ((self_distillation.geometric, reverse), (self_distillation.arithmetic, forward)):
        best_V, lowest = mean(logq_IV, weight_I)
        leaf_V = best_V.clone().requires_grad_()
        found = value(leaf_V.log_softmax(-1))
        assert found.item() == pytest.approx(lowest, abs=1e-12) and lowest > 0.1
        close(torch.autograd.grad(found, leaf_V)[0], 0.0)
        alike, nothing = mean(logq_IV[:1].expand(4, -1), weight_I)
        close(alike, logq_IV[0])
        assert nothing == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "spread", "share"), [(10, 0.001, 0.784), (50, 0.001, 0.888), (10, 0.01, 0.314), (2, 0.1, 0.016)]
)
def test_teachers_that_each_know_an_answer_make_a_student_that_hedges(n: int, spread: float, share: float) -> None:
    logq = self_distillation.answers_and_hedge(n, spread, 0.01)
    close(logq.exp().sum(-1), 1.0)
    weight = torch.full((n,), 1.0 / n, dtype=torch.float64)
    best, _ = self_distillation.geometric(logq, weight)
    assert float(best[-1].exp()) == pytest.approx(share, abs=6e-4)
    assert float(self_distillation.arithmetic(logq, weight)[0][-1].exp()) == pytest.approx(0.01)


# --- what notebook 21 shows ------------------------------------------------------------------------------------------


def test_coefficients_cross_zero_where_the_objectives_say() -> None:
    found = one_context.coefficients([-1.0, 0.0, 1.0]).set_index(["series", "ratio"])["coefficient"]
    assert found["plain", 1.0] == pytest.approx(0.0) and found["plain", 0.0] == pytest.approx(1.0)
    assert found["held", 0.0] == pytest.approx(0.0) == found["jsd", 0.0]
    assert 0 < found["skew", 1.0] < found["skew", 0.0] < 1 and (found["forward"] < 0).all()


def test_the_stop_gradient_form_leaks_what_the_residual_demands_and_sooner_at_a_higher_rate() -> None:
    apart = one_context.disagreement(["plain", "held", "bucket"], [0.05, 0.4, 0.8]).set_index("series")
    assert (apart.loc["held", "residual"].diff().dropna() > 0).all()
    assert (apart.loc["held", "mass"].diff().dropna() < -0.1).all() and (apart.loc["bucket", "mass"] > 0.99).all()
    torch.testing.assert_close(
        torch.tensor(apart.loc["plain", "mass"].to_numpy()),
        torch.tensor(apart.loc["held", "mass"].to_numpy()) / math.e,
    )
    leaks = one_context.leaks("held", [0.05, 0.8], [0.02, 0.05], steps=250)
    assert leaks.iloc[0, 1:].isna().all() and leaks.iloc[1, 2] < leaks.iloc[1, 1] < 250


def test_a_k_that_is_most_of_the_vocabulary_leaks_less() -> None:
    found = one_context.by_support([2, 4, 12], 16, tail=0.05, lr=0.05, steps=150).set_index("K")["outside"]
    assert found[2] == pytest.approx(found[4], abs=1e-6) and found[12] < 0.7 * found[4]


def test_sliders_are_a_line_where_nobody_watches_and_draw_what_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    sliders.descents()
    assert capsys.readouterr().out.strip() == sliders.ELSEWHERE
    chart = sliders.chart(["plain", "held"], tail=0.05, rate=0.05, steps=60, optimiser="sgd")
    assert {text.get_text() for text in chart.axes[0].texts} >= {"plain", "held"}
