"""The head, a few tokens at a time: no (N, V) tensor of all tokens is ever made, forward or backward.

    hidden states → logits of a chunk → TokenScores → values → gradient at the logits → gradients of states and head

A loss is a weighted sum of values of tokens, so it can be taken and differentiated chunk by chunk, while the chunk's
logits are there: nothing is computed again in the backward pass, whatever the objective. With n tokens in a chunk the
logits, their log-probabilities and gradients need `footprint.logits` bytes, however many tokens there are. Products of
matrices, in units of 2·N·V·H: student 3, teacher 1.

A loss that reads only differences of log-probabilities within its support (`Reads.partition` False: Eq. 5 of arXiv
2604.13016 as printed) has no gradient through the partition function. Its backward pass touches the C rows of the head
that its support names, C·H instead of V·H products per token and matrix, and the teacher is asked for those tokens
alone if nobody reads more of it. That pays where C is small beside V (SPARSE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opd_lib.maths import chunks, logprobs
from opd_lib.maths.head import CombinedLogits, Gradient, Head, TeacherLogits
from opd_lib.maths.units import AlignedLogits
from opd_lib.types import OUTSIDE, Candidates, Reads, TokenScores

SPARSE = 8
"""A row of the head taken by itself costs about as much as this many rows in a product of matrices."""
Objective = Callable[[TokenScores], Tensor]
"""A method's value of each token (N, nats), differentiable."""
Served = tuple[Tensor, Tensor, Tensor]
"""What a served teacher returns for N tokens: their log-probabilities, ids and log-probabilities of its top-k lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """N tokens to be scored, `chunk` at a time (None: all at once). The teacher: in process, served, or none.

    With a teacher of another tokenizer a chunk ends where a unit does.

    `k`: length of the top-k lists; `reads`: what the objective reads; `measured`: diagnostics are wanted as well.
    `weight_N` multiplies each token's value (None: 1). With `shares` (N each) the value is taken against each of the
    named teachers that has a share of any token, and added.
    """

    student: Head
    teacher: TeacherLogits | AlignedLogits | Served | None
    token_N: Tensor
    row_N: Tensor
    position_N: Tensor
    advantage_N: Tensor | None = None
    weight_N: Tensor | None = None
    shares: Mapping[str, Tensor] = field(default_factory=dict)
    k: int
    reads: Reads
    measured: bool
    chunk: int | None

    def scores(self) -> TokenScores:
        """Everything but a gradient."""
        with torch.no_grad(), torch.autocast(self.token_N.device.type, enabled=False):
            whole: TokenScores | None = None
            for part in self.parts:
                whole = chunks.stored(
                    len(self.token_N), whole, chunks.kept(self.score(self.student.logits(part), part)), part
                )
        assert whole is not None
        return whole

    def loss(
        self,
        objective: Objective,
        scale: float,
        watch: Callable[[slice, Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor, TokenScores]:
        """The values' weighted sum (nats) times `scale`, to be differentiated once; the sum and the scores, constants.

        `watch` is shown, for each chunk, the gradient (n, V) of the scaled sum at its logits.
        """
        gradient, parts, whole = Gradient(self.student), list(self.parts), None
        precise = torch.promote_types(self.student.dtype, torch.float32)
        totals = torch.empty(len(parts), dtype=precise, device=self.token_N.device)
        with torch.autocast(self.token_N.device.type, enabled=False):
            for i, part in enumerate(parts):
                totals[i], scores = self._chunk(part, objective, scale, gradient, watch)
                whole = chunks.stored(len(self.token_N), whole, scores, part)
        assert whole is not None
        total = totals.sum()
        return gradient.attached(total * scale), total, whole

    def _chunk(
        self,
        part: slice,
        objective: Objective,
        scale: float,
        gradient: Gradient,
        watch: Callable[[slice, Tensor], None] | None,
    ) -> tuple[Tensor, TokenScores]:
        """Weighted sum and scores of some tokens, their gradient counted in; what is large goes when this returns."""
        with torch.no_grad():
            logits_NV = self.student.logits(part)
            constant = self._score_support(logits_NV, part) if self.is_sparse and watch is None else None
            id_NC = constant.candidates.id_NC if constant and constant.candidates else None
            leaf_NX = logits_NV if id_NC is None else logits_NV.gather(1, id_NC)
        with torch.enable_grad():
            leaf_NX.requires_grad_()
            scores = self.score(leaf_NX, part) if constant is None else _through(leaf_NX, constant)
            total = self._sum(objective, scores, leaf_NX, part)
            (delta_NX,) = torch.autograd.grad(total * scale, leaf_NX)
        if watch:
            watch(part, delta_NX)
        gradient.add(part, delta_NX, id_NC)
        return total.detach(), chunks.kept(scores)

    def weighted(self, objective: Objective, logits_NV: Tensor, part: slice) -> tuple[Tensor, TokenScores]:
        """The weighted sum of the values (nats) at these logits of some tokens, differentiable, and the scores."""
        scores = self.score(logits_NV, part)
        return self._sum(objective, scores, logits_NV, part), scores

    def _sum(self, objective: Objective, scores: TokenScores, logits_NV: Tensor, part: slice) -> Tensor:
        value_N = self._shared(objective, logits_NV, part) if self.shares else objective(scores)
        return value_N.sum() if self.weight_N is None else (value_N * self.weight_N[part]).sum()

    def _shared(self, objective: Objective, logits_NV: Tensor, part: slice) -> Tensor:
        """The value against each named teacher, times its share of the token, added (n)."""
        assert isinstance(self.teacher, CombinedLogits)
        total_N = torch.zeros_like(logits_NV[:, 0])
        for name, share_N in self.shares.items():
            if share_N[part].any():
                scores = self.score(logits_NV, part, self.teacher.named[name])
                total_N = total_N + share_N[part] * objective(scores)
        return total_N

    @property
    def parts(self) -> Iterator[slice]:
        """The chunks."""
        teacher, n = self.teacher, len(self.token_N)
        return teacher.parts(self.chunk) if isinstance(teacher, AlignedLogits) else chunks.parts(n, self.chunk)

    @property
    def is_sparse(self) -> bool:
        """Whether the loss is differentiated through the head's rows of its support alone."""
        n_slots = self.k if self._reads_little else 2 * self.k
        return (
            isinstance(self.teacher, Head)
            and not self.reads.partition
            and SPARSE * n_slots <= len(self.student.weight_VH)
        )

    @property
    def _reads_little(self) -> bool:
        """Whether the student's list alone says what the teacher is asked for."""
        return not self.measured and self.reads.lists == {"student"}

    def score(self, student_logits_NV: Tensor, part: slice, one: TeacherLogits | None = None) -> TokenScores:
        """Everything that is read of these tokens; `one` is a teacher that stands in for the run's."""
        places = (self.token_N[part], self.row_N[part], self.position_N[part])
        teacher = one or self.teacher
        if isinstance(teacher, tuple):
            logp_N, top_id_NK, top_logp_NK = (tensor[part] for tensor in teacher)
            scores = logprobs.score_served(
                student_logits_NV, logp_N, top_id_NK, top_logp_NK, *places, self.k, self.reads.distributions
            )
        elif isinstance(teacher, AlignedLogits):
            whole = self.reads.distributions
            scores = teacher.score(student_logits_NV, part, places, self.chunk, self.measured, whole)
        else:
            teacher_logits_NV = None if teacher is None else teacher.logits(part)
            scores = logprobs.score(
                student_logits_NV, teacher_logits_NV, *places, self.k, self.measured, self.reads.distributions
            )
        if isinstance(self.teacher, CombinedLogits):
            scores = replace(scores, named_logp_N=self.teacher.named_logp(self.token_N[part], part))
        return scores if self.advantage_N is None else replace(scores, advantage_N=self.advantage_N[part])

    def _score_support(self, student_logits_NV: Tensor, part: slice) -> TokenScores:
        """`score` without a gradient; if that suffices, the teacher's log-probabilities of the student's list alone,
        normalised on it."""
        if not self._reads_little:
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
