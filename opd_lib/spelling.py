"""One text in the tokens of two models: records of how each spells it, and of the stretches at whose ends both agree.

S  tokens of the student's        M  tokens of the teacher's        U  units of a response
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NONE = -1
"""What stands for a token that the other tokenizer does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """The tokens of one response as one tokenizer spells it.

    `ends`: where each token ends in the text (characters, never falling; the last end is the text's, for both models).
    Tokens that share a character end where it ends. `shared`: each token's number among those that both vocabularies
    have, else NONE. `known`: False for a token that stands for whatever its tokenizer cannot spell.
    """

    ends: tuple[int, ...]
    shared: tuple[int, ...]
    known: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Units of a response: where each begins among the student's and the teacher's tokens. They leave nothing out.

    `joint`: the unit is a candidate of its own, beside the shared tokens. `taught`: it has a value.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    joint: tuple[bool, ...]
    taught: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The unit that each of N student tokens belongs to, as part of TokenScores: whole units, one after the other.

    `place_N`: the token's place in its unit, of `length_N` of the student's tokens; a unit's value stands at place 0.
    `joint_N`, `taught_N` as in Alignment. `teacher_mean_N`: the teacher's mean
    log-probability (nats) of the tokens in which it spells the unit, at each of the student's tokens. `whole`: the
    shared tokens are the whole vocabulary of both models.

    With units `TokenScores.distributions` are of the shared tokens (N, C), the teacher's at the first token of each
    unit and 0 elsewhere. The teacher's entropy (over its own vocabulary) is known at the first token of each unit, its
    log-probability where a unit is one of the student's tokens (then it is that of the unit's text, in however many of
    the teacher's); elsewhere both are NaN. There are no candidates and no reverse KL.
    """

    place_N: Tensor
    length_N: Tensor
    joint_N: Tensor
    taught_N: Tensor
    teacher_mean_N: Tensor
    whole: bool
