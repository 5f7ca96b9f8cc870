"""The records that flow through a run, and the legend of shape letters.

    Prompt → Rollouts → TokenScores → a value per token (N) → one sum, one division → gradient
                                    → a row of diagnostics → files

Every tensor's name ends in its shape:

    P  prompts of a step            G  rollouts per prompt        B = P·G  responses of a step
    T  response positions, padded   N  valid response tokens of a micro-batch, packed in row order
    C  candidate tokens at one position (student top-k ∪ teacher top-k)        V  vocabulary

`logp` is a natural logarithm (nats); `reverse_kl` is KL(student ‖ teacher).
Losses and diagnostics see packed tokens (N), never padding: padding cannot change a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from opd_lib.spelling import Units

if TYPE_CHECKING:
    from torch import Tensor

Chat = tuple[tuple[str, str], ...]
"""The messages of a chat: role and content."""
OUTSIDE = 1 << 20  # rank of a token that is in neither top-k list: larger than any k


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question as the models see it.

    `rendered` is the text both models are given; `token_ids` its tokens; `answer` what the grader accepts. `chat` are
    the messages (role, content) that were rendered; `solution` a worked answer where the task has one; `domain` the
    content of the task it was drawn from.
    """

    id: str
    source: str
    question: str
    rendered: str
    token_ids: tuple[int, ...]
    answer: str
    chat: Chat = ()
    solution: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """B responses. `response_BT` is right-padded; `length_B` counts valid tokens, the end token included.

    They stand in the machine's own memory, whatever has sampled them; who scores them takes them to a device.
    `sampler_logp_BT` (nats) is what the sampler saw, None when the responses come from a corpus.
    `finished_B` is False where the response was cut at the length limit. `reward_B` is 1.0 for a correct answer.
    `number_B` counts the responses of the whole step, of which another process may have others. `shown` are the prompts
    that the teacher is given in place of the student's, `told` numbers of each response (B) that go with them.
    `own_BT` says which tokens the student wrote (None: all) and `turn_BT` in which turn: others are read, not scored.
    """

    prompts: tuple[Prompt, ...]
    response_BT: Tensor
    length_B: Tensor
    finished_B: Tensor
    reward_B: Tensor
    sampler_logp_BT: Tensor | None = None
    number_B: Tensor | None = None
    own_BT: Tensor | None = None
    turn_BT: Tensor | None = None
    shown: tuple[Prompt, ...] | None = None
    told: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_own_B(self) -> Tensor:
        """How many tokens of each response the student wrote: those that are scored and counted."""
        return self.length_B if self.own_BT is None else self.own_BT.sum(1)

    @property
    def for_teacher(self) -> tuple[Prompt, ...]:
        """The prompts behind which the teacher scores the responses."""
        return self.shown or self.prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Tokens worth scoring at each position: the student's top-k followed by the teacher's top-k not among them.

    Log-probabilities are normalised over the full vocabulary (nats). A rank is the token's place (0 = most likely)
    in that model's top-k list, OUTSIDE if it is not on the list; an entry with both ranks OUTSIDE is an unused slot.
    So any support with k' ≤ k is a mask over the same candidates: `student_rank_NC < k'` and so on.
    A served teacher scores its own list and the token that was drawn: its other log-probabilities are NaN.
    """

    id_NC: Tensor
    student_logp_NC: Tensor  # carries the gradient
    teacher_logp_NC: Tensor
    student_rank_NC: Tensor
    teacher_rank_NC: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """What the models say about N response tokens. Only `student_*` tensors carry a gradient.

    `row_N` is the response (0 … B-1) a token belongs to, `position_N` its place in it (0 = first response token).
    `advantage_N` is the method's sequence-level advantage (None where the method has none). `named_logp_N`: where
    several teachers have names, each one's log-probability of the sampled token.
    Teacher fields are None in runs without a teacher; its entropy and the reverse KL also with a served one.
    What nobody reads is None too: entropies and reverse KL at steps without diagnostics. `distributions` are both
    models' log-probabilities of the whole vocabulary, (N, V) each, for as long as a loss that reads them is taken.
    `units`: with a teacher of another tokenizer; what else is different then stands at spelling.Units.
    """

    token_N: Tensor
    row_N: Tensor
    position_N: Tensor
    student_logp_N: Tensor
    student_entropy_N: Tensor | None = None
    teacher_logp_N: Tensor | None = None
    teacher_entropy_N: Tensor | None = None
    reverse_kl_N: Tensor | None = None
    candidates: Candidates | None = None
    distributions: tuple[Tensor, Tensor] | None = None
    advantage_N: Tensor | None = None
    named_logp_N: Mapping[str, Tensor] | None = None
    units: Units | None = None

    def part(self, rows: slice) -> TokenScores:
        """Some of the tokens."""
        return replace(self, **{each.name: _cut(getattr(self, each.name), rows) for each in fields(self)})


def _cut(value: Any, rows: slice) -> Any:
    """Some rows of a tensor, or of every tensor in a record, a pair or a mapping."""
    if isinstance(value, Candidates | Units):
        return replace(value, **{each.name: _cut(getattr(value, each.name), rows) for each in fields(value)})
    if isinstance(value, tuple):
        return tuple(_cut(each, rows) for each in value)
    if isinstance(value, Mapping):
        return {name: _cut(each, rows) for name, each in value.items()}
    return value[rows] if hasattr(value, "shape") else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """What an objective reads of TokenScores beside the sampled tokens: it decides what is computed and differentiated.

    `k`: how long the top-k lists must be (0: none); `lists`: the models whose lists make its support. `partition`:
    log-probabilities as they are; False if only their differences within a position count, so that no sum over the
    vocabulary takes part. `distributions`: those of the whole vocabulary. `signals`: names of diagnostics
    (maths/diagnostics) that the method needs of every token at every step, in its view or in its value.
    """

    k: int = 0
    lists: frozenset[str] = frozenset()
    partition: bool = True
    distributions: bool = False
    signals: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A sum over tokens (nats) and their number: what older texts of `methods/own` return in place of values."""

    total: Tensor
    n_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the teacher is shown: a chat for each response (B), and numbers of each that the view will hold."""

    chats: Sequence[Chat]
    told: Mapping[str, Sequence[float]] = field(default_factory=dict)


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
    the groups, `uniform_B` random numbers in [0, 1) of (seed, step). `told` are the numbers (B) that the method's
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
    told: Mapping[str, Tensor]
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
