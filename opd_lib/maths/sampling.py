"""Logits and a uniform number → a token: by inverting the cumulative distribution, whatever else is in the batch.

How fine is that? torch's float32 uniform numbers are multiples of 2⁻²⁴ (6e-8), and a sum of probabilities in float32 is
as coarse. A token of lower probability is then drawn too often or never: of 151,000 tokens those that no number reaches
have 1e-4 to 5e-4 of the probability, whichever of the two is coarse. So `uniform` gives 48 bits, and sums are float64.
A vocabulary of up to FEW tokens is summed in float32, as the committed runs have done: 2⁻²⁴ of each of its tokens is at
most 6e-5 of the probability together (8e-6 for the tiny world's 128), and the same numbers draw the same tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 24
"""What is random of a float32 uniform number."""
FEW = 1024
"""Tokens of a vocabulary that is summed in float32, or in the precision of its logits if that is finer."""


def uniform(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers in [0, 1) with 48 random bits (float64). The first 24 are those of `torch.rand` in float32."""
    first, rest = (torch.rand(size, generator=generator).double() for _ in range(2))
    return first + rest * 2.0**-BITS


def coarse(uniform: Tensor) -> Tensor:
    """The first 24 bits of uniform numbers, as float32; what is float32 stays as it is."""
    return uniform if uniform.dtype == torch.float32 else ((uniform.double() * 2.0**BITS).floor() * 2.0**-BITS).float()


def drawn(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Token ids (B) as `choose` finds them, and their log-probabilities at temperature 1 (nats, float32 or better)."""
    precise_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
    token_B = choose(precise_BV, uniform_B, temperature, top_p)
    return token_B, precise_BV.log_softmax(-1).gather(1, token_B[:, None])[:, 0]


def choose(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> Tensor:
    """Token ids (B) by inverting the cumulative distribution at `uniform_B`; nucleus sampling if top_p < 1.

    Over uniform numbers in [0, 1) it samples softmax(logits / temperature), cut to the nucleus, renormalised, exactly:
    up to what they resolve and the rounding of the sums. Of logits that are no distribution it draws any token, whose
    log-probability is NaN: who samples looks there.
    """
    exact = torch.float64 if logits_BV.shape[-1] > FEW else logits_BV.dtype
    probability_BV = (logits_BV.to(exact) / temperature).softmax(-1)
    if top_p < 1.0:
        sorted_BV, order_BV = probability_BV.sort(-1, descending=True)
        outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= top_p  # mass before the token already suffices
        probability_BV = probability_BV.scatter(-1, order_BV, sorted_BV.masked_fill(outside_BV, 0.0))
    cumulative_BV = probability_BV.cumsum(-1)
    total_B1 = cumulative_BV[:, -1:].contiguous()
    number_B = uniform_B.to(exact) if exact == torch.float64 else coarse(uniform_B)
    index_B1 = torch.searchsorted(cumulative_BV, number_B[:, None] * total_B1, right=True)
    last_B1 = torch.searchsorted(cumulative_BV, total_B1)  # a product rounded up to the total draws nothing impossible
    return torch.minimum(index_B1, last_B1)[:, 0].clamp(max=probability_BV.shape[-1] - 1)
