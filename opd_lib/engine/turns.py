"""Responses in turns: the student calls a tool, what the tool answers stands in its response, and it goes on.

A turn ends with the task's call token. What the tool says is no token of the student's: nobody scores it, it carries no
gradient and is in no divisor, but it counts toward the length limit and is read by both models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from opd_lib.engine import models
from opd_lib.engine.rollout import Sample
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
    finished: bool = False
    is_open: bool = True

    def add(self, ids: Sequence[int], logp: Sequence[float], turn: int, own: bool) -> None:
        """What comes next."""
        self.ids += ids
        self.logp += logp
        self.turn += [turn] * len(ids)
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
        limit, turn = uniform_BT.shape[1], 0
        call_id = int(tokenizer.convert_tokens_to_ids(call))
        written = [Written() for _ in prompts]
        while going := [row for row, each in enumerate(written) if each.is_open]:
            asked = [begun(prompts[row], written[row].ids) for row in going]
            # a response's next number is that of its place, wherever its turn began
            left = [uniform_BT[row, len(written[row].ids) :] for row in going]
            longest = max(map(len, left))
            uniform_RT = torch.stack([pad(number_T, (0, longest - len(number_T))) for number_T in left])
            found = sample(model, tokenizer, asked, uniform_RT, temperature, top_p)
            for place, row in enumerate(going):
                take(written[row], found, place, turn, limit, call_id)
                if written[row].is_open:
                    answer(written[row], tokenizer, respond, prompts[row].question, turn, limit)
            turn += 1
        return packed(prompts, written, tokenizer.pad_token_id)

    return sampled


def take(written: Written, found: Rollouts, place: int, turn: int, limit: int, call_id: int) -> None:
    """A turn of the student: what it has written up to its call, its end, or the limit; open if a call may follow."""
    assert found.sampler_logp_BT is not None
    room = limit - len(written.ids)
    ids: list[int] = found.response_BT[place, : found.length_B[place]].tolist()[:room]
    n = ids.index(call_id) + 1 if call_id in ids else len(ids)
    written.add(ids[:n], found.sampler_logp_BT[place, :n].tolist(), turn, own=True)
    written.finished = n == int(found.length_B[place]) and bool(found.finished_B[place])
    written.is_open = ids[n - 1] == call_id and len(written.ids) < limit and not written.finished


def answer(
    written: Written, tokenizer: PreTrainedTokenizerFast, respond: Respond, question: str, turn: int, limit: int
) -> None:
    """What the tool says to the last call, cut at the limit; a tool that says nothing lets the student go on."""
    said = respond(question, tokenizer.decode(written.ids))
    ids: list[int] = tokenizer(said, add_special_tokens=False).input_ids[: limit - len(written.ids)] if said else []
    written.add(ids, [0.0] * len(ids), turn, own=False)
    written.is_open = len(written.ids) < limit


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
