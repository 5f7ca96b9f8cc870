"""Diagnostics against a slow restatement of Eqs 6–10 with Python sets, and their additivity."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import fsum, log

import pytest
import torch

from opd_lib.maths import diagnostics, logprobs
from opd_lib.types import TokenScores

V, N = 13, 8
Row = dict[str, tuple[float, float]]  # metric → (value · weight, weight)


def draw(
    teacher: bool = True, k: int = 6, part: slice = slice(None), dtype: torch.dtype = torch.float64
) -> TokenScores:
    """Scores of N tokens; the last position's lists share nothing for small k."""
    generator = torch.Generator().manual_seed(11)
    student_NV, teacher_NV = 1.5 * torch.randn(2, N, V, generator=generator, dtype=torch.float64)
    teacher_NV[-1] = -student_NV[-1]
    token_N = torch.randint(V, (N,), generator=generator)
    position_N = torch.tensor([0, 1, 2, 3, 4, 5, 20, 3])
    teacher_part_NV = teacher_NV[part] if teacher else None
    return logprobs.score(student_NV[part], teacher_part_NV, token_N[part], token_N[part], position_N[part], k)


def distributions() -> list[tuple[list[float], list[float], int]]:
    """p, q and the token at each position, as Python floats, through lists of the whole vocabulary."""
    scores = draw(k=V)
    assert scores.candidates is not None
    order_NC = scores.candidates.id_NC.argsort(1)
    p_NV, q_NV = (
        logp_NC.exp().gather(1, order_NC).tolist()
        for logp_NC in (scores.candidates.student_logp_NC, scores.candidates.teacher_logp_NC)
    )
    return list(zip(p_NV, q_NV, scores.token_N.tolist(), strict=True))


def slow(p: list[float], q: list[float], token: int, k: int) -> Row:
    """Every metric of one position from its definition."""
    ours, theirs = (set(sorted(range(V), key=lambda v: -x[v])[:k]) for x in (p, q))
    shared = sorted(ours & theirs)
    r = [log(a) - log(b) for a, b in zip(p, q, strict=True)]
    entropy: Callable[[list[float]], float] = lambda x: -fsum(a * log(a) for a in x)
    own, other, support = fsum(p[v] for v in shared), fsum(q[v] for v in shared), fsum(p[v] for v in ours)
    paper = [p[v] / own * (log(q[v] / other) - log(p[v] / own)) for v in shared]
    published = {v: -p[v] / support * r[v] for v in ours}
    extreme = max(ours, key=lambda v: abs(published[v]))
    n, some = len(shared), float(bool(shared))
    return {
        "student_entropy": (entropy(p), 1.0),
        "teacher_entropy": (entropy(q), 1.0),
        "entropy_gap": (abs(entropy(q) - entropy(p)), 1.0),
        "reverse_kl": (fsum(a * b for a, b in zip(p, r, strict=True)), 1.0),
        "sampled_reverse_kl": (r[token], 1.0),
        f"overlap_k{k}": (n / k, 1.0),
        f"student_mass_k{k}": (own, 1.0),
        f"teacher_mass_k{k}": (other, 1.0),
        f"student_support_mass_k{k}": (support, 1.0),
        f"advantage_paper_k{k}": (fsum(paper) / n if shared else 0.0, some),
        f"advantage_reference_code_k{k}": (fsum(published[v] for v in shared), float(n)),
        f"advantage_verl_k{k}": (fsum(q[v] * r[v] for v in shared) / n if shared else 0.0, 1.0),
        f"empty_overlap_k{k}": (1.0 - some, 1.0),
        f"delta_p_k{k}": (p[extreme] - q[extreme], 1.0),
    }


@pytest.mark.parametrize("lists", [6, 9, V])
def test_every_metric_is_its_definition_at_any_k_up_to_the_lists(lists: int) -> None:
    ks = (1, 2, 4, 6)
    metrics = diagnostics.per_token(draw(k=lists), ks)
    expected = [{name: pair for k in ks for name, pair in slow(p, q, y, k).items()} for p, q, y in distributions()]
    assert list(metrics) == list(expected[0])
    for name, (value_N, weight_N) in metrics.items():
        assert not value_N.requires_grad
        for n, row in enumerate(expected):
            assert (float(value_N[n]), float(weight_N[n])) == pytest.approx(row[name], rel=1e-10, abs=1e-13), (name, n)


