"""On-policy distillation: the student's own tokens, scored by the teacher. Every published objective, by name.

With p the student, q the teacher, both on the student's prefix, S a support and w a weight, per position:

    sampled     log p(y) − log q(y) at the sampled token y              Eq. 3; gradient by score function
    full        Σ_V p log(p/q)                                          Eq. 4
    topk        Σ_S w log(p/q)                                          Eq. 5 and relatives

    normalize   raw       w = p                 log-ratio over the full vocabulary
                weights   w = p / Σ_S p         log-ratio over the full vocabulary: what the published code computes
                both      p and q renormalised on S, in weight and log-ratio: Eq. 5 as printed
    weight      teacher_p puts q in the place of p in w, uniform puts 1
    stop_gradient  true   gradient Σ_S w log(p/q) ∇log p, weight and log-ratio held constant (policy-gradient form)
                   false  the expression is differentiated as it stands
    tail        bucket adds what lies outside S as one more category; drop leaves it out
    direction   forward   Σ_S w log(q/p), w = q
                jsd       Σ_S βq log(q/m) + (1−β)p log(p/m), m = βq + (1−β)p

The default of the experiments (topk, student, student_p, weights, stop_gradient) is the published code's objective; its
gradient is that of the generalised reverse KL Σ_S [p log(p/q) − p + q] divided by Σ_S p. The published "Non-Overlap" is
symmetric_difference with raw. `sampled` is unbiased only for tokens drawn from the student at temperature 1, top_p 1,
and refused for others. The bucket's mass is summed over the tokens outside S, never taken as 1 − Σ_S p, which float32
knows to 1e-7 only; of a served teacher no more is known than that.

With drop and S short of the vocabulary two kinds are not stationary at p = q. The forward KL under raw or weights moves
all mass into S, to p = q̄ there; the reverse KL under raw without stop_gradient (the plain truncated one) moves mass out
of S, to p = q/e there. All others are stationary at p = q, as those are under both or with the bucket.

Source: arXiv 2604.13016 §2 and its code. Differs: one global token mean (the code averages micro-batch means); no ratio
and no clipping (one optimiser step per batch, so the ratio is 1).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.methods._opd_refusals import check as check
from opd_lib.methods._opd_refusals import check_others as check_others
from opd_lib.methods._opd_refusals import check_served as check_served
from opd_lib.types import NEGLIGIBLE, Candidates, Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher"})


class Params(BaseModel):
    """Which objective. `sampled` reads none of k, support, weight, normalize, tail; `full` is topk with S = V."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    estimator: Literal["sampled", "topk", "full"] = Field(description="the sampled token, a support, the vocabulary")
    k: int = Field(ge=0, le=10**6, description="length of the top-k lists the support is made of (tokens)")
    support: Literal["student", "teacher", "intersection", "union", "symmetric_difference"] = Field(
        description="how the student's and the teacher's top-k lists make the support S"
    )
    weight: Literal["student_p", "teacher_p", "uniform"] = Field(description="what weighs the log-ratios")
    normalize: Literal["raw", "weights", "both"] = Field(description="what is renormalised on S")
    tail: Literal["drop", "bucket"] = Field(description="what becomes of the mass outside S")
    stop_gradient: bool = Field(description="hold weight and log-ratio constant (policy-gradient form)")
    direction: Literal["reverse", "forward", "jsd"] = Field(description="KL(p ‖ q), KL(q ‖ p), Jensen–Shannon")
    beta: Annotated[float, Field(gt=0.0, lt=1.0, description="share of the teacher in jsd's mixture; read by jsd only")]


def truncated(k: int, stop_gradient: bool) -> Params:
    """Options of Σ_S p log(p/q) on the student's k likeliest tokens, neither normalised nor completed."""
    return Params(
        estimator="topk",
        k=k,
        support="student",
        weight="student_p",
        normalize="raw",
        tail="drop",
        stop_gradient=stop_gradient,
        direction="reverse",
        beta=0.5,
    )


