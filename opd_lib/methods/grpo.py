"""GRPO: policy gradient with rewards centred on the group of responses to one prompt.

    A_i = r_i − mean(r_1 … r_G)     (divided by the group's standard deviation if `normalize_std`)
    loss = − Σ_i A_i Σ_t log p(y_it)

It makes the tiny world's post-RL teachers, as Table 1 of arXiv 2604.13016 makes Qwen3-4B-Base-GRPO.
Differs: no ratio and no clipping. With one optimiser step per batch of rollouts the ratio is 1 and clipping never acts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.types import Loss, TokenScores

if TYPE_CHECKING:
    from torch import Tensor


class Params(BaseModel):
    """How rewards become advantages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    normalize_std: bool
    epsilon: Annotated[float, Field(gt=0.0)]


NEEDS: frozenset[str] = frozenset({"reward"})


def advantages(reward_PG: Tensor, params: Params) -> Tensor:
    """Advantages (P, G): zero for a group whose rewards are all equal.

    Without `normalize_std` the expected gradient is (G − 1)/G times that of the expected reward.
    """
    centred_PG = reward_PG - reward_PG.mean(1, keepdim=True)
    if not params.normalize_std:
        return centred_PG
    return centred_PG / (reward_PG.std(1, keepdim=True, correction=0) + params.epsilon)


def loss(scores: TokenScores, params: Params) -> Loss:
    """Policy-gradient loss (nats), summed over tokens."""
    assert scores.advantage_N is not None
    return Loss(total=-(scores.advantage_N * scores.student_logp_N).sum(), n_tokens=len(scores.token_N))
