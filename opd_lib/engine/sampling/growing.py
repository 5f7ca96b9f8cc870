"""Responses on their way over a key-value cache that grows with them: transformers' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from opd_lib.maths import sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass
class Batch:
    """R responses on their way: which they are, the tokens to be read next, what has been read before.

    `mask_RL` tells tokens from padding: of those in the cache, and of the next ones.
    """

    row_R: Tensor
    token_RL: Tensor
    mask_RL: Tensor
    cache: DynamicCache

    @classmethod
    def of(
        cls,
        row_R: Tensor,
        prompts: Sequence[Sequence[int]],
        tokenizer: PreTrainedTokenizerFast,
        model: PreTrainedModel,
    ) -> Batch:
        """These prompts, nothing read yet; padded on the left so that all end together."""
        longest, pad = max(map(len, prompts)), tokenizer.pad_token_id
        token_RL = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in prompts], device=row_R.device)
        mask_RL = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=row_R.device)
        return cls(row_R, token_RL, mask_RL, DynamicCache(config=model.config))

    def next_tokens(
        self, model: PreTrainedModel, uniform_R: Tensor, temperature: float, top_p: float
    ) -> tuple[Tensor, Tensor]:
        """What `sampling.drawn` makes of the next logits (R, V), after reading what is to be read."""
        position_RL = (self.mask_RL.cumsum(1) - 1).clamp(min=0)[:, -self.token_RL.shape[1] :]
        out = model(
            input_ids=self.token_RL,
            attention_mask=self.mask_RL,
            position_ids=position_RL,
            past_key_values=self.cache,
            logits_to_keep=1,
        )
        return sampling.drawn(out.logits[:, -1], uniform_R, temperature, top_p)

    def go_on(self, token_R: Tensor, open_R: Tensor) -> None:
        """Read these tokens next. Who is done leaves when a quarter is: leaving copies the cache."""
        self.token_RL = token_R[:, None]
        self.mask_RL = torch.cat([self.mask_RL, torch.ones_like(self.token_RL)], 1)
        kept = open_R.nonzero()[:, 0]
        if len(kept) <= 0.75 * len(self.row_R):
            self.row_R, self.token_RL, self.mask_RL = self.row_R[kept], self.token_RL[kept], self.mask_RL[kept]
            if len(kept):
                self.cache.batch_select_indices(kept)

    def joined(self, other: Batch) -> Batch:
        """Both together. Each has one token to read next; the shorter is padded on the left, columns of padding go."""
        length = max(int(batch.mask_RL.sum(1).max()) for batch in (self, other))
        for layer, others in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys = torch.cat([_left(layer.keys, length - 1), _left(others.keys, length - 1)])
            layer.values = torch.cat([_left(layer.values, length - 1), _left(others.values, length - 1)])
        return Batch(
            row_R=torch.cat([self.row_R, other.row_R]),
            token_RL=torch.cat([self.token_RL, other.token_RL]),
            mask_RL=torch.cat([_left(batch.mask_RL[..., None], length)[..., 0] for batch in (self, other)]),
            cache=self.cache,
        )


def _left(value_XLD: Tensor, length: int) -> Tensor:
    """The last `length` places along L, padded with zeros on the left."""
    lacking = length - value_XLD.shape[-2]
    return pad(value_XLD, (0, 0, lacking, 0))  # a negative padding cuts
