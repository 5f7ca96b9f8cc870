"""Scores of packed tokens: candidates against Python sets, precision, gradients."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from opd_lib.maths import logprobs
from opd_lib.types import OUTSIDE, Candidates

V = 11


def draw(n: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Student logits, teacher logits, tokens, rows, positions."""
    generator = torch.Generator().manual_seed(3)
    student_NV, teacher_NV = 2.0 * torch.randn(2, n, V, generator=generator, dtype=torch.float64).to(dtype)
    token_N, row_N = torch.randint(V, (2, n), generator=generator)
    return student_NV, teacher_NV, token_N, row_N, torch.arange(n)


def tensors(record: Any) -> list[tuple[str, Tensor]]:
    """Every tensor of a record and of the records in it."""
    found: list[tuple[str, Tensor]] = []
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            found += tensors(value)
        elif value is not None:
            found.append((field.name, value))
    return found


def listed(candidates: Candidates, n: int) -> list[tuple[int, int, int]]:
    """The used slots of a position: (token, student rank, teacher rank)."""
    columns = (candidates.id_NC, candidates.student_rank_NC, candidates.teacher_rank_NC)
    slots = zip(*(column_NC[n].tolist() for column_NC in columns), strict=True)
    return [slot for slot in slots if slot[1:] != (OUTSIDE, OUTSIDE)]


@pytest.mark.parametrize("k", [1, 4, 10, V])
def test_candidates_are_the_union_of_the_top_k_lists_each_token_once(k: int) -> None:
    student_NV, teacher_NV, *_ = draw()
    candidates = logprobs.score(*draw(), k=k).candidates
    assert candidates is not None
    assert candidates.length == k
    assert candidates.id_NC.shape[1] == (V if k == V else 2 * k)
    for n in range(len(student_NV)):
        ours, theirs = (sorted(range(V), key=lambda v: -float(x_NV[n, v]))[:k] for x_NV in (student_NV, teacher_NV))
        ranks = {token: (own, other) for token, own, other in listed(candidates, n)}
        assert len(ranks) == len(listed(candidates, n))
        assert [token for token, _, _ in listed(candidates, n)][:k] == ours
        rank = lambda token, list_: list_.index(token) if token in list_ else OUTSIDE
        assert ranks == {token: (rank(token, ours), rank(token, theirs)) for token in {*ours, *theirs}}
    for logits_NV, logp_NC in ((student_NV, candidates.student_logp_NC), (teacher_NV, candidates.teacher_logp_NC)):
        torch.testing.assert_close(logp_NC, logits_NV.log_softmax(-1).gather(1, candidates.id_NC))


def test_scores_are_the_textbook_sums() -> None:
    student_NV, teacher_NV, token_N, row_N, position_N = draw()
    scores = logprobs.score(student_NV, teacher_NV, token_N, row_N, position_N, 4)
    p_NV, q_NV = student_NV.softmax(-1), teacher_NV.softmax(-1)
    expected = {
        "student_logp_N": p_NV.gather(1, token_N[:, None])[:, 0].log(),
        "teacher_logp_N": q_NV.gather(1, token_N[:, None])[:, 0].log(),
        "student_entropy_N": torch.distributions.Categorical(p_NV).entropy(),
        "teacher_entropy_N": torch.distributions.Categorical(q_NV).entropy(),
        "reverse_kl_N": (p_NV * (p_NV / q_NV).log()).sum(-1),
    }
    for name, value_N in expected.items():
        torch.testing.assert_close(getattr(scores, name), value_N, rtol=1e-12, atol=1e-12)
    assert torch.equal(scores.row_N, row_N) and torch.equal(scores.position_N, position_N)


def test_only_student_log_probabilities_carry_a_gradient() -> None:
    student_NV, teacher_NV, *places = draw()
    scores = logprobs.score(student_NV.requires_grad_(), teacher_NV.requires_grad_(), *places, k=4)
    carrying = {name for name, tensor in tensors(scores) if tensor.requires_grad}
    assert carrying == {"student_logp_N", "student_logp_NC"}
    whole = logprobs.score(student_NV, teacher_NV, *places, k=0, whole=True).distributions
    assert whole is not None and [part.requires_grad for part in whole] == [True, False]
    assert scores.candidates is not None
    scores.candidates.student_logp_NC.sum().backward()
    assert teacher_NV.grad is None


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_precision_is_float32_or_better(given: torch.dtype, computed: torch.dtype) -> None:
    scores = logprobs.score(*draw(dtype=given), k=4)
    assert {tensor.dtype for _, tensor in tensors(scores) if tensor.is_floating_point()} == {computed}


def test_without_a_teacher_there_are_the_students_scores_only() -> None:
    student_NV, _, *places = draw()
    scores = logprobs.score(student_NV, None, *places, k=4)
    assert {name for name, _ in tensors(scores)} == {
        "token_N", "row_N", "position_N", "student_logp_N", "student_entropy_N",
    }  # fmt: skip
    assert logprobs.score(*draw(), k=0).candidates is None


def test_what_nobody_measures_is_not_there() -> None:
    names = {"token_N", "row_N", "position_N", "student_logp_N", "teacher_logp_N"}
    assert {name for name, _ in tensors(logprobs.score(*draw(), k=0, measured=False))} == names


@pytest.mark.parametrize("k", [1, 3, 16])
def test_a_rank_is_the_place_in_the_list(k: int) -> None:
    generator = torch.Generator().manual_seed(1)
    list_NK = torch.stack([torch.randperm(40, generator=generator)[:k] for _ in range(50)])
    id_NC = torch.randint(40, (50, 2 * k), generator=generator)
    wanted = [
        [row.index(i) if i in row else OUTSIDE for i in ids]
        for row, ids in zip(list_NK.tolist(), id_NC.tolist(), strict=True)
    ]
    assert logprobs.ranks(id_NC, list_NK).tolist() == wanted


def test_tokens_masked_out_in_both_models_leave_no_nan() -> None:
    student_NV, teacher_NV, *places = draw()
    short = logprobs.score(student_NV[:, :8], teacher_NV[:, :8], places[0] % 8, *places[1:], k=4)
    student_NV[:, 8:] = teacher_NV[:, 8:] = -torch.inf
    padded = logprobs.score(student_NV, teacher_NV, places[0] % 8, *places[1:], k=4)
    for (name, expected), (_, actual) in zip(tensors(short), tensors(padded), strict=True):
        torch.testing.assert_close(actual, expected, msg=name)


def test_no_tokens_are_no_error() -> None:
    scores = logprobs.score(*(tensor[:0] for tensor in draw()), k=4)
    assert scores.candidates is not None
    assert scores.candidates.id_NC.shape == (0, 8)


def test_impossible_requests_are_refused() -> None:
    student_NV, teacher_NV, *places = draw()
    with pytest.raises(ValueError, match=r"do not match the student's \(7, 11\): cut both heads"):
        logprobs.score(student_NV, teacher_NV[:, :-1], *places, k=4)
    for k in (-1, V + 1):
        with pytest.raises(ValueError, match=f"k = {k} is impossible with 11 tokens; use 0 ≤ k ≤ 11"):
            logprobs.score(student_NV, teacher_NV, *places, k=k)
    with pytest.raises(ValueError, match="k = 0 is impossible"):
        logprobs.candidates(student_NV, teacher_NV, 0)
