"""Three losses that look like distillation and are none: negative controls, trained only where one asks for them.

    sampled    log p(y) − log q(y), differentiated as it stands: ∇log p(y), in which q does not stand; expected to be 0
    advantage  the divergence Σ_S p log(p/q) taken off the advantage of the token that was drawn: it does not depend on
               that token, so the expected gradient is 0
    top1       p log(p/q) of the student's likeliest token, differentiated: every teacher lowers a p above 1/e

S are the student's k likeliest tokens. The first two only add noise; the third leaks.

Source: arXiv 2605.11182, as its code was read (the first two), and its experiment with one token (the third).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.methods import opd
from opd_lib.types import Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher"})
REASONS = {
    "sampled": "its gradient does not contain the teacher",
    "advantage": "what it takes off does not depend on the token that was drawn, so its expected gradient is 0",
    "top1": "every teacher lowers a likely token",
}


class Params(BaseModel):
    """Which loss, and that it is known to be none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    loss: Literal["sampled", "advantage", "top1"] = Field(description="which of the three")
    k: int = Field(ge=0, le=10**6, description="length of the student's list (tokens); read by advantage only")
    control: bool = Field(description="true: it is to be trained as a control, although it cannot teach")


def reads(params: Params) -> Reads:
    """The student's list, where the loss has one."""
    k = {"sampled": 0, "advantage": params.k, "top1": 1}[params.loss]
    return Reads(k=k, lists=frozenset({"student"} if k else ()))


def value(scores: TokenScores, params: Params) -> Tensor:
    """The loss (N, nats). Raises ValueError for scores without what it reads."""
    if scores.teacher_logp_N is None or (params.loss != "sampled" and scores.candidates is None):
        raise ValueError(opd.LACKING)
    if params.loss == "sampled":
        return scores.student_logp_N - scores.teacher_logp_N
    assert scores.candidates is not None
    divergence_N = opd.on_support(scores.candidates, opd.truncated(reads(params).k, stop_gradient=False))
    return divergence_N if params.loss == "top1" else opd.score_function(divergence_N.detach(), scores.student_logp_N)


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse it as anything but a control, and lists that cannot be. Raises ValueError."""
    if not params.control:
        raise ValueError(
            f"method.control: false: loss {params.loss} teaches nothing: {REASONS[params.loss]}; use method opd, or "
            "control: true to see it fail"
        )
    if not has_teacher:
        raise ValueError("teacher: null: it compares with a teacher; name one")
    if params.loss == "advantage" and not 1 <= params.k <= vocabulary:
        raise ValueError(f"method.k: {params.k}: the vocabulary has {vocabulary} tokens; use 1 ≤ k ≤ {vocabulary}")
    if params.loss != "advantage" and params.k:
        raise ValueError(f"method.k: {params.k}: loss {params.loss} has no list to choose; write k: 0")


def check_served(params: Params) -> None:
    """Refuse losses that read the teacher's probability of the student's list. Raises ValueError."""
    if params.loss != "sampled":
        raise ValueError(
            f"method.loss: {params.loss}: a vLLM server scores the sampled token and its own list only; use "
            "loss: sampled, or machine.teacher_url: null"
        )
