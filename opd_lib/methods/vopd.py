"""vOPD: the sampled-token objective with a baseline that is known in closed form.

    A = log q(y) − log p(y) − V,  V = E_p[log q − log p] = −KL(p ‖ q)        value = −A, gradient −A ∇log p(y)

    baseline  none   V = 0: the sampled objective of `opd`
              full   the exact KL over the vocabulary
              topk   the KL over the student's k likeliest tokens, p and q renormalised on them: no bias, more variance

V does not depend on the token that was drawn, so the expected gradient is that of the reverse KL whatever the baseline.

Source: arXiv 2605.07865, abstract and code. Differs: full-parameter AdamW (the code trains LoRA).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.methods.opd import renormalise, score_function
from opd_lib.types import Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher"})


class Params(BaseModel):
    """Which baseline."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    baseline: Literal["none", "full", "topk"] = Field(description="what the expected log-ratio is taken over")
    k: int = Field(ge=0, le=10**6, description="length of the student's list for topk (tokens); 0 for the others")


def reads(params: Params) -> Reads:
    """The exact KL, or the student's list."""
    if params.baseline == "topk":
        return Reads(k=params.k, lists=frozenset({"student"}))
    return Reads(signals=frozenset({"reverse_kl"}) if params.baseline == "full" else frozenset())


def value(scores: TokenScores, params: Params) -> Tensor:
    """−A (N, nats). Raises ValueError for scores without what the baseline reads."""
    if scores.teacher_logp_N is None:
        raise ValueError("scores without a teacher: score with a teacher and `reads(...)`")
    ratio_N = (scores.student_logp_N - scores.teacher_logp_N).detach()
    if params.baseline != "none":
        ratio_N = ratio_N - expected_ratio(scores, params)
    return score_function(ratio_N, scores.student_logp_N)


def expected_ratio(scores: TokenScores, params: Params) -> Tensor:
    """E_p[log p − log q] (N, nats), over the vocabulary or the student's list; constant."""
    if params.baseline == "full":
        if scores.reverse_kl_N is None:
            raise ValueError("scores without the reverse KL: score with `reads(...)`")
        return scores.reverse_kl_N
    assert scores.candidates is not None
    listed_NC = scores.candidates.student_rank_NC < params.k
    logp_NC = renormalise(scores.candidates.student_logp_NC.detach(), listed_NC)
    logq_NC = renormalise(scores.candidates.teacher_logp_NC, listed_NC)
    return (logp_NC.exp() * (logp_NC - logq_NC)).masked_fill(~listed_NC, 0.0).sum(-1)


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse lists that cannot be, and a list for a baseline that has none. Raises ValueError."""
    if not has_teacher:
        raise ValueError("teacher: null: distillation compares with a teacher; name one")
    if params.baseline == "topk" and not 1 < params.k <= vocabulary:
        raise ValueError(f"method.k: {params.k}: a baseline over one token is 0; use 2 ≤ k ≤ {vocabulary}")
    if params.baseline != "topk" and params.k:
        raise ValueError(f"method.k: {params.k}: baseline {params.baseline} reads no list; write k: 0")


def check_served(params: Params) -> None:
    """Refuse baselines that need the teacher's probability of tokens which were not drawn. Raises ValueError."""
    if params.baseline != "none":
        raise ValueError(
            f"method.baseline: {params.baseline}: a vLLM server scores the sampled token and its own list only; use "
            "baseline: none, or machine.teacher_url: null"
        )