LACKING = "scores without a teacher, its lists or distributions: score with a teacher and `reads(...)`"
SUPPORTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "student": lambda student_NC, teacher_NC: student_NC,
    "teacher": lambda student_NC, teacher_NC: teacher_NC,
    "intersection": operator.and_,
    "union": operator.or_,
    "symmetric_difference": operator.xor,
}


def reads(params: Params) -> Reads:
    """With both distributions renormalised on S neither's partition function is left in the objective.

    What lies outside S is read off the whole distributions.
    """
    if params.estimator != "topk":
        return Reads(distributions=params.estimator == "full")
    lists = {"student", "teacher"} if params.support not in ("student", "teacher") else {params.support}
    return Reads(
        k=params.k,
        lists=frozenset(lists),
        partition=params.normalize != "both",
        distributions=params.tail == "bucket",
    )


def value(scores: TokenScores, params: Params) -> Tensor:
    """The objective (N, nats). Positions with an empty support have value 0.

    Raises ValueError if the scores lack the teacher, or the lists or distributions this objective reads.
    """
    if params.estimator == "sampled" and scores.teacher_logp_N is not None:
        ratio_N = (scores.student_logp_N - scores.teacher_logp_N).detach()
        return score_function(ratio_N, scores.student_logp_N)
    if params.estimator == "topk" and scores.candidates is not None:
        return on_support(scores.candidates, params, scores.distributions)
    if params.estimator == "full" and scores.distributions is not None:
        logp_NV, logq_NV = scores.distributions
        all_11 = logp_NV.new_ones(1, 1).bool()
        mask_NV = SUPPORTS[params.support](all_11, all_11).expand_as(logp_NV)
        return divergence(logp_NV, logq_NV, mask_NV, params)
    raise ValueError(LACKING)


