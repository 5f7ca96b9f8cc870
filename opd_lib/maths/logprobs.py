"""Logits of student and teacher → exactly what losses and diagnostics read, on packed tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from opd_lib.types import OUTSIDE, Candidates, TokenScores


def score(
    student_logits_NV: Tensor,
    teacher_logits_NV: Tensor | None,
    token_N: Tensor,
    row_N: Tensor,
    position_N: Tensor,
    k: int,
) -> TokenScores:
    """Log-probabilities (nats) of the tokens, entropies, the exact reverse KL and the top-k candidates.

    Everything is normalised over the full vocabulary, in float32 or better. Only `student_logp_*` carries a gradient.
    k = 0 asks for no candidates. Raises ValueError if the vocabularies differ or k exceeds them.
    """
    student_logp_NV = log_softmax(student_logits_NV)
    with torch.no_grad():
        student_entropy_N = entropy(student_logp_NV)
    scores = {
        "token_N": token_N,
        "row_N": row_N,
        "position_N": position_N,
        "student_logp_N": at(student_logp_NV, token_N[:, None])[:, 0],
        "student_entropy_N": student_entropy_N,
    }
    if teacher_logits_NV is None:
        return TokenScores(**scores)
    if teacher_logits_NV.shape != student_logits_NV.shape:
        raise ValueError(
            f"teacher logits {tuple(teacher_logits_NV.shape)} do not match the student's "
            f"{tuple(student_logits_NV.shape)}: cut both heads to the tokenizer's length"
        )
    teacher_logp_NV = log_softmax(teacher_logits_NV).detach()
    with torch.no_grad():
        reverse_kl_N = (student_logp_NV.exp() * (student_logp_NV - teacher_logp_NV)).sum(-1)
    return TokenScores(
        **scores,
        teacher_logp_N=at(teacher_logp_NV, token_N[:, None])[:, 0],
        teacher_entropy_N=entropy(teacher_logp_NV),
        reverse_kl_N=reverse_kl_N,
        candidates=candidates(student_logp_NV, teacher_logp_NV, k) if k else None,
    )


def candidates(student_logp_NV: Tensor, teacher_logp_NV: Tensor, k: int) -> Candidates:
    """The student's top-k, then the teacher's top-k that are not among them (C = 2k; C = V when k = V).

    Which tokens they are is decided without gradient; their student log-probabilities carry one.
    """
    vocabulary = student_logp_NV.shape[-1]
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k = {k} is impossible with {vocabulary} tokens; use 1 ≤ k ≤ {vocabulary}")
    with torch.no_grad():
        student_id_NK = student_logp_NV.topk(k, dim=-1).indices
        teacher_id_NK = teacher_logp_NV.topk(k, dim=-1).indices
        same_NKK = student_id_NK[:, :, None] == teacher_id_NK[:, None, :]
        rank_NK = torch.arange(k, device=student_id_NK.device).expand_as(student_id_NK)
        outside_NK = torch.full_like(rank_NK, OUTSIDE)
        shared_rank_NK = torch.where(same_NKK.any(2), same_NKK.int().argmax(2), outside_NK)
        if k == vocabulary:  # the student's list holds every token: the teacher's adds nothing
            id_NC, student_rank_NC, teacher_rank_NC = student_id_NK, rank_NK, shared_rank_NK
        else:
            id_NC = torch.cat([student_id_NK, teacher_id_NK], 1)
            student_rank_NC = torch.cat([rank_NK, outside_NK], 1)
            teacher_rank_NC = torch.cat([shared_rank_NK, torch.where(same_NKK.any(1), outside_NK, rank_NK)], 1)
    return Candidates(
        id_NC=id_NC,
        student_logp_NC=at(student_logp_NV, id_NC),
        teacher_logp_NC=at(teacher_logp_NV, id_NC),
        student_rank_NC=student_rank_NC,
        teacher_rank_NC=teacher_rank_NC,
    )


def log_softmax(logits_NV: Tensor) -> Tensor:
    """Log-probabilities over the vocabulary, in float32 unless the logits are finer."""
    precise = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return precise.log_softmax(-1)


def entropy(logp_NV: Tensor) -> Tensor:
    """Shannon entropy (nats) of each row."""
    return -(logp_NV.exp() * logp_NV).sum(-1)


def at(logp_NV: Tensor, id_NC: Tensor) -> Tensor:
    """Log-probabilities (N, C) of given tokens."""
    return logp_NV.gather(-1, id_NC)
