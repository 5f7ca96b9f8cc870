"""Responses + student + teacher → TokenScores, one micro-batch at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import distributed, models, served
from opd_lib.maths import logprobs
from opd_lib.types import Rollouts, TokenScores

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


Said = torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
"""What a teacher says about N tokens: its logits (N, V), or as a server does (`served.Teacher.score`)."""


def micro_batches(rollouts: Rollouts, max_tokens: int) -> list[Tensor]:
    """Row indices in groups of similar length, each at most `max_tokens` padded tokens (or a single row)."""
    total_B = rollouts.length_B.cpu() + torch.tensor([len(prompt.token_ids) for prompt in rollouts.prompts])
    groups: list[list[int]] = []
    for row in total_B.argsort(descending=True, stable=True).tolist():
        longest = int(total_B[groups[-1][0]]) if groups else 0
        if groups and longest * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [torch.tensor(sorted(group)) for group in groups]


def lock_step(groups: list[Tensor]) -> list[tuple[Tensor, float]]:
    """This process's micro-batches with weight 1, and one row with weight 0 for each that another process has more.

    Passes through a sharded model are made by all processes together; what has weight 0 must count nothing.
    """
    lacking = int(distributed.max_over_ranks(len(groups))) - len(groups)
    return [(rows, 1.0) for rows in groups] + [(groups[-1][-1:], 0.0)] * lacking


def beginnings(rollouts: Rollouts, max_tokens: int) -> Rollouts:
    """The same responses, cut where prompt and response together would have more than `max_tokens` tokens."""
    room_B = torch.tensor([max(1, max_tokens - len(prompt.token_ids)) for prompt in rollouts.prompts])
    length_B = torch.minimum(rollouts.length_B, room_B.to(rollouts.length_B.device))
    whole_B = length_B == rollouts.length_B
    return rollouts if whole_B.all() else replace(rollouts, length_B=length_B, finished_B=rollouts.finished_B & whole_B)


def response_logits(model: PreTrainedModel, rollouts: Rollouts, rows: Tensor) -> Tensor:
    """Logits (N, V) from which each response token of these rows was drawn, packed in row order.

    Prompt and response stand together, padded on the right; the head is applied to response positions only.
    """
    device = next(model.parameters()).device
    prompts = [list(rollouts.prompts[row].token_ids) for row in rows.tolist()]
    responses = [rollouts.response_BT[row, : rollouts.length_B[row]].tolist() for row in rows.tolist()]
    pad = model.config.pad_token_id or 0
    token_BL = models.pad_right([p + r for p, r in zip(prompts, responses, strict=True)], pad).to(device)
    predicts_BL = torch.zeros(token_BL.shape, dtype=torch.bool)
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        predicts_BL[index, len(prompt) - 1 : len(prompt) + len(response) - 1] = True
    forward = getattr(model, "logits_at", partial(models.logits_at, model))
    logits_NV: Tensor = forward(token_BL, predicts_BL.to(device))
    return logits_NV


def score(
    student: PreTrainedModel,
    teacher: PreTrainedModel | served.Teacher | None,
    rollouts: Rollouts,
    rows: Tensor,
    k: int,
    advantage_B: Tensor | None = None,
) -> TokenScores:
    """Scores of these rows' tokens at temperature 1; only the student's carry a gradient. k = 0: no candidates."""
    student_logits_NV = response_logits(student, rollouts, rows)
    scores = compare(student_logits_NV, ask(teacher, rollouts, rows, k), rollouts, rows, k)
    return (
        scores
        if advantage_B is None
        else replace(scores, advantage_N=advantage_B.to(scores.row_N.device)[scores.row_N])
    )


def ask(teacher: PreTrainedModel | served.Teacher | None, rollouts: Rollouts, rows: Tensor, k: int) -> Said:
    """What the teacher says about these rows' tokens, without gradient."""
    if isinstance(teacher, served.Teacher):
        lengths = rollouts.length_B[rows].tolist()
        responses = [rollouts.response_BT[row, :n].tolist() for row, n in zip(rows.tolist(), lengths, strict=True)]
        prompts = [rollouts.prompts[row].token_ids for row in rows.tolist()]
        return teacher.score([[*p, *r] for p, r in zip(prompts, responses, strict=True)], lengths, k)
    with torch.no_grad():
        return None if teacher is None else response_logits(teacher, rollouts, rows)


def compare(student_logits_NV: Tensor, said: Said, rollouts: Rollouts, rows: Tensor, k: int) -> TokenScores:
    """The scores of these rows' tokens from what student and teacher say about them."""
    device = student_logits_NV.device
    length_B = rollouts.length_B[rows]
    token_N = torch.cat([rollouts.response_BT[row, : rollouts.length_B[row]] for row in rows.tolist()]).to(device)
    row_N = rows.repeat_interleave(length_B).to(device)
    position_N = torch.cat([torch.arange(n) for n in length_B.tolist()]).to(device)
    if isinstance(said, tuple):
        logp_N, top_id_NK, top_logp_NK = (part.to(device) for part in said)
        return logprobs.score_served(student_logits_NV, logp_N, top_id_NK, top_logp_NK, token_N, row_N, position_N, k=k)
    return logprobs.score(student_logits_NV, said, token_N, row_N, position_N, k=k)


def examples(step: int, rollouts: Rollouts, scores: TokenScores, words: list[str], n: int) -> list[dict[str, Any]]:
    """The first n responses among these scores with their tokens and per-token scores (nats, 4 decimals).

    `words` names the vocabulary by id.
    """
    rows = []
    for row in sorted(set(scores.row_N.tolist()))[:n]:
        mine_N = scores.row_N == row
        columns = {
            "student_logp": scores.student_logp_N,
            "teacher_logp": scores.teacher_logp_N,
            "student_entropy": scores.student_entropy_N,
            "teacher_entropy": scores.teacher_entropy_N,
            "reverse_kl": scores.reverse_kl_N,
        }
        rows.append(
            {
                "step": step,
                "prompt": rollouts.prompts[row].rendered,
                "answer": rollouts.prompts[row].answer,
                "reward": float(rollouts.reward_B[row]),
                "tokens": [words[token] for token in scores.token_N[mine_N].tolist()],
            }
            | {name: [round(x, 4) for x in v[mine_N].tolist()] for name, v in columns.items() if v is not None}
        )
    return rows
