"""The head, a few tokens at a time: no (N, V) tensor of all tokens is ever made, forward or backward.

    hidden states → logits of a chunk → TokenScores → Loss → gradient at the logits → gradients of states and head

A loss is a sum over tokens, so it can be taken and differentiated chunk by chunk, while the chunk's logits are there:
nothing is computed again in the backward pass, whatever the objective. With n tokens in a chunk the logits, their
log-probabilities and gradients need `footprint.logits` bytes, however many tokens there are. Products of matrices, in
units of 2·N·V·H: student 3, teacher 1.

A loss that reads only differences of log-probabilities within its support (`Reads.partition` False: Eq. 5 of arXiv
2604.13016 as printed) has no gradient through the partition function. Its backward pass touches the C rows of the head
that its support names, C·H instead of V·H products per token and matrix, and the teacher is asked for those tokens
alone if nobody reads more of it. That pays where C is small beside V (SPARSE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from opd_lib.maths import logprobs
from opd_lib.maths.head import Gradient, Head
from opd_lib.types import OUTSIDE, Candidates, Loss, Reads, TokenScores

SPARSE = 8
"""A row of the head taken by itself costs about as much as this many rows in a product of matrices."""
Served = tuple[Tensor, Tensor, Tensor]
"""What a served teacher says of N tokens: their log-probabilities, ids and log-probabilities of its top-k lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """N tokens to be scored, `chunk` at a time (None: all at once). The teacher: in process, served, or none.

    `k`: length of the top-k lists; `reads`: what the loss reads; `measured`: diagnostics are wanted as well.
    """

    student: Head
    teacher: Head | Served | None
    token_N: Tensor
    row_N: Tensor
    position_N: Tensor
    advantage_N: Tensor | None
    k: int
    reads: Reads
    measured: bool
    chunk: int | None

    def scores(self) -> TokenScores:
        """Everything but a gradient."""
        with torch.no_grad(), torch.autocast(self.token_N.device.type, enabled=False):
            whole: TokenScores | None = None
            for part in self.parts:
                whole = self._stored(whole, _kept(self.score(self.student.logits(part), part)), part)
        assert whole is not None
        return whole

    def loss(
        self,
        objective: Callable[[TokenScores], Loss],
        scale: float,
        watch: Callable[[slice, Tensor], None] | None = None,
    ) -> tuple[Tensor, Loss, TokenScores]:
        """The loss times `scale`, a scalar that can be differentiated once; the loss and the scores, both constant.

        `watch` is shown, for each chunk, the gradient (n, V) of the scaled loss at its logits.
        """
        gradient, parts, whole, n_tokens = Gradient(self.student), list(self.parts), None, 0
        precise = torch.promote_types(self.student.dtype, torch.float32)
        totals = torch.empty(len(parts), dtype=precise, device=self.token_N.device)
        with torch.autocast(self.token_N.device.type, enabled=False):
            for i, part in enumerate(parts):
                loss, scores = self._chunk(part, objective, scale, gradient, watch)
                totals[i], n_tokens = loss.total, n_tokens + loss.n_tokens
                whole = self._stored(whole, scores, part)
        assert whole is not None
        total = totals.sum()
        return gradient.attached(total * scale), Loss(total=total, n_tokens=n_tokens), whole

    def _chunk(
        self,
        part: slice,
        objective: Callable[[TokenScores], Loss],
        scale: float,
        gradient: Gradient,
        watch: Callable[[slice, Tensor], None] | None,
    ) -> tuple[Loss, TokenScores]:
        """Loss and scores of some tokens, their gradient counted in; what is large goes when this returns."""
        with torch.no_grad():
            logits_NV = self.student.logits(part)
            constant = self._score_support(logits_NV, part) if self.is_sparse and watch is None else None
            id_NC = constant.candidates.id_NC if constant and constant.candidates else None
            leaf_NX = logits_NV if id_NC is None else logits_NV.gather(1, id_NC)
        with torch.enable_grad():
            leaf_NX.requires_grad_()
            scores = self.score(leaf_NX, part) if constant is None else _through(leaf_NX, constant)
            loss = objective(scores)
            (delta_NX,) = torch.autograd.grad(loss.total * scale, leaf_NX)
        if watch:
            watch(part, delta_NX)
        gradient.add(part, delta_NX, id_NC)
        return Loss(total=loss.total.detach(), n_tokens=loss.n_tokens), _kept(scores)

    def _stored(self, whole: TokenScores | None, scores: TokenScores, part: slice) -> TokenScores:
        """The scores of all tokens, with those of a chunk put in.

        What is kept of a chunk has its place beforehand. Small tensors that stay, made while the chunk before has left
        its place, would take a bit of that, and the next chunk's large ones would need another: at every chunk again.
        """
        n = len(self.token_N)
        if len(scores.token_N) == n:
            return scores
        if whole is None:
            whole = _map(lambda tensors: tensors[0].new_empty((n, *tensors[0].shape[1:])), [scores])
        _map(lambda tensors: tensors[0][part].copy_(tensors[1]), [whole, scores])
        assert whole is not None
        return whole

    @property
    def parts(self) -> Iterator[slice]:
        """The chunks."""
        return parts(len(self.token_N), self.chunk)

    @property
    def is_sparse(self) -> bool:
        """Whether the loss is differentiated through the head's rows of its support alone."""
        n_slots = self.k if self._asks_little else 2 * self.k
        of_a_head = isinstance(self.teacher, Head)
        return of_a_head and not self.reads.partition and SPARSE * n_slots <= len(self.student.weight_VH)

    @property
    def _asks_little(self) -> bool:
        """Whether the student's list alone says what the teacher is asked for."""
        return not self.measured and self.reads.lists == {"student"}

    def score(self, student_logits_NV: Tensor, part: slice) -> TokenScores:
        """Everything that is read of these tokens."""
        places = (self.token_N[part], self.row_N[part], self.position_N[part])
        if isinstance(self.teacher, tuple):
            logp_N, top_id_NK, top_logp_NK = (tensor[part] for tensor in self.teacher)
            scores = logprobs.score_served(
                student_logits_NV, logp_N, top_id_NK, top_logp_NK, *places, self.k, self.reads.distributions
            )
        else:
            teacher_logits_NV = None if self.teacher is None else self.teacher.logits(part)
            scores = logprobs.score(
                student_logits_NV, teacher_logits_NV, *places, self.k, self.measured, self.reads.distributions
            )
        return scores if self.advantage_N is None else replace(scores, advantage_N=self.advantage_N[part])

    def _score_support(self, student_logits_NV: Tensor, part: slice) -> TokenScores:
        """The same as constants; of the teacher, if little is asked, the student's list alone, normalised on it."""
        if not self._asks_little:
            return self.score(student_logits_NV, part)
        assert isinstance(self.teacher, Head)
        precise_NV = logprobs.precise(student_logits_NV)
        partition_N1 = precise_NV.logsumexp(-1, keepdim=True)
        top_NK, id_NK = precise_NV.topk(self.k, dim=-1)
        rank_NK = torch.arange(self.k, device=id_NK.device).expand_as(id_NK)
        return TokenScores(
            token_N=self.token_N[part],
            row_N=self.row_N[part],
            position_N=self.position_N[part],
            student_logp_N=(logprobs.at(precise_NV, self.token_N[part, None]) - partition_N1)[:, 0],
            candidates=Candidates(
                id_NC=id_NK,
                student_logp_NC=top_NK - partition_N1,
                teacher_logp_NC=logprobs.log_softmax(self.teacher.logits_of(part, id_NK)),
                student_rank_NC=rank_NK,
                teacher_rank_NC=torch.full_like(rank_NK, OUTSIDE),
            ),
        )


