"""Supervised fine-tuning: cross-entropy on given tokens (pre-training on the corpus, cold start on teacher rollouts).

    value = − log p(y_t)

Source: arXiv 2604.13016 §5.1 and Table 3 (the cold start).
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from opd_lib.types import TokenScores

if TYPE_CHECKING:
    from torch import Tensor


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


NEEDS: frozenset[str] = frozenset()


def value(scores: TokenScores, params: Params) -> Tensor:
    """Negative log-likelihood (N, nats)."""
    return -scores.student_logp_N


def oracle(
    student_logits_NV: Tensor, teacher_logits_NV: Tensor | None, token_N: Tensor, params: Params
) -> tuple[float, Tensor]:
    """The summed value and its exact gradient at the logits (N, V): softmax minus one-hot. The teacher is not read."""
    gradient_NV = student_logits_NV.detach().double().softmax(-1)
    total = 0.0
    for n, token in enumerate(token_N.tolist()):
        total -= log(float(gradient_NV[n, token]))
        gradient_NV[n, token] -= 1.0
    return total, gradient_NV
