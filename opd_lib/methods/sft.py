"""Supervised fine-tuning: cross-entropy on given tokens (pre-training on the corpus, cold start on teacher rollouts).

    value = − log p(y_t)

Source: arXiv 2604.13016 §5.1 and Table 3 (the cold start).
"""

from __future__ import annotations

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
