"""Prompts → responses: sampling with a key-value cache, in process.

Every random choice is a uniform number fixed beforehand by (response, position), so a response depends on its prompt,
the model and those numbers: not on what else is in the batch, nor on how many processes share the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from opd_lib.engine.model import models
from opd_lib.engine.sampling.growing import Batch
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
    slots: int | None = None,
) -> Rollouts:
    """One response per prompt, at most T tokens each; `slots` of them are written at a time (None: all).

    `uniform_BT` holds numbers in [0, 1): entry (b, t) decides token t of response b by inverting the cumulative
    distribution (temperature first, then the smallest set of tokens with mass ≥ `top_p`). `sampler_logp_BT` is the
    model's log-probability (nats) at temperature 1 over the full vocabulary, whatever the sampling settings.
    A response ends with a token of `models.stop_ids`; finished ones leave the batch, and prompts that wait take their
    place. Rewards are not set here (NaN). Raises ValueError for more tokens than the model's context has, and for
    logits that are not finite.
    """
    models.require_room(model, longest(prompts) + uniform_BT.shape[1])
    model.eval()
    device = next(model.parameters()).device
    written = Written.nothing(model, tokenizer, uniform_BT.to(device), temperature, top_p)
    waiting, slots = torch.arange(len(prompts), device=device), slots or len(prompts)
    running: Batch | None = None
    while running or len(waiting):
        room = slots - (len(running.row_R) if running else 0)
        if running and (len(waiting) == 0 or 4 * room < slots):  # taking prompts in copies the cache, as leaving does
            written.draw(running, model)
        else:
            taken, waiting = waiting[:room], waiting[room:]
            entering = Batch.of(taken, [prompts[row].token_ids for row in taken.tolist()], tokenizer, model)
            written.draw(entering, model)
            running = running.joined(entering) if running and len(entering.row_R) else running or entering
        running = running if len(running.row_R) else None
    return written.rollouts(prompts)


class OpenResponses(Protocol):
    """Responses on their way: which they are, and what draws their next tokens."""

    row_R: Tensor

    def next_tokens(
        self, model: PreTrainedModel, uniform_R: Tensor, temperature: float, top_p: float
    ) -> tuple[Tensor, Tensor]:
        """What `sampling.drawn` makes of the next logits (R, V), after reading what is to be read."""

    def go_on(self, token_R: Tensor, open_R: Tensor) -> None:
        """Read these tokens next; who is not open is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What has been written so far, and how it goes on."""

    model: PreTrainedModel
    uniform_BT: Tensor
    temperature: float
    top_p: float
    stop: Tensor
    response_BT: Tensor
    logp_BT: Tensor
    length_B: Tensor
    finished_B: Tensor

    @classmethod
    def nothing(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        uniform_BT: Tensor,
        temperature: float,
        top_p: float,
    ) -> Written:
        """B empty responses."""
        device, weights = uniform_BT.device, next(model.parameters()).dtype
        return cls(
            model=model,
            uniform_BT=uniform_BT,
            temperature=temperature,
            top_p=top_p,
            stop=torch.tensor(models.stop_ids(model, tokenizer), device=device),
            response_BT=torch.full(uniform_BT.shape, tokenizer.pad_token_id, device=device),
            logp_BT=torch.zeros(uniform_BT.shape, device=device, dtype=torch.promote_types(weights, torch.float32)),
            length_B=torch.zeros(len(uniform_BT), dtype=torch.long, device=device),
            finished_B=torch.zeros(len(uniform_BT), dtype=torch.bool, device=device),
        )

    def draw(self, batch: OpenResponses, model: PreTrainedModel) -> None:
        """The next token of every response of a batch that is not at its end; who is at its end may leave.

        Nothing here waits for the device, but how the batch goes on may.
        """
        limit, row_R = self.uniform_BT.shape[1], batch.row_R
        open_R, place_R = self.is_open(row_R), self.length_B[row_R].clamp(max=limit - 1)
        uniform_R = self.uniform_BT[row_R, place_R]
        token_R, logp_R = batch.next_tokens(model, uniform_R, self.temperature, self.top_p)
        self.response_BT[row_R, place_R] = token_R.where(open_R, self.response_BT[row_R, place_R])
        self.logp_BT[row_R, place_R] = logp_R.where(open_R, self.logp_BT[row_R, place_R])
        self.length_B[row_R] += open_R
        self.finished_B[row_R] |= open_R & torch.isin(token_R, self.stop)
        batch.go_on(token_R, self.is_open(row_R))

    def is_open(self, row_R: Tensor) -> Tensor:
        """Of these responses, whether they go on."""
        return ~self.finished_B[row_R] & (self.length_B[row_R] < self.uniform_BT.shape[1])

    def rollouts(self, prompts: Sequence[Prompt]) -> Rollouts:
        """The responses to these prompts, which have the first rows, without rewards (NaN)."""
        count = len(prompts)
        most = int(self.length_B[:count].max())
        models.require_finite_logits(self.model, self.logp_BT[:count])
        return Rollouts(
            prompts=tuple(prompts),
            response_BT=self.response_BT[:count, :most].cpu(),
            length_B=self.length_B[:count].cpu(),
            finished_B=self.finished_B[:count].cpu(),
            reward_B=torch.full((count,), torch.nan),
            sampler_logp_BT=self.logp_BT[:count, :most].cpu(),
        )


def longest(prompts: Sequence[Prompt]) -> int:
    """Tokens of the longest prompt."""
    return max(len(prompt.token_ids) for prompt in prompts)


def slots(model: PreTrainedModel, tokens: int, size: float, number: int) -> int:
    """How many sequences of so many tokens a key-value cache of `size` bytes has room for, one at least.

    `number`: bytes of a number in it.
    """
    layers, heads, width = cache_shape(model)
    return max(1, int(size // (number * 2 * layers * heads * width * tokens)))


def cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Layers, heads of each, and numbers of each head that a key-value cache keeps as keys, and again as values."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, width
