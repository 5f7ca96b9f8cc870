"""GRPO: policy gradient with rewards centred on the group of responses to one prompt.

    A_i = r_i − mean(r_1 … r_G)     (divided by the group's standard deviation if `normalize_std`)
    value = − A_i log p(y_it)

It makes the tiny world's post-RL teachers, as Table 1 of arXiv 2604.13016 makes Qwen3-4B-Base-GRPO.
Differs: no ratio and no clipping: with one optimiser step per batch of rollouts the ratio is 1 and clipping never acts.
No KL term. One mean over all tokens of the batch. The standard deviation is the population's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.seam import View
from opd_lib.types import TokenScores

if TYPE_CHECKING:
    from torch import Tensor


class Params(BaseModel):
    """How rewards become advantages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    normalize_std: bool = Field(description="divide a group's advantages by the standard deviation of its rewards")
    epsilon: Annotated[float, Field(ge=1e-12, le=1.0, description="added to that standard deviation")]


NEEDS: frozenset[str] = frozenset({"reward"})


def advantages(view: View, params: Params) -> Tensor:
    """Each response's advantage (B), of its group's rewards."""
    return centred(view.reward_PG, params).flatten()


def centred(reward_PG: Tensor, params: Params) -> Tensor:
    """Advantages (P, G): exactly zero for a group whose rewards are all equal.

    Without `normalize_std` the expected gradient is (G − 1)/G times that of the expected reward.
    Raises ValueError for groups of one, and for rewards that are no numbers: one would make its whole group so.
    """
    if reward_PG.shape[1] < 2:
        raise ValueError("source.per_prompt: 1: a group of one has nothing to be compared with; use 2 or more")
    if not reward_PG.isfinite().all():
        group, place = (~reward_PG.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"rewards: {float(reward_PG[group, place])} of response {place} to prompt {group}; the method grpo needs a "
            "number of each: use a task whose answers are known"
        )
    equal_P1 = reward_PG.amax(1, keepdim=True) == reward_PG.amin(1, keepdim=True)
    centred_PG = (reward_PG - reward_PG.mean(1, keepdim=True)).masked_fill(equal_P1, 0.0)
    if not params.normalize_std:
        return centred_PG
    return centred_PG / (reward_PG.std(1, keepdim=True, correction=0) + params.epsilon)


def value(scores: TokenScores, params: Params) -> Tensor:
    """Policy-gradient loss (N, nats). Raises ValueError for scores without advantages."""
    if scores.advantage_N is None:
        raise ValueError("scores without advantages: score with those that `advantages` makes of a view")
    return -(scores.advantage_N * scores.student_logp_N)
