"""Logits of student and teacher → exactly what losses and diagnostics read, on packed tokens."""

from __future__ import annotations

import math
from dataclasses import replace

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
    measured: bool = True,
    whole: bool = False,
) -> TokenScores:
    """Log-probabilities (nats) of the tokens, entropies, the exact reverse KL and the top-k candidates.

    Everything is normalised over the full vocabulary, in float32 or better. Only the student's carries a gradient.
    k = 0 asks for no candidates, `measured` = False for neither entropies nor reverse KL, `whole` for the whole
    distributions. Raises ValueError if the vocabularies differ or k exceeds them.
    """
    vocabulary = student_logits_NV.shape[-1]
    if teacher_logits_NV is not None and teacher_logits_NV.shape != student_logits_NV.shape:
        raise ValueError(
            f"teacher logits {tuple(teacher_logits_NV.shape)} do not match the student's "
            f"{tuple(student_logits_NV.shape)}: cut both heads to the tokenizer's length"
        )
    if not 0 <= k <= vocabulary:
        raise ValueError(f"k = {k} is impossible with {vocabulary} tokens; use 0 ≤ k ≤ {vocabulary}")
    student_logp_NV = log_softmax(student_logits_NV)
    fixed_NV = student_logp_NV.detach()
    scores = TokenScores(
        token_N=token_N,
        row_N=row_N,
        position_N=position_N,
        student_logp_N=at(student_logp_NV, token_N[:, None])[:, 0],
        student_entropy_N=entropy(fixed_NV) if measured else None,
    )
    if teacher_logits_NV is None:
        return scores
    teacher_logp_NV = log_softmax(teacher_logits_NV.detach())
    return replace(
        scores,
        teacher_logp_N=at(teacher_logp_NV, token_N[:, None])[:, 0],
        teacher_entropy_N=entropy(teacher_logp_NV) if measured else None,
        reverse_kl_N=expected(fixed_NV, fixed_NV - teacher_logp_NV) if measured else None,
        candidates=candidates(student_logp_NV, teacher_logp_NV, k) if k else None,
        distributions=(student_logp_NV, teacher_logp_NV) if whole else None,
    )


def score_served(
    student_logits_NV: Tensor,
    teacher_logp_N: Tensor,
    top_id_NK: Tensor,
    top_logp_NK: Tensor,
    token_N: Tensor,
    row_N: Tensor,
    position_N: Tensor,
    k: int,
    whole: bool = False,
) -> TokenScores:
    """`score` of a teacher of whom no more is known than the tokens' log-probabilities and its own K ≥ k most likely.

    `top_*_NK` are in order, the most likely first. A candidate's teacher log-probability is NaN where the teacher did
    not say it (on the student's list alone, and not the token itself); entropy and reverse KL of the teacher are None.
    `whole` asks for the distributions, NaN as well where the teacher did not say it.
    Raises ValueError if k exceeds the vocabulary or the lists, or a list names a token that the student has not.
    """
    (n, vocabulary), length = student_logits_NV.shape, top_id_NK.shape[1]
    if not 0 <= k <= min(length, vocabulary):
        raise ValueError(f"k = {k} is impossible with lists of {length} among {vocabulary} tokens; ask for as many")
    if n and length and not 0 <= int(top_id_NK.min()) <= int(top_id_NK.max()) < vocabulary:
        raise ValueError(f"the teacher's lists name tokens beyond the student's {vocabulary}: leave them out")
    student_logp_NV = log_softmax(student_logits_NV)
    known_NV = torch.full_like(student_logp_NV.detach(), torch.nan)
    known_NV.scatter_(1, top_id_NK, top_logp_NK.to(known_NV))
    known_NV.scatter_(1, token_N[:, None], teacher_logp_N.to(known_NV)[:, None])
    return TokenScores(
        token_N=token_N,
        row_N=row_N,
        position_N=position_N,
        student_logp_N=at(student_logp_NV, token_N[:, None])[:, 0],
        student_entropy_N=entropy(student_logp_NV.detach()),
        teacher_logp_N=at(known_NV, token_N[:, None])[:, 0],
        candidates=_candidates(student_logp_NV, known_NV, top_id_NK[:, :k]) if k else None,
        distributions=(student_logp_NV, known_NV) if whole else None,
    )


