"""Prompts → responses by a compiled pass: `rollout.sample` where starting a kernel takes longer than running it.

Each response has a slot: a row of a key-value cache that is allocated once and never moves. The pass that reads one
token of every slot and draws the next then has the same shapes and addresses each time. It is compiled once for each
width and way of drawing, on an NVIDIA GPU into a CUDA graph that is replayed without Python, in the precision of the
passes. Widths are powers of two, or as much as there is memory for and halves of that, so that they are few.

Who is done is looked for every few tokens only, because looking waits for the device. Prompts that wait take the slots
of finished responses; when none waits and half of the slots are free, the batch halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from opd_lib.engine.model import models, sharding
from opd_lib.engine.sampling import growing, rollout
from opd_lib.engine.sampling.slots import Slots, Step
from opd_lib.forecast import footprint
from opd_lib.maths import sampling
from opd_lib.types import Prompt, Rollouts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.params.schema import Machine

LOOK = 8  # tokens from one look at who is done to the next
NARROWEST = 16  # slots; halving further would save nothing
CACHED: dict[str, Any] = {"recompile_limit": 64, "isolate_recompiles": True}  # graphs of each model, for itself
COMPILED: dict[str, Any] = {"mode": "reduce-overhead", "dynamic": False, "fullgraph": True}


class Sampler:
    """Samples from one model; `sample` means what `rollout.sample` means."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype, cache_bytes: float, longest: int) -> None:
        """It computes in `dtype`, and at most `cache_bytes` are keys and values.

        `longest`: tokens of prompt and response together, as a rule; more are more memory and new graphs.

        Raises ValueError for models it is not for.
        """
        kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        if sharding.is_sharded(model) or kinds != {"full_attention"}:
            raise ValueError(
                "machine.sampler: compiled needs whole weights (machine.shard: false) and attention to everything "
                f"before a token (this model: {', '.join(sorted(kinds))}); use vllm or transformers"
            )
        self.model, self.dtype, self.cache_bytes = model, dtype, cache_bytes
        self.copy = None if model.dtype == dtype else _empty_copy(model, dtype)
        self.step: Step = torch.compile(next_tokens, **CACHED | COMPILED)
        self.longest, self.width = longest, 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.slots: dict[int, Slots] = {}

    @torch.no_grad()
    def sample(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        prompts: Sequence[Prompt],
        uniform_BT: Tensor,
        temperature: float,
        top_p: float,
    ) -> Rollouts:
        """One response per prompt, at most T tokens each, from the model's weights as they are now.

        Raises ValueError if torch.compile fails.
        """
        n_tokens = rollout.longest(prompts) + uniform_BT.shape[1]
        models.require_room(model, n_tokens)
        model.eval()
        self._make_room(n_tokens, len(prompts))
        writer = self._refreshed(model)
        device, count = next(model.parameters()).device, len(prompts)
        nobody = pad(uniform_BT.to(device), (0, 0, 0, 1))  # a row for the slots that nobody has
        written = rollout.Written.nothing(model, tokenizer, nobody, temperature, top_p)
        written.finished_B[count] = True
        slots, waiting = self._of(min(_at_least(count), self.width)), torch.arange(count, device=device)
        slots.row_R.fill_(count)
        while True:
            open_S = written.is_open(slots.row_R)
            free_F, width = (~open_S).nonzero()[:, 0], len(open_S)
            if len(waiting) and 4 * len(free_F) >= width:
                taken, waiting = waiting[: len(free_F)], waiting[len(free_F) :]
                ids = [prompts[row].token_ids for row in taken.tolist()]
                entering = growing.Batch.of(taken, ids, tokenizer, writer)
                written.draw(entering, writer)
                if len(entering.row_R):  # else each has ended with its first token
                    slots.enter(entering, free_F)
                continue
            if len(free_F) == width:
                return written.rollouts(prompts)
            if not len(waiting) and 2 * len(free_F) >= width > NARROWEST:
                wide, slots = slots, self._of(width // 2)
                slots.take(wide, open_S.int().argsort(descending=True, stable=True)[: width // 2])
            for _ in range(LOOK):
                written.draw(slots, writer)

    def _refreshed(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model to sample from, with the weights as they are now."""
        assert model is self.model
        if self.copy is None:
            return model
        for mine, theirs in zip(self.copy.parameters(), model.parameters(), strict=True):
            mine.copy_(theirs)
        return self.copy

    def _make_room(self, length: int, count: int) -> None:
        """Have a cache for so many tokens of so many responses, or of as many as the bytes are enough for."""
        longest = max(length, self.longest)
        width = min(_at_least(count), rollout.slots(self.model, longest, self.cache_bytes, self.dtype.itemsize))
        if longest == self.longest and width <= self.width:
            return
        self.longest, self.width = longest, width
        self.keys, self.values, self.slots = [], [], {}  # gone before others come
        layers, heads, size = rollout.cache_shape(self.model)
        shape, device = (width, heads, longest, size), next(self.model.parameters()).device
        self.keys = [torch.zeros(shape, dtype=self.dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros_like(key) for key in self.keys]

    def _of(self, width: int) -> Slots:
        if width not in self.slots:
            self.slots[width] = Slots(self.keys, self.values, width, self.step)
        return self.slots[width]


def for_run(student: PreTrainedModel, machine: Machine, longest: int) -> rollout.Sample:
    """What samples in a run: slots for the student now, and for each other model when it is first asked."""
    dtype, cache_bytes = sharding.compute_dtype(machine), machine.sampler_cache_gib * footprint.GIB
    samplers = {id(student): Sampler(student, dtype, cache_bytes, longest)}

    def sample(model: PreTrainedModel, *arguments: Any) -> Rollouts:
        if id(model) not in samplers:
            samplers[id(model)] = Sampler(model, dtype, cache_bytes, longest)
        return samplers[id(model)].sample(model, *arguments)

    return sample


def next_tokens(
    model: PreTrainedModel, slots: Slots, uniform_S: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """Read one token of every slot and draw the next: its id and log-probability (S)."""
    place_S = slots.place_S
    seen_SL = torch.arange(slots.cache.layers[0].max_cache_len, device=place_S.device) <= place_S[:, None]
    out = model(
        input_ids=slots.token_S[:, None],
        attention_mask=seen_SL[:, None, None],
        position_ids=place_S[:, None],
        past_key_values=slots.cache,
        logits_to_keep=1,
    )
    return sampling.drawn(out.logits[:, -1], uniform_S, temperature, top_p)


def _empty_copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A model of the same shape in the same place, whose weights nobody has filled in."""
    with next(model.parameters()).device, no_init_weights():
        copy: PreTrainedModel = AutoModelForCausalLM.from_config(deepcopy(model.config), dtype=dtype)
    copy.tie_weights()  # which is part of filling them in
    return copy.eval().requires_grad_(False)


def _at_least(number: int) -> int:
    return 1 << (number - 1).bit_length()
