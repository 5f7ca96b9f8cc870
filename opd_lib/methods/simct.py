"""SimCT: distillation from a teacher with another tokenizer, over tokens that both have and stretches that both spell.

    units        minimal stretches of the response whose two ends are ends of tokens in both tokenizers
    U            the shared tokens, and the unit itself where it is not one of them
    score        of a shared token log p; of a unit the mean of log p over the tokens in which the model spells it
    value        KL(p̂ ‖ q̂) at a unit's first token, p̂ and q̂ the softmax over U of student's and teacher's scores

    units        simct         every unit teaches
                 shared_only   a unit that is no shared token teaches nothing

What the teacher can only spell as its unknown token teaches nothing either. Coarser units lose what is within them.
With one tokenizer every unit is a shared token, U is the vocabulary, and the value is that of `opd` with estimator
full, normalize raw, without stop_gradient.

Source: arXiv 2605.07711 and its code. Differs: mean log-probabilities of a unit's tokens, where the code takes mean raw
logits, which a constant added to all logits changes; one global token mean over the student's tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from opd_lib.spelling import NONE, Alignment, Spelling, Units
from opd_lib.types import NEGLIGIBLE, Reads, TokenScores

NEEDS: frozenset[str] = frozenset({"teacher"})


class Params(BaseModel):
    """Which units teach."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    units: Literal["simct", "shared_only"] = Field(description="every unit, or shared tokens alone")


def reads(params: Params) -> Reads:
    """Both models' log-probabilities of the shared tokens."""
    return Reads(distributions=True)


def aligned(student: Spelling, teacher: Spelling, params: Params) -> Alignment:
    """The minimal units of a response: they begin behind each end that both spellings have."""
    common = set(student.ends) & set(teacher.ends)
    if not common:  # the teacher has no token for this text
        return Alignment(student=(0,), teacher=(0,), joint=(False,), taught=(False,))
    mine, other = starts(student.ends, common), starts(teacher.ends, common)
    spans = zip(spanned(mine, student), spanned(other, teacher), strict=True)
    kinds = [kind(student, one, teacher, two) for one, two in spans]
    everything = params.units == "simct"
    return Alignment(
        student=mine,
        teacher=other,
        joint=tuple(each == "joint" and everything for each in kinds),
        taught=tuple(each == "shared" or (each == "joint" and everything) for each in kinds),
    )


def starts(ends: Sequence[int], common: Collection[int]) -> tuple[int, ...]:
    """The first token, and each behind the last that ends at a common place."""
    behind = (i for i in range(1, len(ends)) if ends[i - 1] in common and ends[i] > ends[i - 1])
    return (0, *behind)


def spanned(first: Sequence[int], spelling: Spelling) -> list[slice]:
    """The tokens of each unit."""
    return [slice(begin, end) for begin, end in zip(first, [*first[1:], len(spelling.ends)], strict=True)]


def kind(student: Spelling, mine: slice, teacher: Spelling, other: slice) -> Literal["shared", "joint", "unknown"]:
    """A unit is a shared token, a stretch that both spell, or one that either tokenizer does not know."""
    (number, *more), others = student.shared[mine], teacher.shared[other]
    if not more and number != NONE and others == (number,):
        return "shared"
    return "joint" if all(student.known[mine]) and all(teacher.known[other]) else "unknown"


def value(scores: TokenScores, params: Params) -> Tensor:
    """KL(p̂ ‖ q̂) (N, nats) at the first token of each unit that teaches, 0 at the others.

    Raises ValueError for scores without units or distributions.
    """
    if scores.units is None or scores.distributions is None:
        raise ValueError("scores without units: score with a teacher that is aligned and `reads(...)`")
    units = scores.units
    first_U = (units.taught_N & (units.place_N == 0)).nonzero()[:, 0]
    logp_UC, logq_UC = (logp_NC[first_U] for logp_NC in scores.distributions)
    joint_U = units.joint_N[first_U]
    if units.whole and not joint_U.any():  # already distributions over U
        kl_U = kl(logp_UC, logq_UC)
    else:
        mean_U = mean(scores.student_logp_N, units)[first_U].masked_fill(~joint_U, NEGLIGIBLE)
        other_U = units.teacher_mean_N[first_U].masked_fill(~joint_U, NEGLIGIBLE)
        (logp_UC, mean_U), (logq_UC, other_U) = softmax(logp_UC, mean_U), softmax(logq_UC, other_U)
        kl_U = kl(logp_UC, logq_UC) + kl(mean_U[:, None], other_U[:, None])
    return torch.zeros_like(scores.student_logp_N).index_add(0, first_U, kl_U)


def softmax(logp_UC: Tensor, mean_U: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the shared tokens and of the unit, normalised together."""
    log_mass_U = torch.logaddexp(logp_UC.logsumexp(-1), mean_U)
    return logp_UC - log_mass_U[:, None], mean_U - log_mass_U


def kl(logp_UC: Tensor, logq_UC: Tensor) -> Tensor:
    """Σ p (log p − log q) over some candidates (U)."""
    return (logp_UC.exp() * (logp_UC - logq_UC)).sum(-1)


def mean(logp_N: Tensor, units: Units) -> Tensor:
    """The mean over the tokens of a unit, at its first token (N)."""
    first_N = torch.arange(len(logp_N), device=logp_N.device) - units.place_N
    return torch.zeros_like(logp_N).index_add(0, first_N, logp_N) / units.length_N


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse to distil without a teacher. Raises ValueError."""
    if not has_teacher:
        raise ValueError("teacher: null: distillation compares with a teacher; name one")