def test_equation_7_is_minus_the_kl_on_the_overlap_over_its_size() -> None:
    value_N, weight_N = diagnostics.per_token(draw(), [4])["advantage_paper_k4"]
    assert weight_N.tolist()[-1] == 0.0 and value_N.tolist()[-1] == 0.0  # undefined where nothing is shared
    for n, (p, q, _) in enumerate(distributions()):
        ours, theirs = (set(sorted(range(V), key=lambda v: -x[v])[:4]) for x in (p, q))
        index = torch.tensor(sorted(ours & theirs), dtype=torch.long)
        if len(index):
            p_I, q_I = (torch.distributions.Categorical(torch.tensor(x, dtype=torch.float64)[index]) for x in (p, q))
            kl = float(torch.distributions.kl_divergence(p_I, q_I))
            assert float(value_N[n]) == pytest.approx(-kl / len(index), rel=1e-10, abs=1e-13)


def test_a_mean_is_a_sum_over_a_sum() -> None:
    tally = diagnostics.Tally([4], 2, 6)
    tally.add(draw())
    rows = [slow(p, q, token, 4) for p, q, token in distributions()]
    means = tally.means()
    gap = means.pop("entropy_gap_of_means")
    assert gap == pytest.approx(abs(means["teacher_entropy"] - means["student_entropy"]))
    for name, mean in means.items():
        assert mean == pytest.approx(fsum(row[name][0] for row in rows) / fsum(row[name][1] for row in rows)), name


def test_sums_add_over_micro_batches() -> None:
    whole, parts = diagnostics.Tally([2, 4], 2, 6), diagnostics.Tally([2, 4], 2, 6)
    whole.add(draw())
    for part in (slice(0, 1), slice(1, 6), slice(6, 8)):
        parts.add(draw(part=part))
    torch.testing.assert_close(parts.sums_MD, whole.sums_MD, rtol=1e-12, atol=1e-14)
    assert torch.equal(parts.weights_MD, whole.weights_MD)
    assert parts.names == whole.names


def test_depth_rows_are_the_means_of_their_positions() -> None:
    tally = diagnostics.Tally([4], 2, 10)
    tally.add(draw())
    rows = tally.by_depth()
    # positions 0 1 | 2 3 3 | 4 5 | – | 20, beyond the end, in the last bucket
    assert [(row["depth"], row["n_tokens"]) for row in rows] == [(0, 2), (2, 3), (4, 2), (8, 1)]
    assert list(rows[0]) == [
        "depth", "n_tokens", "student_entropy", "teacher_entropy", "reverse_kl", "overlap_k4", "advantage_paper_k4",
    ]  # fmt: skip
    reverse_kl = [slow(p, q, token, 4)["reverse_kl"][0] for p, q, token in distributions()]
    expected = [(reverse_kl[0] + reverse_kl[1]) / 2, (reverse_kl[2] + reverse_kl[3] + reverse_kl[7]) / 3]
    assert [row["reverse_kl"] for row in rows[:2]] == pytest.approx(expected)
    assert rows[3]["reverse_kl"] == pytest.approx(reverse_kl[6])


def test_a_metric_nowhere_defined_is_nan() -> None:
    tally = diagnostics.Tally([4], 2, 6)
    tally.add(draw(part=slice(7, 8)))
    assert math.isnan(tally.means()["advantage_paper_k4"]) and tally.means()["empty_overlap_k4"] == 1.0


def test_without_a_teacher_the_students_entropy_is_left() -> None:
    scores = draw(teacher=False)
    assert list(diagnostics.per_token(scores, [4])) == ["student_entropy"]
    tally = diagnostics.Tally([4], 2, 6)
    tally.add(scores)
    assert tally.means() == {"student_entropy": pytest.approx(float(scores.student_entropy_N.mean()))}


def test_certain_models_give_finite_metrics_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    student_NV, teacher_NV = 200 * torch.randn(2, N, V, generator=generator)
    zero_N = torch.zeros(N, dtype=torch.long)
    scores = logprobs.score(student_NV, teacher_NV, zero_N, zero_N, zero_N, 6)
    assert all(value_N.isfinite().all() for value_N, _ in diagnostics.per_token(scores, [2, 6]).values())


def test_lists_that_are_too_short_are_refused() -> None:
    for scores in (draw(k=3), draw(k=0)):
        with pytest.raises(ValueError, match="k = 4: the scores hold no top-k lists of that length"):
            diagnostics.per_token(scores, [4])


def test_every_column_has_a_unit_and_a_meaning() -> None:
    tally = diagnostics.Tally([4], 2, 6)
    tally.add(draw())
    assert {name.removesuffix("_k4") for name in tally.means()} <= set(diagnostics.UNITS)
    for equation, name in enumerate(["overlap", "advantage_paper", "entropy_gap", "student_mass", "teacher_mass"], 6):
        assert f"(Eq. {equation})" in diagnostics.UNITS[name][1]
