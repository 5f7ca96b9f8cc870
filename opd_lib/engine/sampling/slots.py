"""Responses on their way in fixed slots: rows of a key-value cache that is allocated once and never moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo.exc import TorchDynamoException
from transformers.cache_utils import Cache, StaticLayer

from opd_lib.engine.sampling import growing

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Step = Callable[["PreTrainedModel", "Slots", "Tensor", float, float], tuple["Tensor", "Tensor"]]
"""What reads a token of every slot and draws the next: (model, slots, uniform_S, temperature, top_p)."""


class Layer(StaticLayer):  # type: ignore[misc]  # transformers says nothing of its types there
    """Keys and values of one layer: row s is slot s, whose next token goes to `place_S[s]`."""

    def __init__(self, keys_SKLD: Tensor, values_SKLD: Tensor, place_S: Tensor) -> None:
        super().__init__(max_cache_len=keys_SKLD.shape[2])
        self.keys, self.values, self.place_S = keys_SKLD, values_SKLD, place_S
        self.slot_S = torch.arange(len(place_S), device=place_S.device)
        self.is_initialized = True
        for tensor in (self.keys, self.values, self.place_S, self.slot_S):
            torch._dynamo.mark_static_address(tensor)

    def update(
        self, key_states: Tensor, value_states: Tensor, *arguments: Any, **settings: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep one token of every slot; all that is kept."""
        self.keys[self.slot_S, :, self.place_S] = key_states[:, :, 0]
        self.values[self.slot_S, :, self.place_S] = value_states[:, :, 0]
        return self.keys, self.values


class Slots:
    """S responses on their way, as a `growing.Batch` of fixed width: which they are, their next tokens and places."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], width: int, step: Step) -> None:
        """The first `width` rows of each layer's keys and values (slots, heads, length, size)."""
        self.row_R, self.token_S, self.place_S = torch.zeros(3, width, dtype=torch.long, device=keys[0].device)
        self.cache = Cache(
            layers=[Layer(key[:width], value[:width], self.place_S) for key, value in zip(keys, values, strict=True)]
        )
        self.step = step

    def next_tokens(
        self, model: PreTrainedModel, uniform_S: Tensor, temperature: float, top_p: float
    ) -> tuple[Tensor, Tensor]:
        """The next token of every slot, whether anybody wants it or not, and its log-probability."""
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            return self.step(model, self, uniform_S, temperature, top_p)
        except TorchDynamoException as error:
            raise ValueError(
                f"machine.sampler: torch.compile failed ({type(error).__name__}: {str(error).splitlines()[0]}); "
                "machine.sampler: transformers does without it"
            ) from error

    def go_on(self, token_S: Tensor, open_S: Tensor) -> None:
        """Read these tokens next; what is done stays where it is, and reads on at its last place for nothing."""
        self.token_S.copy_(token_S)
        self.place_S.copy_((self.place_S + 1).clamp(max=self.cache.layers[0].max_cache_len - 1))

    def enter(self, batch: growing.Batch, free_F: Tensor) -> None:
        """Give the responses of a batch, which have a token to be read next, the first of these slots."""
        at_R = free_F[: len(batch.row_R)]
        length_R = batch.mask_RL.sum(1) - 1
        for mine, theirs in zip(self.cache.layers, batch.cache.layers, strict=True):
            mine.keys[at_R, :, : theirs.keys.shape[2]] = _left_to_right(theirs.keys, length_R)
            mine.values[at_R, :, : theirs.values.shape[2]] = _left_to_right(theirs.values, length_R)
        self.row_R[at_R], self.token_S[at_R], self.place_S[at_R] = batch.row_R, batch.token_RL[:, 0], length_R

    def take(self, wide: Slots, slot_S: Tensor) -> None:
        """Go on with these slots of a wider batch, which has its keys and values in the same tensors."""
        for mine, theirs in zip(self.cache.layers, wide.cache.layers, strict=True):
            mine.keys.copy_(theirs.keys[slot_S])
            mine.values.copy_(theirs.values[slot_S])
        for mine, theirs in ((self.row_R, wide.row_R), (self.token_S, wide.token_S), (self.place_S, wide.place_S)):
            mine.copy_(theirs[slot_S])


def _left_to_right(value_RKLD: Tensor, length_R: Tensor) -> Tensor:
    """Rows that are padded on the left, moved to begin at 0; behind them is what nobody reads."""
    length = value_RKLD.shape[2]
    index_RL = (torch.arange(length, device=length_R.device) + (length - length_R)[:, None]) % length
    return value_RKLD.gather(2, index_RL[:, None, :, None].expand_as(value_RKLD))
