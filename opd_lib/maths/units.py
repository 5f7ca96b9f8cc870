"""A teacher with another tokenizer: its log-probabilities of the units in which both models' tokens meet.

    teacher's states (M) → log-probabilities of its tokens → a mean per unit; at a unit's first position, of all tokens
    that both vocabularies have (C)

Where the two meet, student and teacher stand behind the same text, so these are log-probabilities of the same things.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from opd_lib.maths import logprobs
from opd_lib.maths.head import Head
from opd_lib.spelling import Units
from opd_lib.types import TokenScores


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedLogits:
    """A teacher's M tokens beside N of the student's: its states and head, and the units in which the two meet.

    `bounds_U`, `teacher_bounds_U`: where each unit begins among the student's and the teacher's tokens, and the ends
    (U + 1 numbers each); `joint_U`, `taught_U` as in spelling.Alignment. `student_id_C`, `teacher_id_C`: the shared
    tokens' ids in both vocabularies; `whole`: they are all there are.
    """

    head: Head
    token_M: Tensor
    bounds_U: tuple[int, ...]
    teacher_bounds_U: tuple[int, ...]
    joint_U: tuple[bool, ...]
    taught_U: tuple[bool, ...]
    student_id_C: Tensor
    teacher_id_C: Tensor
    whole: bool

    def parts(self, chunk: int | None) -> Iterator[slice]:
        """The student's tokens in whole units, at most `chunk` at a time, or one unit that is longer."""
        first = 0
        for begin, end in pairwise(self.bounds_U):
            if chunk and end - first > chunk and begin > first:
                yield slice(first, begin)
                first = begin
        yield slice(first, self.bounds_U[-1])

    def score(
        self,
        student_logits_NV: Tensor,
        part: slice,
        places: tuple[Tensor, Tensor, Tensor],
        chunk: int | None,
        measured: bool,
        whole: bool,
    ) -> TokenScores:
        """Scores of a part made by `parts`; `places` are its tokens, rows and positions. See spelling.Units.

        `measured`: with entropies; `whole`: with distributions. The teacher's logits exist for a few tokens at a time:
        they are as large as the student's for `chunk`.
        """
        token_N, row_N, position_N = places
        logp_NV = logprobs.log_softmax(student_logits_NV)
        unit = self._units(part, logp_NV.device)
        limit = chunk and max(1, chunk * logp_NV.shape[1] // len(self.head.weight_VH))
        total_U, entropy_U, shared_UC = self._teacher_scores(unit, limit, measured, whole)
        nowhere_N = logp_NV.new_full(token_N.shape, torch.nan)
        single_U = unit.length_U == 1
        single_N = nowhere_N.index_copy(0, unit.start_U[single_U], total_U[single_U].to(logp_NV))
        return TokenScores(
            token_N=token_N,
            row_N=row_N,
            position_N=position_N,
            student_logp_N=logprobs.at(logp_NV, token_N[:, None])[:, 0],
            student_entropy_N=logprobs.entropy(logp_NV.detach()) if measured else None,
            teacher_logp_N=single_N,
            teacher_entropy_N=nowhere_N.index_copy(0, unit.start_U, entropy_U.to(logp_NV)) if measured else None,
            distributions=self._distributions(logp_NV, unit, shared_UC) if whole else None,
            units=Units(
                place_N=torch.arange(len(token_N), device=logp_NV.device) - unit.start_U[unit.of_N],
                length_N=unit.length_U[unit.of_N],
                joint_N=unit.joint_U[unit.of_N],
                taught_N=unit.taught_U[unit.of_N],
                teacher_mean_N=(total_U / unit.teacher_length_U.clamp(min=1)).to(logp_NV)[unit.of_N],
                whole=self.whole,
            ),
        )

    def _units(self, part: slice, device: torch.device) -> _Part:
        """The units of a part; where a response has no tokens for the teacher, its units have none."""
        first, last = bisect_left(self.bounds_U, part.start), bisect_left(self.bounds_U, part.stop)
        bound_U = torch.tensor(self.bounds_U[first : last + 1], device=device) - part.start
        teacher_bound_U = torch.tensor(self.teacher_bounds_U[first : last + 1], device=device)
        length_U = bound_U.diff()
        return _Part(
            start_U=bound_U[:-1],
            length_U=length_U,
            of_N=torch.arange(last - first, device=device).repeat_interleave(length_U),
            teacher_start_U=teacher_bound_U[:-1] - self.teacher_bounds_U[first],
            teacher_length_U=teacher_bound_U.diff(),
            tokens=slice(self.teacher_bounds_U[first], self.teacher_bounds_U[last]),
            joint_U=torch.tensor(self.joint_U[first:last], dtype=torch.bool, device=device),
            taught_U=torch.tensor(self.taught_U[first:last], dtype=torch.bool, device=device),
        )

    @torch.no_grad()
    def _teacher_scores(
        self, unit: _Part, limit: int | None, measured: bool, whole: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's log-probability (nats) of each unit's tokens together; at its first token, if asked for, the
        entropy and the log-probabilities of the shared tokens (U, C)."""
        n, n_units = unit.tokens.stop - unit.tokens.start, len(unit.start_U)
        precise = logprobs.precise(self.head.hidden_NH)
        logp_M, entropy_U = precise.new_zeros(n), precise.new_zeros(n_units)
        shared_UC = precise.new_zeros((n_units, len(self.teacher_id_C) if whole else 0))
        has_U = unit.teacher_length_U > 0
        for begin in range(0, n, limit or max(n, 1)):
            piece = slice(begin, min(n, begin + (limit or n)))
            where = slice(unit.tokens.start + piece.start, unit.tokens.start + piece.stop)
            logq_MV = logprobs.log_softmax(self.head.logits(where))
            logp_M[piece] = logprobs.at(logq_MV, self.token_M[where, None])[:, 0]
            here_U = has_U & (unit.teacher_start_U >= piece.start) & (unit.teacher_start_U < piece.stop)
            first_UV = logq_MV[unit.teacher_start_U[here_U] - piece.start]
            if measured:
                entropy_U[here_U] = logprobs.entropy(first_UV)
            if whole:
                shared_UC[here_U] = first_UV[:, self.teacher_id_C]
        of_M = torch.arange(n_units, device=logp_M.device).repeat_interleave(unit.teacher_length_U)
        return precise.new_zeros(n_units).index_add(0, of_M, logp_M), entropy_U, shared_UC

    def _distributions(self, logp_NV: Tensor, unit: _Part, shared_UC: Tensor) -> tuple[Tensor, Tensor]:
        """Both models' log-probabilities of the shared tokens (N, C), the teacher's where units begin."""
        teacher_NC = logp_NV.new_zeros((len(logp_NV), shared_UC.shape[1]))
        return logp_NV[:, self.student_id_C], teacher_NC.index_copy(0, unit.start_U, shared_UC.to(teacher_NC))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Units of a part: their places and lengths among its tokens, the teacher's tokens, the unit of each token."""

    start_U: Tensor
    length_U: Tensor
    of_N: Tensor
    teacher_start_U: Tensor
    teacher_length_U: Tensor
    tokens: slice
    joint_U: Tensor
    taught_U: Tensor
