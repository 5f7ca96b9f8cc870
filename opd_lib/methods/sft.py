"""Supervised fine-tuning: cross-entropy on given tokens (pre-training on the corpus, cold start on teacher rollouts).

    loss = − Σ_t log p(y_t)

Source: arXiv 2604.13016 §5.1 and Table 3 (the cold start).
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from opd_lib.types import Loss, TokenScores

if TYPE_CHECKING:
    from torch import Tensor


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


NEEDS: frozenset[str] = frozenset()


def loss(scores: TokenScores, params: Params) -> Loss:
    """Negative log-likelihood (nats), summed over tokens."""
    return Loss(total=-scores.student_logp_N.sum(), n_tokens=len(scores.token_N))


def oracle(
    student_logits_NV: Tensor, teacher_logits_NV: Tensor | None, token_N: Tensor, params: Params
) -> tuple[float, Tensor]:
    """The loss and its exact gradient at the logits (N, V): softmax minus one-hot. The teacher is not read."""
    gradient_NV = student_logits_NV.detach().double().softmax(-1)
    value = 0.0
    for n, token in enumerate(token_N.tolist()):
        value -= log(float(gradient_NV[n, token]))
        gradient_NV[n, token] -= 1.0
    return value, gradient_NV
