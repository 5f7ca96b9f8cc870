"""Responses + student + teacher → TokenScores, one micro-batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches
from opd_lib.engine import teacher as teachers
from opd_lib.engine.model import models
from opd_lib.engine.teacher import Teacher, TeacherOutput
from opd_lib.maths import diagnostics
from opd_lib.maths.head import Head
from opd_lib.maths.streaming import Stream
from opd_lib.methods import Method
from opd_lib.types import Reads, Rollouts, TokenScores

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.engine.credit import Credit


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
    return constants(student, teachers.output(teacher, rollouts, rows, k), rollouts, rows, k, chunk)


def constants(
    student: PreTrainedModel, output: TeacherOutput, rollouts: Rollouts, rows: Tensor, k: int, chunk: int | None = None
) -> TokenScores:
    """`score` with the output that a teacher has already given for these rows' tokens."""
    with torch.no_grad():
        found = batches.with_head(
            student, rollouts, rows, lambda head: streamed(head, output, rollouts, rows, k, Reads(), chunk).scores()
        )
    models.require_finite_logits(student, found.student_logp_N)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is taken of each micro-batch: a method's values, and scores with lists of length `k` for the diagnostics.

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
        credit: Credit | None = None,
        scale: float = 1.0,
        measured: bool = True,
        watch: Callable[[Head, slice, Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor, TokenScores]:
        """The sum of these rows' values times `scale`, to be differentiated once; the sum and the scores, constants.

        If not `measured`, the scores are what the method reads. `watch` is shown the student's head and, chunk by
        chunk, the scaled sum's gradient at its logits.
        """
        output = teachers.output(teacher, rollouts, rows, self.k if measured else self.least)

        def use(head: Head) -> tuple[Tensor, Tensor, TokenScores]:
            stream = self.streamed(head, output, rollouts, rows, credit, measured)
            return stream.loss(self.value, scale, watch and partial(watch, head))

        return batches.with_head(student, rollouts, rows, use)

    def streamed(
        self,
        head: Head,
        output: TeacherOutput,
        rollouts: Rollouts,
        rows: Tensor,
        credit: Credit | None = None,
        measured: bool = True,
    ) -> Stream:
        """These rows' tokens with the output of both models for them."""
        k, everything = self.k if measured else self.least, measured or bool(self.reads.signals)
        return streamed(head, output, rollouts, rows, k, self.reads, self.chunk, credit, everything)

    @property
    def reads(self) -> Reads:
        """What the method reads."""
        return self.method.reads(self.options)

    @property
    def least(self) -> int:
        """How long the lists must be for what the method reads."""
        return max(self.reads.k, length(self.reads.signals))

    def value(self, scores: TokenScores) -> Tensor:
        """The method's value of each token (N, nats)."""
        return self.method.value(scores, self.options)


def length(signals: Collection[str]) -> int:
    """How long the lists must be for these signals."""
    return max(map(diagnostics.length, signals), default=0)


def streamed(
    head: Head,
    output: TeacherOutput,
    rollouts: Rollouts,
    rows: Tensor,
    k: int,
    reads: Reads,
    chunk: int | None,
    credit: Credit | None = None,
    measured: bool = True,
) -> Stream:
    """These rows' tokens, to be scored. `credit` is that of all responses."""
    device = head.hidden_NH.device
    token_N, row_N, position_N = (tensor.to(device) for tensor in batches.packed(rollouts, rows))
    mine = credit.of(rollouts, rows) if credit else None
    return Stream(
        student=head,
        teacher=(output[0].to(device), output[1].to(device), output[2].to(device))
        if isinstance(output, tuple)
        else output,
        token_N=token_N,
        row_N=row_N,
        position_N=position_N,
        advantage_N=None if mine is None or mine.advantage_N is None else mine.advantage_N.to(device),
        weight_N=None if mine is None or mine.weight_N is None else mine.weight_N.to(device),
        shares={name: share_N.to(device) for name, share_N in mine.shares.items()} if mine else {},
        k=k,
        reads=reads,
        measured=measured,
        chunk=chunk,
    )


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
                "reward": known(float(rollouts.reward_B[row])),
                "tokens": [words[token] for token in scores.token_N[mine_N].tolist()],
            }
            | {name: rounded(value_N[mine_N].tolist()) for name, value_N in per_token(scores).items()}
        )
    return rows


def known(reward: float) -> float | None:
    """A reward; None where nobody knows it, since JSON has no NaN."""
    return None if math.isnan(reward) else reward


def rounded(values: Sequence[float]) -> list[float | None]:
    """Four decimals; None for what is not known."""
    return [None if math.isnan(value) else round(value, 4) for value in values]


def per_token(scores: TokenScores) -> dict[str, Tensor]:
    """What is known of the sampled tokens (N), under the names that records have for it."""
    columns = {
        "student_logp": scores.student_logp_N,
        "teacher_logp": scores.teacher_logp_N,
        "student_entropy": scores.student_entropy_N,
        "teacher_entropy": scores.teacher_entropy_N,
        "reverse_kl": scores.reverse_kl_N,
    }
    if scores.units is not None:
        del columns["teacher_entropy"]  # over another vocabulary, beside the student's it would say nothing
    return {name: value_N for name, value_N in columns.items() if value_N is not None}
