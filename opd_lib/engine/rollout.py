"""Prompts → responses: sampling with a key-value cache, in process.

Every random choice is a uniform number fixed beforehand by (response, position), so a response depends on its prompt,
the model and those numbers: not on what else is in the batch, nor on how many processes share the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from opd_lib.engine import models
from opd_lib.types import Prompt, Rollouts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Sample = Callable[
    ["PreTrainedModel", "PreTrainedTokenizerFast", Sequence[Prompt], torch.Tensor, float, float], Rollouts
]
"""What samples responses: (model, tokenizer, prompts, uniform_BT, temperature, top_p) → Rollouts, as `sample` below."""


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    uniform_BT: Tensor,
    temperature: float,
    top_p: float,
) -> Rollouts:
    """One response per prompt, at most T tokens each.

    `uniform_BT` holds numbers in [0, 1): entry (b, t) decides token t of response b by inverting the cumulative
    distribution (temperature first, then the smallest set of tokens with mass ≥ `top_p`). `sampler_logp_BT` is the
    model's log-probability (nats) at temperature 1 over the full vocabulary, whatever the sampling settings.
    A response ends with a token of `models.stop_ids`; finished ones leave the batch. Rewards are not set here (NaN).
    """
    model.eval()
    n_rows, limit = uniform_BT.shape
    weight = next(model.parameters())
    device, precise = weight.device, torch.promote_types(weight.dtype, torch.float32)
    token_BL, mask_BL = _pad_left([prompt.token_ids for prompt in prompts], tokenizer.pad_token_id, device)
    uniform_BT = uniform_BT.to(device)
    response_BT = torch.full((n_rows, limit), tokenizer.pad_token_id, device=device)
    logp_BT = torch.zeros(n_rows, limit, device=device, dtype=precise)
    length_B = torch.full((n_rows,), limit, device=device)
    finished_B = torch.zeros(n_rows, dtype=torch.bool, device=device)
    stop = torch.tensor(models.stop_ids(model, tokenizer), device=device)
    running = torch.arange(n_rows, device=device)  # which response each row of the shrinking batch is
    cache = DynamicCache(config=model.config)
    for t in range(limit):
        logits_BV = _next_logits(model, token_BL, mask_BL, cache).to(precise)
        token_B = choose(logits_BV, uniform_BT[running, t], temperature, top_p)
        open_B = ~finished_B[running]
        rows = running[open_B]
        response_BT[rows, t] = token_B[open_B]
        logp_BT[rows, t] = logits_BV.log_softmax(-1).gather(1, token_B[:, None])[open_B, 0]
        ended = rows[torch.isin(token_B[open_B], stop)]
        length_B[ended], finished_B[ended] = t + 1, True
        kept = (~finished_B[running]).nonzero()[:, 0]
        if len(kept) == 0:
            break
        token_BL = token_B[:, None]
        mask_BL = torch.cat([mask_BL, torch.ones_like(token_BL)], 1)
        if len(kept) <= 0.75 * len(running):  # leaving the batch copies the cache: worth it a quarter at a time
            cache.batch_select_indices(kept)
            running, token_BL, mask_BL = running[kept], token_BL[kept], mask_BL[kept]
    longest = int(length_B.max())
    return Rollouts(
        prompts=tuple(prompts),
        response_BT=response_BT[:, :longest],
        length_B=length_B,
        finished_B=finished_B,
        reward_B=torch.full((n_rows,), torch.nan),
        sampler_logp_BT=logp_BT[:, :longest],
    )


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


def _next_logits(model: PreTrainedModel, token_BL: Tensor, mask_BL: Tensor, cache: DynamicCache) -> Tensor:
    position_BL = (mask_BL.cumsum(1) - 1).clamp(min=0)[:, -token_BL.shape[1] :]
    out = model(
        input_ids=token_BL,
        attention_mask=mask_BL,
        position_ids=position_BL,
        past_key_values=cache,
        logits_to_keep=1,
    )
    logits: Tensor = out.logits[:, -1]
    return logits


def _pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as (B, L) tensors of ids and of validity, padded on the left so that all end together."""
    longest = max(map(len, rows))
    token_BL = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask_BL = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return token_BL, mask_BL
