"""Logits and a uniform number → a token: by inverting the cumulative distribution, whatever else is in the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Token ids (B) as `choose` finds them, and their log-probabilities at temperature 1 (nats, float32 or better)."""
    precise_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
    token_B = choose(precise_BV, uniform_B, temperature, top_p)
    return token_B, precise_BV.log_softmax(-1).gather(1, token_B[:, None])[:, 0]


def choose(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> Tensor:
    """Token ids (B) by inverting the cumulative distribution at `uniform_B`; nucleus sampling if top_p < 1.

    Over uniform numbers in [0, 1) it samples softmax(logits / temperature) exactly, cut to the nucleus, renormalised.
    """
    probability_BV = (logits_BV / temperature).softmax(-1)
    if top_p < 1.0:
        sorted_BV, order_BV = probability_BV.sort(-1, descending=True)
        outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= top_p  # mass before the token already suffices
        probability_BV = probability_BV.scatter(-1, order_BV, sorted_BV.masked_fill(outside_BV, 0.0))
    cumulative_BV = probability_BV.cumsum(-1)
    target_B = uniform_B[:, None] * cumulative_BV[:, -1:]
    index_B = torch.searchsorted(cumulative_BV, target_B, right=True)[:, 0]
    return index_B.clamp(max=probability_BV.shape[-1] - 1)
