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
symmetric_difference with raw. `raw` without stop_gradient is the plain truncated reverse KL: it also pushes mass out of
S and is not zero at p = q. `sampled` is unbiased only for tokens drawn from the student at temperature 1, top_p 1.

Source: arXiv 2604.13016 §2 and its code. Differs: one global token mean (the code averages micro-batch means); no ratio
and no clipping (one optimiser step per batch, so the ratio is 1).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from opd_lib.maths import logprobs
from opd_lib.maths.logprobs import NEGLIGIBLE
from opd_lib.methods._opd_oracle import oracle as oracle
from opd_lib.types import Candidates, Reads, TokenScores

NEEDS: frozenset[str] = frozenset({"teacher"})


class Params(BaseModel):
    """Which objective. `sampled` reads none of k, support, weight, normalize, tail; `full` is topk with S = V."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    estimator: Literal["sampled", "topk", "full"] = Field(description="the sampled token, a support, the vocabulary")
    k: int = Field(ge=0, description="length of the top-k lists the support is made of (tokens)")
    support: Literal["student", "teacher", "intersection", "union", "symmetric_difference"] = Field(
        description="how the student's and the teacher's top-k lists make the support S"
    )
    weight: Literal["student_p", "teacher_p", "uniform"] = Field(description="what weighs the log-ratios")
    normalize: Literal["raw", "weights", "both"] = Field(description="what is renormalised on S")
    tail: Literal["drop", "bucket"] = Field(description="what becomes of the mass outside S")
    stop_gradient: bool = Field(description="hold weight and log-ratio constant (policy-gradient form)")
    direction: Literal["reverse", "forward", "jsd"] = Field(description="KL(p ‖ q), KL(q ‖ p), Jensen–Shannon")
    beta: Annotated[float, Field(gt=0.0, lt=1.0, description="share of the teacher in jsd's mixture; read by jsd only")]


SUPPORTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "student": lambda student_NC, teacher_NC: student_NC,
    "teacher": lambda student_NC, teacher_NC: teacher_NC,
    "intersection": operator.and_,
    "union": operator.or_,
    "symmetric_difference": operator.xor,
}


def reads(params: Params) -> Reads:
    """With both distributions renormalised on S neither's partition function is left in the objective."""
    if params.estimator != "topk":
        return Reads(distributions=params.estimator == "full")
    lists = {"student", "teacher"} if params.support not in ("student", "teacher") else {params.support}
    return Reads(k=params.k, lists=frozenset(lists), partition=params.normalize != "both")


def value(scores: TokenScores, params: Params) -> Tensor:
    """The objective (N, nats). Positions with an empty support have value 0.

    Raises ValueError if the scores lack the teacher, or the lists or distributions this objective reads.
    """
    if params.estimator == "sampled" and scores.teacher_logp_N is not None:
        ratio_N = (scores.student_logp_N - scores.teacher_logp_N).detach()
        return score_function(ratio_N, scores.student_logp_N)
    if params.estimator == "topk" and scores.candidates is not None:
        return on_support(scores.candidates, params)
    if params.estimator == "full" and scores.distributions is not None:
        logp_NV, logq_NV = scores.distributions
        all_11 = torch.ones(1, 1, dtype=torch.bool, device=logp_NV.device)
        mask_NV = SUPPORTS[params.support](all_11, all_11).expand_as(logp_NV)
        return divergence(logp_NV, logq_NV, mask_NV, params)
    raise ValueError("scores without a teacher, its lists or distributions: score with a teacher and `reads(...)`")


def on_support(candidates: Candidates, params: Params) -> Tensor:
    """The objective at each position (N). Slots outside the support hold log p = log q = 0: finite, without effect."""
    mask_NC = support_mask(candidates, params)
    logp_NC = candidates.student_logp_NC.masked_fill(~mask_NC, 0.0)
    logq_NC = candidates.teacher_logp_NC.masked_fill(~mask_NC, 0.0)
    return divergence(logp_NC, logq_NC, mask_NC, params)


