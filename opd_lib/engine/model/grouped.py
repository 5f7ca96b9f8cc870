"""Attention of one new token of each response, in models whose heads share keys and values (grouped queries).

With a mask, transformers repeats keys and values once for each head that reads them: at every token the whole cache is
copied. Heads that share them are here as many queries of one head, which reads them once. All else is transformers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

NAME = "opd_grouped"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Queries (B, heads, L, D) on keys and values (B, fewer heads, S, D); (B, L, heads, D), as transformers wants it.

    `attention_mask` (B, 1, L, S) is True where a query sees a key.
    """
    (rows, heads, length, size), shared = query.shape, key.shape[1]
    if attention_mask is None or length > 1 or shared == heads:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **settings
        )
        return found
    together = query.reshape(rows, shared, heads // shared, size)
    out = scaled_dot_product_attention(together, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(rows, heads, length, size).transpose(1, 2), None


def use(model: PreTrainedModel) -> None:
    """Let a model attend so, if it has heads that share and would attend as transformers does by default."""
    config = model.config
    heads = config.num_attention_heads
    if config._attn_implementation == "sdpa" and (getattr(config, "num_key_value_heads", None) or heads) < heads:
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
