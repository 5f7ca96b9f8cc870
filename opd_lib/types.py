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

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from opd_lib.spelling import Units

if TYPE_CHECKING:
    from torch import Tensor

Chat = tuple[tuple[str, str], ...]
"""The messages of a chat: role and content."""
NEGLIGIBLE = -1e30  # a log-probability that weighs nothing and, unlike −inf, leaves no NaN where a support is empty
OUTSIDE = 1 << 20  # rank of a token that is in neither top-k list: larger than any k


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question as the models see it.

    `rendered` is the text both models are given; `token_ids` its tokens; `answer` what the grader accepts. `chat` are
    the messages (role, content) that were rendered; `solution` a worked answer where the task has one; `told` what
    else a teacher may be told, by name; `domain` the content of the task it was drawn from.
    """

    id: str
    source: str
    question: str
    rendered: str
    token_ids: tuple[int, ...]
    answer: str
    chat: Chat = ()
    solution: str = ""
    told: tuple[tuple[str, str], ...] = ()
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """B responses. `response_BT` is right-padded; `length_B` counts valid tokens, the end token included.

    They stand in the machine's own memory, whatever has sampled them; who scores them takes them to a device.
    `sampler_logp_BT` (nats) is what the sampler saw, None when the responses come from a corpus.
    `finished_B` is False where the response was cut at the length limit. `reward_B` is 1.0 for a correct answer.
    `number_B` counts the responses of the whole step, of which another process may have others. `shown` are the prompts
    that the teacher is given in place of the student's, `shown_numbers` those of each response (B) that go with them.
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
    shown_numbers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> list[list[int]]:
        """The tokens of each response, its end token included."""
        rows = zip(self.response_BT.tolist(), self.length_B.tolist(), strict=True)
        return [tokens[:length] for tokens, length in rows]

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

    @property
    def length(self) -> int:
        """The k these candidates were made with: the longest list that can be cut from them."""
        return int((self.student_rank_NC[:1] < OUTSIDE).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """What the models say about N response tokens. Only `student_*` tensors carry a gradient.

    `row_N` is the response (0 … B-1) a token belongs to, `position_N` its place in it (0 = first response token).
    `advantage_N` is what the method's `advantages` gave each token: that of its response, or its own (None without).
    `named_logp_N`: where several teachers have names, each one's log-probability of the sampled token.
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
