"""Responses + student + teacher → TokenScores, one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from opd_lib.engine import distributed, models, served, sharding
from opd_lib.maths.head import Head
from opd_lib.maths.streaming import Served, Stream
from opd_lib.methods import Method
from opd_lib.types import Loss, Reads, Rollouts, TokenScores

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    Teacher: TypeAlias = PreTrainedModel | served.Teacher | None

Said = Head | Served | None
"""What a teacher says about N tokens: its states and head, or as a server does (`served.Teacher.score`)."""


def micro_batches(rollouts: Rollouts, max_tokens: int) -> list[Tensor]:
    """Row indices in groups of similar length, each at most `max_tokens` padded tokens (or a single row)."""
    total_B = rollouts.length_B + torch.tensor([len(prompt.token_ids) for prompt in rollouts.prompts])
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
    length_B = torch.minimum(rollouts.length_B, room_B)
    whole_B = length_B == rollouts.length_B
    return rollouts if whole_B.all() else replace(rollouts, length_B=length_B, finished_B=rollouts.finished_B & whole_B)


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
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        predicts_BL[index, len(prompt) - 1 : len(prompt) + len(response) - 1] = True
    forward = getattr(model, "with_head", partial(models.with_head, model))
    result: models.Result = forward(token_BL, predicts_BL.to(device), use)
    return result


def heard(model: PreTrainedModel, rollouts: Rollouts, rows: Tensor) -> Head:
    """The same without gradient, to be used later: a head that is gathered from all processes is kept."""
    with torch.no_grad():
        return with_head(model, rollouts, rows, Head.copy if sharding.is_sharded(model) else lambda head: head)


def ask(teacher: Teacher, rollouts: Rollouts, rows: Tensor, k: int) -> Said:
    """What the teacher says about these rows' tokens, without gradient."""
    if isinstance(teacher, served.Teacher):
        lengths = rollouts.length_B[rows].tolist()
        responses = [rollouts.response_BT[row, :n].tolist() for row, n in zip(rows.tolist(), lengths, strict=True)]
        prompts = [rollouts.prompts[row].token_ids for row in rows.tolist()]
        return teacher.score([[*p, *r] for p, r in zip(prompts, responses, strict=True)], lengths, k)
    return None if teacher is None else heard(teacher, rollouts, rows)


def score(
    student: PreTrainedModel,
    teacher: Teacher,
    rollouts: Rollouts,
    rows: Tensor,
    k: int,
    chunk: int | None = None,
) -> TokenScores:
    """Scores of these rows' tokens at temperature 1, as constants, `chunk` tokens at a time. k = 0: no candidates.

    Raises ValueError for a student whose logits are not finite. (Of a teacher's the gates ask.)
    """
    said = ask(teacher, rollouts, rows, k)
    with torch.no_grad():
        found = with_head(
            student, rollouts, rows, lambda head: streamed(head, said, rollouts, rows, k, Reads(), chunk).scores()
        )
    models.require_finite_logits(student, found.student_logp_N)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is taken of each micro-batch: a method's loss, and scores with lists of length `k` for the diagnostics.

    Logits exist for `chunk` tokens at a time (None: for all).
    """

    method: Method
    options: Any
    k: int
    chunk: int | None = None

    def __call__(
        self,
        student: PreTrainedModel,
        teacher: Teacher,
        rollouts: Rollouts,
        rows: Tensor,
        advantage_B: Tensor | None = None,
        scale: float = 1.0,
        measured: bool = True,
        watch: Callable[[Head, slice, Tensor], None] | None = None,
    ) -> tuple[Tensor, Loss, TokenScores]:
        """The loss of these rows times `scale`, to be differentiated once; the loss and the scores, both constant.

        If not `measured`, the scores are what the loss reads. `watch` is shown the student's head and, chunk by chunk,
        the scaled loss's gradient at its logits.
        """
        said = ask(teacher, rollouts, rows, self.k if measured else self.reads.k)

        def use(head: Head) -> tuple[Tensor, Loss, TokenScores]:
            stream = self.streamed(head, said, rollouts, rows, advantage_B, measured)
            return stream.loss(self.loss, scale, watch and partial(watch, head))

        return with_head(student, rollouts, rows, use)

    def streamed(
        self,
        head: Head,
        said: Said,
        rollouts: Rollouts,
        rows: Tensor,
        advantage_B: Tensor | None = None,
        measured: bool = True,
    ) -> Stream:
        """These rows' tokens with what both models have to say about them."""
        k = self.k if measured else self.reads.k
        return streamed(head, said, rollouts, rows, k, self.reads, self.chunk, advantage_B, measured)

    @property
    def reads(self) -> Reads:
        """What the loss reads."""
        return self.method.reads(self.options)

    def loss(self, scores: TokenScores) -> Loss:
        """The method's loss."""
        found: Loss = self.method.loss(scores, self.options)
        return found


def streamed(
    head: Head,
    said: Said,
    rollouts: Rollouts,
    rows: Tensor,
    k: int,
    reads: Reads,
    chunk: int | None,
    advantage_B: Tensor | None = None,
    measured: bool = True,
) -> Stream:
    """These rows' tokens, to be scored."""
    device = head.hidden_NH.device
    token_N, row_N, position_N = (tensor.to(device) for tensor in packed(rollouts, rows))
    return Stream(
        student=head,
        teacher=(said[0].to(device), said[1].to(device), said[2].to(device)) if isinstance(said, tuple) else said,
        token_N=token_N,
        row_N=row_N,
        position_N=position_N,
        advantage_N=None if advantage_B is None else advantage_B.to(device)[row_N],
        k=k,
        reads=reads,
        measured=measured,
        chunk=chunk,
    )


def packed(rollouts: Rollouts, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of these rows' responses one after the other (N): their ids, rows and positions."""
    length_B = rollouts.length_B[rows]
    token_N = torch.cat([rollouts.response_BT[row, : rollouts.length_B[row]] for row in rows.tolist()])
    return token_N, rows.repeat_interleave(length_B), torch.cat([torch.arange(n) for n in length_B.tolist()])


def examples(step: int, rollouts: Rollouts, scores: TokenScores, words: list[str], n: int) -> list[dict[str, Any]]:
    """The first n responses among these scores with their tokens and per-token scores (nats, 4 decimals).

    `words` names the vocabulary by id.
    """
    rows = []
    for row in sorted(set(scores.row_N.tolist()))[:n]:
        mine_N = scores.row_N == row
        rows.append(
            {
                "step": step,
                "prompt": rollouts.prompts[row].rendered,
                "answer": rollouts.prompts[row].answer,
                "reward": float(rollouts.reward_B[row]),
                "tokens": [words[token] for token in scores.token_N[mine_N].tolist()],
            }
            | {name: [round(x, 4) for x in v[mine_N].tolist()] for name, v in per_token(scores).items()}
        )
    return rows


def per_token(scores: TokenScores) -> dict[str, Tensor]:
    """What is known of the sampled tokens (N), under the names that records have for it."""
    columns = {
        "student_logp": scores.student_logp_N,
        "teacher_logp": scores.teacher_logp_N,
        "student_entropy": scores.student_entropy_N,
        "teacher_entropy": scores.teacher_entropy_N,
        "reverse_kl": scores.reverse_kl_N,
    }
    return {name: value_N for name, value_N in columns.items() if value_N is not None}
