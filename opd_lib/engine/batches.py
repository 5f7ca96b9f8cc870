"""Responses in micro-batches: which go together, where their tokens stand, and the states they were drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from opd_lib.engine.model import distributed, models
from opd_lib.maths.head import Head
from opd_lib.types import Rollouts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def micro_batches(rollouts: Rollouts, max_tokens: int, selected_B: Tensor | None = None) -> list[Tensor]:
    """Row indices in groups of similar length, each at most `max_tokens` padded tokens (or a single row).

    Of all rows, or of those selected.
    """
    total_B = rollouts.length_B + context(rollouts)
    groups: list[list[int]] = []
    ordered_B = total_B.argsort(descending=True, stable=True)
    for row in (ordered_B if selected_B is None else ordered_B[selected_B[ordered_B]]).tolist():
        longest = int(total_B[groups[-1][0]]) if groups else 0
        if groups and longest * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [torch.tensor(sorted(group)) for group in groups]


def lock_step(groups: list[Tensor]) -> list[tuple[Tensor, float]]:
    """This process's micro-batches with weight 1, and one row with weight 0 for each that another process has more.

    Passes through a sharded model are made by all processes together; what has weight 0 must count nothing. A process
    that has none makes one all the same: without a gradient there is nothing to add up or to step with.
    """
    lacking = max(int(distributed.max_over_ranks(len(groups))), 1) - len(groups)
    idle = groups[-1][-1:] if groups else torch.tensor([0])
    return [(rows, 1.0) for rows in groups] + [(idle, 0.0)] * lacking


def beginnings(rollouts: Rollouts, max_tokens: int) -> Rollouts:
    """These responses, cut where prompt and response together would have more than `max_tokens` tokens."""
    room_B = (max_tokens - context(rollouts)).clamp(min=1)
    length_B = torch.minimum(rollouts.length_B, room_B)
    whole_B = length_B == rollouts.length_B
    return rollouts if whole_B.all() else replace(rollouts, length_B=length_B, finished_B=rollouts.finished_B & whole_B)


def context(rollouts: Rollouts) -> Tensor:
    """Tokens in front of each response (B): of the student's prompt, or of the teacher's where that is longer."""
    pairs = zip(rollouts.prompts, rollouts.for_teacher, strict=True)
    return torch.tensor([max(len(own.token_ids), len(shown.token_ids)) for own, shown in pairs])


def packed(rollouts: Rollouts, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The student's own tokens of these rows' responses one after the other (N): their ids, rows and positions."""
    own = [own_positions(rollouts, row) for row in rows.tolist()]
    token_N = torch.cat([rollouts.response_BT[row, place_N] for row, place_N in zip(rows.tolist(), own, strict=True)])
    return token_N, rows.repeat_interleave(torch.tensor([len(place_N) for place_N in own])), torch.cat(own)


def own_positions(rollouts: Rollouts, row: int) -> Tensor:
    """Where in a response the student's own tokens stand."""
    length = int(rollouts.length_B[row])
    return torch.arange(length) if rollouts.own_BT is None else rollouts.own_BT[row, :length].nonzero()[:, 0]


def places(rollouts: Rollouts, rows: Tensor) -> Tensor:
    """Where the packed tokens (N) of these rows stand among those of all responses in row order."""
    count_B = rollouts.n_own_B
    begin_B = count_B.cumsum(0) - count_B
    return torch.cat([torch.arange(int(count_B[row])) + begin_B[row] for row in rows.tolist()])


def with_head(
    model: PreTrainedModel, rollouts: Rollouts, rows: Tensor, use: Callable[[Head], models.Result]
) -> models.Result:
    """What `use` makes of the states from which each response token of these rows was drawn, packed in row order.

    Prompt and response stand together, padded on the right; the head is for response positions only.
    """
    device = next(model.parameters()).device
    prompts = [list(rollouts.prompts[row].token_ids) for row in rows.tolist()]
    responses = [rollouts.response_BT[row, : rollouts.length_B[row]].tolist() for row in rows.tolist()]
    pad = model.config.pad_token_id or 0
    token_BL = models.pad_right([p + r for p, r in zip(prompts, responses, strict=True)], pad).to(device)
    models.require_room(model, token_BL.shape[1])
    predicts_BL = torch.zeros(token_BL.shape, dtype=torch.bool)
    for index, prompt in enumerate(prompts):
        predicts_BL[index, len(prompt) - 1 + own_positions(rollouts, int(rows[index]))] = True
    forward = getattr(model, "with_head", partial(models.with_head, model))
    result: models.Result = forward(token_BL, predicts_BL.to(device), use)
    return result