def divergence(logp_NC: Tensor, logq_NC: Tensor, mask_NC: Tensor, params: Params) -> Tensor:
    """The objective at each position (N), of log-probabilities which are 0 where the mask is False."""
    if params.normalize == "both":
        logp_NC, logq_NC = renormalise(logp_NC, mask_NC), renormalise(logq_NC, mask_NC)
    if params.tail == "bucket":
        logp_NC, logq_NC = with_tail(logp_NC, mask_NC), with_tail(logq_NC, mask_NC)
        mask_NC = torch.nn.functional.pad(mask_NC, (0, 1), value=True)
    return summand(logp_NC, logq_NC, mask_NC, params).masked_fill(~mask_NC, 0.0).sum(-1)


def summand(logp_NC: Tensor, logq_NC: Tensor, mask_NC: Tensor, params: Params) -> Tensor:
    """What is summed over the support (N, C)."""
    if params.direction == "jsd":
        logm_NC = torch.logaddexp(logq_NC + math.log(params.beta), logp_NC + math.log1p(-params.beta))
        to_teacher_NC, to_student_NC = logq_NC.exp() * (logq_NC - logm_NC), logp_NC.exp() * (logp_NC - logm_NC)
        return params.beta * to_teacher_NC + (1.0 - params.beta) * to_student_NC
    source_NC = {"student_p": logp_NC, "teacher_p": logq_NC, "uniform": torch.zeros_like(logp_NC)}[params.weight]
    weight_NC = (source_NC if params.normalize == "raw" else renormalise(source_NC, mask_NC)).exp()
    if params.direction == "forward":
        return weight_NC * (logq_NC - logp_NC)
    value_NC = weight_NC * (logp_NC - logq_NC)
    return score_function(value_NC.detach(), logp_NC) if params.stop_gradient else value_NC


def score_function(coefficient: Tensor, logp: Tensor) -> Tensor:
    """Has the value of `coefficient` (a constant) and the gradient coefficient · ∇log p."""
    return coefficient * (1.0 + logp - logp.detach())


def support_mask(candidates: Candidates, params: Params) -> Tensor:
    """Which candidates form the support S (N, C). Raises ValueError if their lists are too short for it."""
    length, k = logprobs.list_length(candidates), params.k
    if len(candidates.id_NC) and length < k:
        raise ValueError(f"candidates: lists of {length} tokens, but the objective reads {k}; score with that k")
    return SUPPORTS[params.support](candidates.student_rank_NC < k, candidates.teacher_rank_NC < k)