def candidates(student_logp_NV: Tensor, teacher_logp_NV: Tensor, k: int) -> Candidates:
    """The student's top-k, then the teacher's top-k that are not among them (C = 2k; C = V when k = V).

    Which tokens they are is decided without gradient; their student log-probabilities carry one.
    Raises ValueError unless 1 ≤ k ≤ V.
    """
    vocabulary = student_logp_NV.shape[-1]
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k = {k} is impossible with {vocabulary} tokens; use 1 ≤ k ≤ {vocabulary}")
    return _candidates(student_logp_NV, teacher_logp_NV, teacher_logp_NV.topk(k, dim=-1).indices)


def _candidates(student_logp_NV: Tensor, teacher_logp_NV: Tensor, teacher_id_NK: Tensor) -> Candidates:
    vocabulary, k = student_logp_NV.shape[-1], teacher_id_NK.shape[1]
    with torch.no_grad():
        student_id_NK = student_logp_NV.topk(k, dim=-1).indices
        # with k = V the student's list holds every token: the teacher's adds nothing
        id_NC = student_id_NK if k == vocabulary else torch.cat([student_id_NK, teacher_id_NK], 1)
        student_rank_NC, teacher_rank_NC = ranks(id_NC, student_id_NK), ranks(id_NC, teacher_id_NK)
        twice_NC = (student_rank_NC < k) & (torch.arange(id_NC.shape[1], device=id_NC.device) >= k)
    return Candidates(
        id_NC=id_NC,
        student_logp_NC=at(student_logp_NV, id_NC),
        teacher_logp_NC=at(teacher_logp_NV, id_NC),
        student_rank_NC=student_rank_NC.masked_fill(twice_NC, OUTSIDE),
        teacher_rank_NC=teacher_rank_NC.masked_fill(twice_NC, OUTSIDE),
    )


def log_softmax(logits_NV: Tensor) -> Tensor:
    """Log-probabilities over the vocabulary, in float32 unless the logits are finer."""
    return precise(logits_NV).log_softmax(-1)


def precise(logits_NV: Tensor) -> Tensor:
    """The logits in float32 unless they are finer."""
    return logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()


def entropy(logp_NV: Tensor) -> Tensor:
    """Shannon entropy (nats) of each row."""
    return expected(logp_NV, -logp_NV)


def expected(logp_NV: Tensor, value_NV: Tensor) -> Tensor:
    """Expectation of each row's values under its probabilities; tokens of probability zero count nothing. Constant."""
    p_NV = logp_NV.exp()
    never_NV = p_NV == 0
    return p_NV.mul_(value_NV).masked_fill_(never_NV, 0.0).sum(-1)


def entropy_at_most(top_logp_NK: Tensor, vocabulary: int) -> Tensor:
    """The largest entropy (N, nats) a distribution can have whose K most likely tokens have these log-probabilities.

    What is left is then spread evenly over the other tokens.
    """
    rest = vocabulary - top_logp_NK.shape[1]
    left_N = (1.0 - top_logp_NK.exp().sum(-1)).clamp(min=0.0)
    return entropy(top_logp_NK) + (torch.special.entr(left_N) + left_N * math.log(rest) if rest else 0.0)


def jensen_shannon(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2, at each position (nats): 0 where p = q, at most ln 2, symmetric."""
    logm_NV = torch.logaddexp(logp_NV, logq_NV) - math.log(2.0)
    return 0.5 * (expected(logp_NV, logp_NV - logm_NV) + expected(logq_NV, logq_NV - logm_NV))


def at(logp_NV: Tensor, id_NC: Tensor) -> Tensor:
    """Log-probabilities (N, C) of given tokens."""
    return logp_NV.gather(-1, id_NC)


def ranks(id_NC: Tensor, list_NK: Tensor) -> Tensor:
    """Each token's place in its row's list (N, C); OUTSIDE if it is not on the list."""
    sorted_NK, rank_NK = list_NK.sort(1)
    place_NC = torch.searchsorted(sorted_NK, id_NC.contiguous()).clamp(max=list_NK.shape[1] - 1)
    return rank_NK.gather(1, place_NC).masked_fill(sorted_NK.gather(1, place_NC) != id_NC, OUTSIDE)
