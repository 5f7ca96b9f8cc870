"""What a method may see and do beside its value: its view of a step, what a teacher is shown, branches, the world.

The contract that uses these records is that of `methods/__init__.py`; shape letters are those of `types`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from opd_lib.types import Chat, Prompt

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the teacher is shown: a chat for each response (B), and numbers of each that the view will hold."""

    chats: Sequence[Chat]
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)


PARTS = ("question", "answer", "solution", "key", "results")
"""What may stand in braces in a user message; not every task tells the last two."""


def require_message(text: str, where: str) -> None:
    """Raise ValueError, naming the key (`where`), for a user message that cannot be filled in."""
    try:
        text.format(**dict.fromkeys(PARTS, ""))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        known = ", ".join(f"{{{part}}}" for part in PARTS)
        raise ValueError(f"{where}: {text!r}: {error}; use {known}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The responses to one prompt: their texts and rewards (G)."""

    texts: Sequence[str]
    rewards: Sequence[float]


Say = Callable[[str, Sequence[Chat]], Sequence[str]]
"""What a named model (student, teacher, or a teacher's own name) writes in answer to these chats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a method sees of a step before anything is trained: this process's whole groups of responses, no gradient.

    Tokens (N) are the student's own of all responses in row order; `turn_N` counts the turns of a response, from 0.
    `signal` has what `Reads.signals` names, each the value of one token (N), NaN where it is undefined. `reward_PG` has
    the groups, `uniform_B` random numbers in [0, 1) of (seed, step). `shown_numbers` (B each) are what the method's
    `shown` has returned. `advantage_N` is what its `advantages` have made, None before and without them.
    """

    signal: Mapping[str, Tensor]
    token_N: Tensor
    row_N: Tensor
    position_N: Tensor
    turn_N: Tensor
    reward_PG: Tensor
    reward_B: Tensor
    length_B: Tensor
    finished_B: Tensor
    uniform_B: Tensor
    prompts: tuple[Prompt, ...]
    shown_numbers: Mapping[str, Tensor]
    texts: Callable[[], Sequence[str]] = field(repr=False)
    advantage_N: Tensor | None = None

    @property
    def count_B(self) -> Tensor:
        """How many of the tokens are of each response."""
        return self.row_N.bincount(minlength=len(self.reward_B))

    def mean(self, value_N: Tensor) -> Tensor:
        """The mean of a number of each token over the tokens of each response (B)."""
        return value_N.new_zeros(len(self.reward_B)).index_add(0, self.row_N, value_N) / self.count_B

    @property
    def text_B(self) -> Sequence[str]:
        """The responses as text, without the end token."""
        return self.texts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A further part of a step: `changes` (dotted keys, as an arm's) of the run's parameters, its loss times `coef`."""

    name: str
    changes: Mapping[str, Any]
    coef: float


State = Mapping[str, float]
"""What a method remembers from step to step; part of the checkpoint."""


class World(Protocol):
    """What `after_step` may do. A method still never sees a model."""

    def combine(self, into: str, of: Mapping[str, float], only: Sequence[str] = ()) -> None:
        """into ← Σ of[name] · name in float32, element by element: an EMA, an extrapolation, a merge.

        Names: student, start (the student before the first step), teacher (or a teacher's own name), and what was made
        here. `only`: patterns of parameter names, such as "*.self_attn.*"; the others stay as they are.
        Raises ValueError for a name that there is not.
        """

    def set(self, key: str, value: float) -> None:
        """source.max_new_tokens (up to the file's), train.lr or method.OPTION from the next step on.

        It is a column of every row, so it must be set before the first step, too. Raises ValueError for another key.
        """

    def accuracy(self, n_prompts: int) -> float:
        """The student's share of right answers, now, to so many training prompts, one response each.

        Prompts and random numbers are of (seed, step); the record counts the tokens.
        """