def renormalise(logp_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """Log-probabilities renormalised on the support; 0 off it."""
    return logp_NC.masked_fill(~mask_NC, NEGLIGIBLE).log_softmax(-1).masked_fill(~mask_NC, 0.0)


def with_tail(logp_NC: Tensor, mask_NC: Tensor) -> Tensor:
    """One more column: the log-probability of everything outside the support (at least the rounding error)."""
    log_mass_N1 = logp_NC.masked_fill(~mask_NC, NEGLIGIBLE).logsumexp(-1, keepdim=True)
    smallest = torch.finfo(logp_NC.dtype).eps
    return torch.cat([logp_NC, torch.log(-torch.expm1(log_mass_N1.clamp(max=-smallest)))], 1)


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse what cannot be computed, or whose expected gradient is zero, blind to the teacher or away from it.

    Raises ValueError naming key, value, reason and remedy.
    """
    facts: dict[str, Any] = params.model_dump() | {"teacher": has_teacher}
    k = {"sampled": 0, "topk": params.k, "full": vocabulary}[params.estimator]
    sizes = {"empty": k < 1, "too long": k > vocabulary, "one": k == 1, "all": k == vocabulary}
    facts["size"] = next((size for size, holds in sizes.items() if holds), "some")
    for key, when, reason in REFUSALS:
        if all(facts[fact] in values for fact, values in when.items()):
            blamed = f"method.{key}: {str(facts[key]).lower()}" if has_teacher else "teacher: null"
            raise ValueError(f"{blamed}: {reason.format(vocabulary=vocabulary)}")


def check_served(params: Params) -> None:
    """Refuse objectives that read the teacher's probability of a token which is not on the teacher's own list.

    Raises ValueError naming key, value, reason and remedy.
    """
    reason = "a vLLM server cannot score given tokens at each position, only the sampled one and the teacher's top-k"
    if params.estimator == "full":
        raise ValueError(f"method.estimator: full: {reason}; use sampled, or machine.teacher_url: null")
    if params.estimator == "topk" and params.support not in ("teacher", "intersection"):
        raise ValueError(
            f"method.support: {params.support}: {reason}; use support: teacher or intersection, estimator: sampled, or "
            "machine.teacher_url: null"
        )


# key to blame · the facts that together refuse · reason; remedy. Earlier refusals are presupposed by later ones.
REFUSALS: tuple[tuple[str, dict[str, set[Any]], str], ...] = (
    ("teacher", {"teacher": {False}}, "distillation compares with a teacher; name one"),
    ("k", {"estimator": {"topk"}, "size": {"empty"}}, "a list needs a token; use k ≥ 1, or estimator: sampled"),
    ("k", {"size": {"too long"}}, "the vocabulary has {vocabulary} tokens; use k ≤ {vocabulary}"),
    ("direction", {"estimator": {"sampled"}, "direction": {"forward", "jsd"}},
     "tokens are sampled from the student, so they estimate the reverse KL only; use direction: reverse"),
    ("stop_gradient", {"estimator": {"sampled"}, "stop_gradient": {False}},
     "a sampled token's log-ratio, differentiated, has expected gradient zero; use stop_gradient: true"),
    ("support", {"support": {"symmetric_difference"}, "size": {"all"}},
     "lists of all {vocabulary} tokens differ nowhere, so the loss is identically zero; use topk and a smaller k"),
    ("tail", {"tail": {"bucket"}, "size": {"all"}}, "all {vocabulary} tokens leave no tail; use tail: drop"),
    ("normalize", {"estimator": {"topk"}, "tail": {"bucket"}, "normalize": {"weights", "both"}},
     "the tail bucket completes p and q on S to distributions; use normalize: raw, or tail: drop"),
    ("weight", {"estimator": {"topk"}, "tail": {"bucket"}, "direction": {"reverse"},
                "weight": {"teacher_p", "uniform"}},
     "with the tail bucket the sum is a KL under the student's own weight only; use weight: student_p"),
    ("stop_gradient", {"direction": {"forward", "jsd"}, "stop_gradient": {True}},
     "the policy-gradient form belongs to the reverse KL; use stop_gradient: false"),
    ("weight", {"direction": {"forward"}, "weight": {"student_p", "uniform"}},
     "the forward KL is an expectation under the teacher; use weight: teacher_p"),
    ("weight", {"direction": {"jsd"}, "weight": {"teacher_p", "uniform"}},
     "the Jensen–Shannon divergence brings its own weights; write weight: student_p"),
    ("normalize", {"direction": {"jsd"}, "normalize": {"weights"}},
     "the Jensen–Shannon divergence brings its own weights; use normalize: raw or both"),
    ("weight", {"direction": {"reverse"}, "weight": {"uniform"}, "stop_gradient": {False}},
     "differentiated, log q drops out: blind to the teacher; use stop_gradient: true, or weight: student_p"),
    ("weight", {"direction": {"reverse"}, "weight": {"teacher_p"}, "stop_gradient": {False}},
     "differentiated, it maximises the forward KL; use stop_gradient: true, or direction: forward"),
    ("normalize", {"size": {"one"}, "support": {"student", "teacher", "intersection"}, "normalize": {"both"}},
     "one token renormalised has probability 1 in both models: identically zero; use normalize: raw, or k > 1"),
    ("normalize", {"size": {"one"}, "support": {"student", "teacher", "intersection"}, "normalize": {"weights"},
                   "direction": {"reverse"}, "stop_gradient": {False}},
     "one token of weight 1, differentiated, loses log q: blind to the teacher; use stop_gradient: true, or k > 1"),
    ("normalize", {"size": {"one"}, "support": {"student", "intersection"}, "normalize": {"weights"},
                   "direction": {"forward"}},
     "one token of weight 1, differentiated, loses log q: blind to the teacher; use normalize: raw, or k > 1"),
)  # fmt: skip
