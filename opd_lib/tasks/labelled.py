"""The tiny world, second edition: chains of labelled operations modulo 10, reasoned aloud in one of two patterns.

    prompt      <bos> T1 <q> 7 s1 + 5 s2 ~ 3 4 <a>                          (a template token, a start, the operations)
    pattern A   s1 7 + 5 = 3 wait = 2 ; s2 2 ~ 3 4 = 0 ; <ans> 0 <eos>      (a slip, a re-check)
    pattern B   take s1 7 plus 5 get 2 . take s2 2 twist 3 4 get 0 . <ans> 0 <eos>

A step names the operation that it carries out, so that a chain is followed by looking up what stands behind a label.
`v ~ b c` is (v·b + c) mod 10: two digits at once, which a small model hardly learns. What a corpus makes of a chain,
with slips, re-checks and fillers, stands in `labelled_traces`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from opd_lib.tasks import world
from opd_lib.tasks.labelled_questions import Operation, Question
from opd_lib.tasks.labelled_words import FILLERS, LABELS, OPERATORS
from opd_lib.tasks.labelled_words import WORLD as WORLD
from opd_lib.tasks.world import chat_options as chat_options
from opd_lib.tasks.world import messages as messages
from opd_lib.types import Prompt

Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Weights = Annotated[
    tuple[Weight, Weight, Weight, Weight], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
]
"""How often each of the OPERATORS comes, relatively."""


class Params(BaseModel):
    """What is asked: training content and template, test sets and their template.

    A share `other_share` of the training prompts (chosen at random) comes from `other_content`. `operator_weights`: how
    often +, −, * and ~ come in what is asked: in tests, in reinforcement learning, in distillation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    name: Literal["labelled"]
    operator_weights: Weights
    content: str
    other_content: str
    other_share: Annotated[float, Field(ge=0.0, le=1.0)]
    template: str
    test_sets: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    test_template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A training set: which parts of the question space, and how long the chains are (operations)."""

    parts: frozenset[int]
    lengths: tuple[int, ...]


CONTENTS = {
    "chain-a": Content(parts=frozenset({1, 2, 3, 4}), lengths=(2, 3, 4, 5)),
    "chain-b": Content(parts=frozenset({5, 6, 7}), lengths=(2, 3, 4, 5)),
    "chain-long": Content(parts=frozenset({5, 6, 7}), lengths=tuple(range(10, 15))),
    "chain-all": Content(parts=frozenset(range(1, 8)), lengths=(2, 3, 4, 5)),
}


def draw_question(content: Content, weights: Sequence[float], rng: random.Random) -> Question:
    """A question of this content, operators so often: drawn until its hash falls into the content's parts."""
    while True:
        operators = rng.choices(OPERATORS, weights, k=rng.choice(content.lengths))
        operations = tuple(
            Operation(operator, tuple(rng.randrange(10) for _ in range(2 if operator == "~" else 1)))
            for operator in operators
        )
        question = Question(rng.randrange(10), operations)
        if question.part in content.parts:
            return question


def draw_training(content: str, n: int, rng: random.Random, weights: Sequence[float]) -> list[Question]:
    """n training questions of a named content. Never one of the test questions."""
    if content not in CONTENTS:
        raise ValueError(f"task.content: {content!r} is not a content set; choose from {', '.join(CONTENTS)}")
    return [draw_question(CONTENTS[content], weights, rng) for _ in range(n)]


def training(params: Params, n: int, seed: int, step: int) -> list[Question]:
    """The n questions of a step, each with probability `other_share` of the other content."""
    weights = params.operator_weights
    return world.training(params, n, seed, step, lambda content, rng: draw_training(content, 1, rng, weights)[0])


def test(params: Params, test_set: str, n: int) -> list[Question]:
    """The first n questions of a test set, the same whatever the seed."""
    return held_out_questions(test_set, n, params.operator_weights)


def held_out_questions(test_set: str, n: int, weights: Sequence[float]) -> list[Question]:
    """The first n questions of a test set, e.g. `chain-4`: chains of 4 operations, fixed whatever the seed."""

    def draw(length: int, rng: random.Random) -> Question:
        return draw_question(Content(parts=frozenset({0}), lengths=(length,)), weights, rng)

    return world.held_out(test_set, n, len(LABELS), draw)


def domain(params: Params, question: Question) -> str:
    """The content that a training question was drawn from: its hash and its length tell which has it."""
    own = CONTENTS[params.content]
    is_own = question.part in own.parts and len(question.operations) in own.lengths
    return params.content if is_own else params.other_content


def longest_prompt(params: Params) -> tuple[int, int]:
    """Tokens of the longest training prompt and of the longest test prompt: four per operation, five around them."""
    contents = [params.content, *([params.other_content] if params.other_share else [])]
    tested = [int(test_set.removeprefix("chain-")) for test_set in params.test_sets]
    return 4 * max(max(CONTENTS[name].lengths) for name in contents) + 5, 4 * max(tested) + 5


def extract_answer(response: str) -> str | None:
    """The digit after the last `<ans>`, fillers skipped; None if there is none.

    >>> extract_answer("s1 7 + 5 = 2 ; <ans> w003 2 <eos>"), extract_answer("<ans> ;")
    ('2', None)
    """
    return world.stated(response, _FILLERS)


def grade(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """1.0 for each response that states its prompt's answer exactly, else 0.0."""
    return world.graded(responses, prompts, _FILLERS)


def sound(prompt: Prompt, text: str) -> bool:
    """Whether what a response says so far is right: the last value that each of its steps has come to.

    >>> prompt = Prompt(id="", source="", question="", rendered="", token_ids=(), answer="0",
    ...                 solution="s1 7 + 5 = 2 ; s2 2 ~ 3 4 = 0 ; <ans> 0")
    >>> [sound(prompt, text) for text in ("", "s1 7 + 5 = 3 wait = 2 ; s2 2 ~", "take s1 7 plus 5 get 3 .", "<ans> 1")]
    [True, True, False, False]
    """
    said, right = values_said(text), values_said(prompt.solution)
    return all(right.get(label) == value for label, value in said.items())


def values_said(text: str) -> dict[str, str]:
    """Label → the last value that its step comes to; `<ans>` → the answer."""
    found: dict[str, str] = {}
    label, is_next = "", False
    for word in text.split():
        if word in LABELS or word == "<ans>":
            label, is_next = word, word == "<ans>"
        elif word in ("=", "get"):
            is_next = True
        elif is_next and word not in _FILLERS:
            found[label], is_next = word, False
    return found


def require_operators(weights: Sequence[float], where: str) -> None:
    """Raise ValueError, naming the key, if no operator comes."""
    if not any(weights):
        raise ValueError(f"{where}: all are 0, so there is no operator; give one a weight")


def check(params: Params) -> None:
    """Refuse names the tiny world does not have, and operators of which none comes."""
    require_operators(params.operator_weights, "task.operator_weights")
    world.check_names(params, CONTENTS)
    for test_set in params.test_sets:
        held_out_questions(test_set, 0, params.operator_weights)


_FILLERS = frozenset(FILLERS)
