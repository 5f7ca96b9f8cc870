"""On-policy distillation: the student's own tokens, scored by the teacher. Every published objective, by name.

With p the student, q the teacher, both on the student's prefix, S a support and w a weight, per position:

    sampled     log p(y) − log q(y) at the sampled token y              Eq. 3; gradient by score function
    full        Σ_V p log(p/q)                                          Eq. 4
    topk        Σ_S w log(p/q)                                          Eq. 5 and relatives

    normalize   raw       w = p                 log-ratio over the full vocabulary
                weights   w = p / Σ_S p         log-ratio over the full vocabulary: what the published code computes
                both      p and q renormalised on S, in weight and log-ratio: Eq. 5 as printed
    stop_gradient  true   gradient Σ_S w log(p/q) ∇log p, weight and log-ratio held constant (policy-gradient form)
                   false  the expression is differentiated as it stands
    tail        bucket adds what lies outside S as one more category; drop leaves it out

The default of the experiments (topk, student, student_p, weights, stop_gradient) is the published code's objective; its
gradient is that of the generalised reverse KL Σ_S [p log(p/q) − p + q] divided by Σ_S p.
`raw` without stop_gradient is the plain truncated reverse KL: it also pushes mass out of S and is not zero at p = q.

Source: arXiv 2604.13016 §2 and its code. Differs: one global token mean (the code averages micro-batch means); no ratio
and no clipping (one optimiser step per batch, so the ratio is 1); jsd follows m = βq + (1−β)p.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from opd_lib.types import OUTSIDE, Candidates, Loss, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = -1e30  # a log-probability that weighs nothing and, unlike −inf, leaves no NaN where a support is empty


class Params(BaseModel):
    """Which objective. `sampled` reads none of support, weight, normalize, tail, k; `full` takes S = V; `beta` is jsd's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    estimator: Literal["sampled", "topk", "full"]
    k: Annotated[int, Field(ge=0)]
    support: Literal["student", "teacher", "intersection", "union", "symmetric_difference"]
    weight: Literal["student_p", "teacher_p", "uniform"]
    normalize: Literal["raw", "weights", "both"]
    tail: Literal["drop", "bucket"]
    stop_gradient: bool
    direction: Literal["reverse", "forward", "jsd"]
    beta: Annotated[float, Field(gt=0.0, lt=1.0)]


NEEDS: frozenset[str] = frozenset({"teacher"})


def n_candidates(params: Params, vocabulary: int) -> int:
    """How long the top-k lists must be."""
    return {"sampled": 0, "topk": params.k, "full": vocabulary}[params.estimator]


def loss(scores: TokenScores, params: Params) -> Loss:
    """The objective (nats), summed over tokens. Positions with an empty support contribute 0 and are counted."""
    if params.estimator == "sampled":
        assert scores.teacher_logp_N is not None
        ratio_N = (scores.student_logp_N - scores.teacher_logp_N).detach()
        value_N = score_function(ratio_N, scores.student_logp_N)
    else:
        assert scores.candidates is not None
        value_N = divergence(scores.candidates, params)
    return Loss(total=value_N.sum(), n_tokens=len(scores.token_N))


def divergence(candidates: Candidates, params: Params) -> Tensor:
    """The objective at each position (N)."""
    mask_NC = support_mask(candidates, params)
    logp_NC, logq_NC = candidates.student_logp_NC, candidates.teacher_logp_NC
    if params.normalize == "both":
        logp_NC, logq_NC = renormalise(logp_NC, mask_NC), renormalise(logq_NC, mask_NC)
    if params.tail == "bucket":
        logp_NC, logq_NC = with_tail(logp_NC, mask_NC), with_tail(logq_NC, mask_NC)
        mask_NC = torch.cat([mask_NC, torch.ones_like(mask_NC[:, :1])], 1)
    return torch.where(mask_NC, summand(logp_NC, logq_NC, mask_NC, params), 0.0).sum(-1)


def summand(logp_NC: Tensor, logq_NC: Tensor, mask_NC: Tensor, params: Params) -> Tensor:
    """What is summed over the support (N, C)."""
    if params.direction == "jsd":
        logm_NC = mixture(logp_NC, logq_NC, params.beta)
        to_teacher_NC = logq_NC.exp() * (logq_NC - logm_NC)
        return params.beta * to_teacher_NC + (1.0 - params.beta) * logp_NC.exp() * (logp_NC - logm_NC)
    source_NC = {"student_p": logp_NC, "teacher_p": logq_NC, "uniform": torch.zeros_like(logp_NC)}[params.weight]
    weight_NC = source_NC.exp() if params.normalize == "raw" else renormalise(source_NC, mask_NC).exp()
    if params.direction == "forward":
        return weight_NC * (logq_NC - logp_NC)
    if params.stop_gradient:
        return score_function((weight_NC * (logp_NC - logq_NC)).detach(), logp_NC)
    return weight_NC * (logp_NC - logq_NC)