def on_support(candidates: Candidates, params: Params, distributions: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The objective at each position (N). Slots outside the support hold log p = log q = 0: finite, without effect.

    `distributions` are read for the tail bucket alone. Raises ValueError if that lacks them.
    """
    mask_NC = support_mask(candidates, params)
    logp_NC = candidates.student_logp_NC.masked_fill(~mask_NC, 0.0)
    logq_NC = candidates.teacher_logp_NC.masked_fill(~mask_NC, 0.0)
    if params.tail == "bucket":
        if distributions is None:
            raise ValueError(LACKING)
        import torch

        tails_N1 = [outside(logp_NV, candidates.id_NC, mask_NC) for logp_NV in distributions]
        logp_NC, logq_NC = (torch.cat(pair, 1) for pair in zip((logp_NC, logq_NC), tails_N1, strict=True))
        mask_NC = torch.nn.functional.pad(mask_NC, (0, 1), value=True)
    return divergence(logp_NC, logq_NC, mask_NC, params)


def divergence(logp_NC: Tensor, logq_NC: Tensor, mask_NC: Tensor, params: Params) -> Tensor:
    """The objective at each position (N), of log-probabilities which are 0 where the mask is False."""
    if params.normalize == "both" and params.estimator != "full":  # a whole distribution is normalised
        logp_NC, logq_NC = renormalise(logp_NC, mask_NC), renormalise(logq_NC, mask_NC)
    if has_impossible(logp_NC) or has_impossible(logq_NC):
        mask_NC = mask_NC & weighs(logp_NC, logq_NC, params)
        logp_NC, logq_NC = logp_NC.masked_fill(~mask_NC, 0.0), logq_NC.masked_fill(~mask_NC, 0.0)
        if params.direction == "jsd":  # finite also where one of the two is impossible
            logp_NC, logq_NC = logp_NC.clamp(min=NEGLIGIBLE), logq_NC.clamp(min=NEGLIGIBLE)
    return summand(logp_NC, logq_NC, mask_NC, params).masked_fill(~mask_NC, 0.0).sum(-1)


def has_impossible(logp_NC: Tensor) -> bool:
    """Whether a probability of 0 is among them."""
    return logp_NC.numel() > 0 and bool(logp_NC.detach().amin() == -math.inf)


def weighs(logp_NC: Tensor, logq_NC: Tensor, params: Params) -> Tensor:
    """False for tokens that are impossible to whoever weighs them: they add 0, and 0 times an infinite ratio is NaN."""
    both_NC = logp_NC.maximum(logq_NC)
    source_NC = {"student_p": logp_NC, "teacher_p": logq_NC, "uniform": both_NC}[params.weight]
    return (both_NC if params.direction == "jsd" else source_NC).detach() != -math.inf


def summand(logp_NC: Tensor, logq_NC: Tensor, mask_NC: Tensor, params: Params) -> Tensor:
    """What is summed over the support (N, C)."""
    if params.direction == "jsd":
        return jensen_shannon(logp_NC, logq_NC, params.beta)
    source_NC = {"student_p": logp_NC, "teacher_p": logq_NC, "uniform": logp_NC.new_zeros(logp_NC.shape)}[params.weight]
    as_is = params.normalize == "raw" or (params.estimator == "full" and params.weight != "uniform")
    weight_NC = (source_NC if as_is else renormalise(source_NC, mask_NC)).exp()
    if params.direction == "forward":
        return weight_NC * (logq_NC - logp_NC)
    value_NC = weight_NC * (logp_NC - logq_NC)
    return score_function(value_NC.detach(), logp_NC) if params.stop_gradient else value_NC


def jensen_shannon(logp_NC: Tensor, logq_NC: Tensor, beta: float) -> Tensor:
    """βq log(q/m) + (1−β)p log(p/m); its derivative by log p is (1−β)p log(p/m).

    Both ratios to the mixture are taken from log(q/p) alone: exact also where m is nearly p or q.
    """
    import torch

    with torch.no_grad():
        ratio_NC = logq_NC - logp_NC
        own, other = ratio_NC.new_tensor(math.log1p(-beta)), ratio_NC.new_tensor(math.log(beta))
        student_NC = (beta - 1.0) * logp_NC.exp() * torch.logaddexp(own, other + ratio_NC)
        value_NC = student_NC - beta * logq_NC.exp() * torch.logaddexp(other, own - ratio_NC)
    return value_NC + student_NC * (logp_NC - logp_NC.detach())


def score_function(coefficient: Tensor, logp: Tensor) -> Tensor:
    """Has the value of `coefficient` (a constant) and the gradient coefficient · ∇log p."""
    return coefficient * (1.0 + logp - logp.detach())


def support_mask(candidates: Candidates, params: Params) -> Tensor:
    """Which candidates form the support S (N, C). Raises ValueError if their lists are too short for it."""
    length, k = candidates.length, params.k
    if len(candidates.id_NC) and length < k:
        raise ValueError(f"candidates: lists of {length} tokens, but the objective reads {k}; score with that k")
    return SUPPORTS[params.support](candidates.student_rank_NC < k, candidates.teacher_rank_NC < k)


def renormalise(logp_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """Log-probabilities renormalised on the support; 0 off it."""
    return logp_NC.masked_fill(~mask_NC, NEGLIGIBLE).log_softmax(-1).masked_fill(~mask_NC, 0.0)


def outside(logp_NV: Tensor, id_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """Log-probability (N, 1) of everything that the mask leaves out, summed over those tokens themselves.

    A served teacher has not said it: its tail is what its list leaves of 1, and at least the rounding error.
    """
    import torch

    n, vocabulary = logp_NV.shape
    slot_NC = id_NC.masked_fill(~mask_NC, vocabulary)  # one more place, for the slots that are not used
    inside_NV = torch.zeros(n, vocabulary + 1, dtype=torch.bool, device=id_NC.device).scatter_(1, slot_NC, True)
    inside_NV = inside_NV[:, :vocabulary]
    tail_N1 = logp_NV.masked_fill(inside_NV, NEGLIGIBLE).logsumexp(-1, keepdim=True)
    unsaid_N1 = tail_N1.isnan()
    if logp_NV.requires_grad or not unsaid_N1.any():
        return tail_N1
    mass_N1 = logp_NV.masked_fill(~inside_NV, NEGLIGIBLE).logsumexp(-1, keepdim=True)
    left_N1 = torch.log(-torch.expm1(mass_N1.clamp(max=-torch.finfo(logp_NV.dtype).eps)))
    return left_N1.where(unsaid_N1, tail_N1)
