"""Responses in turns: the student calls a tool, what the tool answers stands in its response, and it goes on.

A turn ends with the task's call token. What the tool says is no token of the student's: nobody scores it, it carries no
gradient and is in no divisor, but it counts toward the length limit and is read by both models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from opd_lib.engine.model import models
from opd_lib.engine.sampling.rollout import Sample
from opd_lib.types import Prompt, Rollouts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Respond = Callable[[str, str], str | None]
"""What a tool answers: (question, response so far) → text, None where it is not called."""


@dataclass(slots=True)
class Written:
    """A response on its way: token ids, the sampler's log-probability, the turn and whether the student wrote it."""

    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    turns: int = 0
    finished: bool = False

    def add(self, ids: Sequence[int], logp: Sequence[float], own: bool) -> None:
        """What comes next."""
        self.ids += ids
        self.logp += logp
        self.turn += [self.turns] * len(ids)
        self.own += [own] * len(ids)


def with_tool(sample: Sample, respond: Respond, call: str) -> Sample:
    """A sampler whose responses may call a tool: `call` is the token after which it is asked.

    A response depends on its prompt, the model and its own random numbers, as that of every sampler.
    """

    def sampled(
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        prompts: Sequence[Prompt],
        uniform_BT: Tensor,
        temperature: float,
        top_p: float,
    ) -> Rollouts:
        limit, call_id = uniform_BT.shape[1], int(tokenizer.convert_tokens_to_ids(call))
        written = [Written() for _ in prompts]
        while going := [row for row, w in enumerate(written) if not w.finished and len(w.ids) < limit]:
            room = min(limit - len(written[row].ids) for row in going)  # so that nobody leaves the model's context
            contexts = [begun(prompts[row], written[row].ids) for row in going]
            begins = [len(written[row].ids) for row in going]  # a token's number is that of its place in the response
            numbers = [uniform_BT[row, begin : begin + room] for row, begin in zip(going, begins, strict=True)]
            found = sample(model, tokenizer, contexts, torch.stack(numbers), temperature, top_p)
            for place, row in enumerate(going):
                if take(written[row], found, place, call_id):
                    answer = respond(prompts[row].question, tokenizer.decode(written[row].ids))
                    ids = tokenizer(answer, add_special_tokens=False).input_ids if answer else []
                    ids = ids[: limit - len(written[row].ids)]
                    written[row].add(ids, [0.0] * len(ids), own=False)
                    written[row].turns += 1
        return packed(prompts, written, tokenizer.pad_token_id)

    return sampled


def take(written: Written, found: Rollouts, place: int, call_id: int) -> bool:
    """What the student has written, up to a call, its end, or for now; True if it has called."""
    assert found.sampler_logp_BT is not None
    ids: list[int] = found.response_BT[place, : found.length_B[place]].tolist()
    n = ids.index(call_id) + 1 if call_id in ids else len(ids)
    written.add(ids[:n], found.sampler_logp_BT[place, :n].tolist(), own=True)
    written.finished = n == len(ids) and bool(found.finished_B[place])
    return ids[n - 1] == call_id


def begun(prompt: Prompt, ids: Sequence[int]) -> Prompt:
    """A prompt followed by a response's beginning."""
    return replace(prompt, token_ids=(*prompt.token_ids, *ids))


def packed(prompts: Sequence[Prompt], written: Sequence[Written], pad_id: int) -> Rollouts:
    """The responses, without rewards (NaN)."""
    length_B = torch.tensor([len(each.ids) for each in written])
    valid_BT = torch.arange(int(length_B.max())) < length_B[:, None]
    own_BT = torch.zeros_like(valid_BT)
    own_BT[valid_BT] = torch.tensor([own for each in written for own in each.own])
    return Rollouts(
        prompts=tuple(prompts),
        response_BT=models.pad_right([each.ids for each in written], pad_id),
        length_B=length_B,
        finished_B=torch.tensor([each.finished for each in written]),
        reward_B=torch.full((len(written),), torch.nan),
        sampler_logp_BT=torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(each.logp, dtype=torch.float32) for each in written], batch_first=True
        ),
        own_BT=own_BT,
        turn_BT=models.pad_right([each.turn for each in written], 0),
    )