def score_function(coefficient: Tensor, logp: Tensor) -> Tensor:
    """Has the value of `coefficient` (a constant) and the gradient coefficient · ∇log p."""
    return coefficient * (1.0 + logp - logp.detach())


def support_mask(candidates: Candidates, params: Params) -> Tensor:
    """Which candidates form the support S (N, C)."""
    if params.estimator == "full":
        return candidates.student_rank_NC < OUTSIDE
    student_NC, teacher_NC = candidates.student_rank_NC < params.k, candidates.teacher_rank_NC < params.k
    return {
        "student": student_NC,
        "teacher": teacher_NC,
        "intersection": student_NC & teacher_NC,
        "union": student_NC | teacher_NC,
        "symmetric_difference": student_NC ^ teacher_NC,
    }[params.support]


def renormalise(logp_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """Log-probabilities renormalised on the support; finite and without meaning off it."""
    return logp_NC - logp_NC.masked_fill(~mask_NC, NEGLIGIBLE).logsumexp(-1, keepdim=True)


def with_tail(logp_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """One more column: the log-probability of everything outside the support."""
    log_mass_N1 = logp_NC.masked_fill(~mask_NC, NEGLIGIBLE).logsumexp(-1, keepdim=True)
    smallest = torch.finfo(logp_NC.dtype).eps
    log_tail_N1 = torch.log(-torch.expm1(log_mass_N1.clamp(max=-smallest)))
    return torch.cat([logp_NC, log_tail_N1], 1)


def mixture(logp_NC: Tensor, logq_NC: Tensor, beta: float) -> Tensor:
    """log(βq + (1−β)p)."""
    weights = torch.tensor([beta, 1.0 - beta], dtype=logp_NC.dtype, device=logp_NC.device).log()
    return torch.logaddexp(logq_NC + weights[0], logp_NC + weights[1])


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse what cannot be computed, or whose expected gradient is zero, blind to the teacher or away from it.

    Raises ValueError naming key, value, reason and remedy.
    """
    p = params
    topk, sampled, reverse = p.estimator == "topk", p.estimator == "sampled", p.direction == "reverse"
    refusals = [
        (not has_teacher, "teacher: null", "distillation needs a teacher, and its top-k list for this support", "name one"),
        (topk and p.k < 1, f"method.k: {p.k}", "top-k needs at least one token", "use k ≥ 1, or estimator: sampled"),
        (topk and p.k > vocabulary, f"method.k: {p.k}", f"the vocabulary has {vocabulary} tokens", "use a smaller k"),
        (
            topk and p.k == 1 and p.normalize == "both" and p.support in ("student", "teacher", "intersection"),
            "method.normalize: both",
            "with k = 1 a renormalised single token has probability 1 in both models: the loss is identically zero",
            "use normalize: weights, or k > 1",
        ),
        (
            sampled and not (reverse and p.stop_gradient),
            f"method.stop_gradient: {str(p.stop_gradient).lower()}, method.direction: {p.direction}",
            "a sampled token's log-ratio, differentiated, has expected gradient zero, and samples come from the student",
            "use stop_gradient: true with direction: reverse",
        ),
        (
            not sampled and reverse and p.weight != "student_p" and not p.stop_gradient,
            f"method.weight: {p.weight}",
            "with the weight constant, differentiating the log-ratio ignores the teacher (uniform) or maximises the "
            "forward KL (teacher_p)",
            "use stop_gradient: true, or weight: student_p",
        ),
        (
            not sampled and not reverse and p.stop_gradient,
            "method.stop_gradient: true",
            f"direction: {p.direction} is differentiated as it stands",
            "use stop_gradient: false",
        ),
        (
            not sampled and p.direction == "forward" and p.weight != "teacher_p",
            f"method.weight: {p.weight}",
            "the forward KL is an expectation under the teacher",
            "use weight: teacher_p",
        ),
        (
            not sampled and p.direction == "jsd" and (p.weight != "student_p" or p.normalize == "weights"),
            f"method.weight: {p.weight}, method.normalize: {p.normalize}",
            "the Jensen–Shannon divergence brings its own weights",
            "use weight: student_p with normalize: raw or both",
        ),
        (
            not sampled and p.tail == "bucket" and (p.normalize != "raw" or p.weight == "uniform" or not topk
                or (reverse and p.weight != "student_p")),
            "method.tail: bucket",
            "the tail category completes p and q on the support to distributions, so they must not be renormalised",
            "use estimator: topk, normalize: raw and weight: student_p (forward: teacher_p)",
        ),
    ]  # fmt: skip
    for refused, what, reason, remedy in refusals:
        if refused:
            raise ValueError(f"{what}: {reason}; {remedy}")