def _through(leaf_NC: Tensor, constant: TokenScores) -> TokenScores:
    """Scores whose candidates are differentiated through their logits, not through the partition function."""
    assert constant.candidates is not None
    logp_NC = constant.candidates.student_logp_NC
    shifted_NC = leaf_NC.to(logp_NC.dtype) + (logp_NC - leaf_NC.detach())
    return replace(constant, candidates=replace(constant.candidates, student_logp_NC=shifted_NC))


def parts(n: int, chunk: int | None) -> Iterator[slice]:
    """n tokens, `chunk` at a time."""
    size = chunk or max(n, 1)
    return (slice(start, start + size) for start in range(0, max(n, 1), size))


def _kept(scores: TokenScores) -> TokenScores:
    """What may outlive a chunk: constants, no distributions."""
    kept: TokenScores = _map(lambda tensors: tensors[0].detach(), [replace(scores, distributions=None)])
    return kept


def _map(join: Callable[[list[Tensor]], Tensor], pieces: Sequence[Any]) -> Any:
    """A record of `join` of the pieces' tensors, field by field."""
    first = pieces[0]
    if first is None:
        return None
    if isinstance(first, TokenScores | Candidates):
        return replace(first, **{f.name: _map(join, [getattr(p, f.name) for p in pieces]) for f in fields(first)})
    return join(list(pieces))
