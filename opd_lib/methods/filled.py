"""The truncated reverse KL of a teacher that is asked for its own list alone: what is not on it says nothing.

    Σ_S p r    S the student's k likeliest tokens; r = log(p/q) where the teacher's k likeliest have the token, else 0

    stop_gradient  true   gradient Σ_S p r ∇log p: tokens off the teacher's list are left alone
                   false  differentiated as it stands, the fill held constant: Σ_S p (r + 1) ∇log p, so that a token off
                          the teacher's list is suppressed whatever the teacher thinks of it

The teacher's log-probability of a token that it has not listed is filled in with the student's own. `false` is what the
study found to collapse, `true` what it trains with instead.

Source: arXiv 2605.11182 and its code. Differs: one global token mean; the fill is the trainer's log-probability, not
the sampler's (gates hold the two together).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.methods import opd
from opd_lib.types import Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher"})


class Params(BaseModel):
    """How long the lists are, and what is held constant."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    k: int = Field(ge=0, le=10**6, description="length of either model's list (tokens)")
    stop_gradient: bool = Field(description="hold weight and log-ratio constant (policy-gradient form)")


def reads(params: Params) -> Reads:
    """Both lists."""
    return Reads(k=params.k, lists=frozenset({"student", "teacher"}))


def value(scores: TokenScores, params: Params) -> Tensor:
    """Σ_S p r (N, nats). Raises ValueError for scores without lists."""
    if scores.candidates is None:
        raise ValueError(opd.LACKING)
    c = scores.candidates
    own_NC = c.student_logp_NC.detach()
    filled = replace(c, teacher_logp_NC=c.teacher_logp_NC.where(c.teacher_rank_NC < params.k, own_NC))
    return opd.on_support(filled, opd.truncated(params.k, params.stop_gradient))


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse lists that cannot be, and a form in which one token falls under every teacher. Raises ValueError."""
    if not has_teacher:
        raise ValueError("teacher: null: distillation compares with a teacher; name one")
    if not 1 <= params.k <= vocabulary:
        raise ValueError(f"method.k: {params.k}: the vocabulary has {vocabulary} tokens; use 1 ≤ k ≤ {vocabulary}")
    if params.k == 1 and not params.stop_gradient:
        raise ValueError(
            "method.stop_gradient: false: differentiated, p log(p/q) of one token falls until p = q/e: every teacher "
            "lowers a p above 1/e; use stop_gradient: true, or k > 1"
        )
