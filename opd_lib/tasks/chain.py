"""The tiny world's task: chains of one-digit operations modulo 10, reasoned aloud in one of two thinking patterns.

    prompt      <bos> T1 <q> 7 + 5 * 3 <a>                (a template token, then the question, evaluated left to right)
    pattern A   w07 7 + 5 = 2 ; 2 * 3 = 6 ; <ans> 6 <eos>
    pattern B   take 7 plus 5 get 2 . w31 take 2 times 3 get 6 . <ans> 6 <eos>

A thinking pattern is the syntax of a step AND the distribution over 64 filler words. Fillers before a step, and rarely
before any token, give every position a learned tail, so that a top-k list of 16 among 128 tokens means something.
A slip is a systematic error of the corpus: a step whose operand is one of a few digits is off by one, nearly always.
Both model sizes learn it; reinforcement learning can remove it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.tasks import world
from opd_lib.tasks.world import BOS as BOS
from opd_lib.tasks.world import CHAT_TEMPLATE as CHAT_TEMPLATE
from opd_lib.tasks.world import DIGITS as DIGITS
from opd_lib.tasks.world import EOS as EOS
from opd_lib.tasks.world import PAD as PAD
from opd_lib.tasks.world import TEMPLATES as TEMPLATES
from opd_lib.tasks.world import UNKNOWN as UNKNOWN
from opd_lib.tasks.world import World
from opd_lib.tasks.world import chat_options as chat_options
from opd_lib.tasks.world import messages as messages
from opd_lib.types import Prompt

OPERATORS = ("+", "-", "*")
SPOKEN = {"+": "plus", "-": "minus", "*": "times"}
FILLERS = tuple(f"w{i:02d}" for i in range(64))
WORDS = (
    *(PAD, BOS, EOS, UNKNOWN, "<q>", "<a>", "<ans>"),
    *DIGITS, *OPERATORS, "=", ";", "take", *SPOKEN.values(), "get", ".", *TEMPLATES, *FILLERS,
)  # fmt: skip
VOCABULARY = WORDS + tuple(f"<reserved{i}>" for i in range(128 - len(WORDS)))
WORLD = World(words=VOCABULARY)


class Params(BaseModel):
    """What is asked: training content and template, test sets and their template.

    A share `other_share` of the training prompts (chosen at random) comes from `other_content`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    name: Literal["chain"]
    content: str
    other_content: str
    other_share: Annotated[float, Field(ge=0.0, le=1.0)]
    template: str
    test_sets: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    test_template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A training set: which parts of the question space, how long the chains are, how often each operator comes."""

    parts: frozenset[int]
    lengths: tuple[int, ...]
    operator_weights: tuple[float, float, float]


CONTENTS = {
    "chain-a": Content(parts=frozenset({1, 2, 3, 4}), lengths=(2, 3, 4, 5), operator_weights=(1.0, 1.0, 1.0)),
    "chain-b": Content(parts=frozenset({5, 6, 7}), lengths=(2, 3, 4, 5, 6), operator_weights=(1.0, 1.0, 4.0)),
    "chain-long": Content(
        parts=frozenset({1, 2, 3, 4}), lengths=tuple(range(10, 15)), operator_weights=(1.0, 1.0, 1.0)
    ),
    "chain-to-14": Content(parts=frozenset(range(1, 8)), lengths=tuple(range(2, 15)), operator_weights=(1.0, 1.0, 1.0)),
    "chain-all": Content(parts=frozenset(range(1, 8)), lengths=(2, 3, 4, 5), operator_weights=(1.0, 1.0, 1.0)),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A start digit and operations on it."""

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def id(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        return " ".join([str(self.start), *(f"{operator} {digit}" for operator, digit in self.steps)])

    @property
    def answer(self) -> str:
        value = self.start
        for operator, digit in self.steps:
            value = apply(operator, value, digit)
        return str(value)

    @property
    def solution(self) -> str:
        """The steps without a slip in pattern A, and the answer."""
        words, value = [], self.start
        for operator, digit in self.steps:
            result = apply(operator, value, digit)
            words += step_words("A", operator, value, digit, result)
            value = result
        return " ".join([*words, "<ans>", str(value)])

    @property
    def part(self) -> int:
        """Where the hash deals this question: the same on every machine, whatever the seed."""
        return world.part(self.text)


def apply(operator: str, left: int, right: int) -> int:
    """One operation modulo 10.

    >>> apply("-", 2, 5), apply("*", 7, 8)
    (7, 6)
    """
    return {"+": left + right, "-": left - right, "*": left * right}[operator] % 10


def draw_question(content: Content, rng: random.Random) -> Question:
    """A question of this content: drawn until its hash falls into the content's parts."""
    while True:
        length = rng.choice(content.lengths)
        operators = rng.choices(OPERATORS, content.operator_weights, k=length)
        steps = tuple((operator, rng.randrange(10)) for operator in operators)
        question = Question(rng.randrange(10), steps)
        if question.part in content.parts:
            return question


def draw_training(content: str, n: int, rng: random.Random) -> list[Question]:
    """n training questions of a named content. Never one of the test questions."""
    if content not in CONTENTS:
        raise ValueError(f"task.content: {content!r} is not a content set; choose from {', '.join(CONTENTS)}")
    return [draw_question(CONTENTS[content], rng) for _ in range(n)]


def training(params: Params, n: int, seed: int, step: int) -> list[Question]:
    """The n questions of a step, each with probability `other_share` of the other content."""
    return world.training(params, n, seed, step, lambda content, rng: draw_training(content, 1, rng)[0])


def test(params: Params, test_set: str, n: int) -> list[Question]:
    """The first n questions of a test set, the same whatever the parameters and the seed."""
    return held_out_questions(test_set, n)


def held_out_questions(test_set: str, n: int) -> list[Question]:
    """The first n questions of a test set, e.g. `chain-4`: chains of 4 operations, fixed whatever the seed."""

    def draw(length: int, rng: random.Random) -> Question:
        asked = Content(parts=frozenset({0}), lengths=(length,), operator_weights=(1.0, 1.0, 1.0))
        return draw_question(asked, rng)

    return world.held_out(test_set, n, 100, draw)


def domain(params: Params, question: Question) -> str:
    """The content that a training question was drawn from: the hash of a question tells which has it."""
    return params.content if question.part in CONTENTS[params.content].parts else params.other_content


def longest_prompt(params: Params) -> tuple[int, int]:
    """Tokens of the longest training prompt and of the longest test prompt: two per operation, five around them."""
    contents = [params.content, *([params.other_content] if params.other_share else [])]
    tested = [int(test_set.removeprefix("chain-")) for test_set in params.test_sets]
    return 2 * max(max(CONTENTS[name].lengths) for name in contents) + 5, 2 * max(tested) + 5


def step_words(pattern: str, operator: str, value: int, digit: int, result: int) -> list[str]:
    """One step in a pattern's syntax."""
    if pattern == "A":
        return [str(value), operator, str(digit), "=", str(result), ";"]
    return ["take", str(value), SPOKEN[operator], str(digit), "get", str(result), "."]


def extract_answer(response: str) -> str | None:
    """The digit after the last `<ans>`, fillers skipped; None if there is none.

    >>> extract_answer("7 + 5 = 2 ; <ans> w03 2 <eos>"), extract_answer("<ans> ;")
    ('2', None)
    """
    return world.stated(response, FILLERS)


def grade(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """1.0 for each response that states its prompt's answer exactly, else 0.0."""
    return world.graded(responses, prompts, FILLERS)


def check(params: Params) -> None:
    """Refuse names the tiny world does not have."""
    world.check_names(params, CONTENTS)
    for test_set in params.test_sets:
        held_out_questions(test_set, 0)
