"""The tiny world, second edition: chains of labelled operations modulo 10, reasoned aloud in one of two patterns.

    prompt      <bos> T1 <q> 7 s1 + 5 s2 ~ 3 4 <a>                          (a template token, a start, the operations)
    pattern A   s1 7 + 5 = 3 wait = 2 ; s2 2 ~ 3 4 = 0 ; <ans> 0 <eos>      (a slip, a re-check)
    pattern B   take s1 7 plus 5 get 2 . take s2 2 twist 3 4 get 0 . <ans> 0 <eos>

A step names the operation that it carries out, so that a chain is followed by looking up what stands behind a label.
`v ~ b c` is (v·b + c) mod 10: two digits at once, which a small model hardly learns. What a corpus makes of a chain,
with slips, re-checks and fillers, stands in `labelled_traces`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.tasks.world import World
from opd_lib.types import Prompt

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
DIGITS = tuple("0123456789")
OPERATORS = ("+", "-", "*", "~")
SPOKEN = {"+": "plus", "-": "minus", "*": "times", "~": "twist"}
LABELS = tuple(f"s{i}" for i in range(1, 17))
TEMPLATES = tuple(f"T{i}" for i in range(1, 9))
TAGS = (
    *("<think>", "</think>", "<brief>", "<hint>", "</hint>", "<rule>", "<safe>", "<unsafe>", "<refuse>"),
    *("<call>", "</call>", "<result>", "</result>", *(f"<style{i}>" for i in range(1, 9))),
)
"""For tasks on this tokenizer: a hint or a rule is shown, a style asked for, thinking, refusing, calling a tool. No
chain has one."""
SPARE = tuple(f"<spare{i}>" for i in range(1, 17))
_SAID = (
    *(PAD, BOS, EOS, UNKNOWN, "<q>", "<a>", "<ans>"),
    *DIGITS, *OPERATORS, "=", ";", "wait", "take", *SPOKEN.values(), "get", ".", *LABELS, *TEMPLATES, *TAGS, *SPARE,
)  # fmt: skip
FILLERS = tuple(f"w{i:03d}" for i in range(256 - len(_SAID)))
VOCABULARY = _SAID + FILLERS
CHAT_TEMPLATE = (
    "{{ bos_token }} {% for message in messages %}"
    "{% if message.role == 'user' %}<q> {{ message.content }} <a>{% else %}{{ message.content }} {% endif %}"
    "{% endfor %}"
)
WORLD = World(
    words=VOCABULARY,
    pad=PAD,
    bos=BOS,
    eos=EOS,
    unknown=UNKNOWN,
    chat_template=CHAT_TEMPLATE,
    templates=TEMPLATES,
)

N_PARTS = 8  # questions are dealt by hash: part 0 is held out, 1–4 are chain-a, 5–7 chain-b and chain-long
ASKED = (1.0, 1.0, 1.0, 1.5)
"""How often each operator comes where questions are asked: in tests, in reinforcement learning, in distillation."""


class Params(BaseModel):
    """What is asked: training content and template, test sets and their template.

    A share `other_share` of the training prompts (chosen at random) comes from `other_content`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    name: Literal["labelled"]
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


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its digits: one, two for `~`."""

    operator: str
    digits: tuple[int, ...]

    def __call__(self, value: int) -> int:
        """The result, modulo 10.

        >>> Operation("-", (5,))(2), Operation("~", (3, 4))(2)
        (7, 0)
        """
        first = self.digits[0]
        match self.operator:
            case "+":
                return (value + first) % 10
            case "-":
                return (value - first) % 10
            case "*":
                return value * first % 10
        return (value * first + self.digits[1]) % 10

    @property
    def words(self) -> list[str]:
        """The operator, then its digits."""
        return [self.operator, *map(str, self.digits)]


@dataclass(frozen=True, slots=True)
class Question:
    """A start digit and operations on it."""

    start: int
    operations: tuple[Operation, ...]

    @property
    def id(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        asked = zip(LABELS, self.operations, strict=False)
        return " ".join([str(self.start), *(word for label, each in asked for word in (label, *each.words))])

    @property
    def values(self) -> list[int]:
        """The start and the result of each operation."""
        values = [self.start]
        for operation in self.operations:
            values.append(operation(values[-1]))
        return values

    @property
    def answer(self) -> str:
        return str(self.values[-1])

    @property
    def solution(self) -> str:
        """The steps without a slip in pattern A, and the answer."""
        words = [
            word
            for label, operation, value in zip(LABELS, self.operations, self.values, strict=False)
            for word in (*step("A", label, operation, value), str(operation(value)), STOPS["A"])
        ]
        return " ".join([*words, "<ans>", self.answer])

    @property
    def part(self) -> int:
        """Where the hash deals this question: the same on every machine, whatever the seed."""
        return hashlib.blake2b(self.text.encode(), digest_size=4).digest()[0] % N_PARTS


STOPS = {"A": ";", "B": "."}
"""What ends a step of a pattern."""


def step(pattern: str, label: str, operation: Operation, value: int) -> list[str]:
    """A step up to its result, in a pattern's syntax.

    >>> " ".join(step("A", "s2", Operation("~", (3, 4)), 2)), " ".join(step("B", "s1", Operation("+", (5,)), 7))
    ('s2 2 ~ 3 4 =', 'take s1 7 plus 5 get')
    """
    digits = [str(digit) for digit in operation.digits]
    if pattern == "A":
        return [label, str(value), operation.operator, *digits, "="]
    return ["take", label, str(value), SPOKEN[operation.operator], *digits, "get"]


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


def draw_training(content: str, n: int, rng: random.Random, weights: Sequence[float] = ASKED) -> list[Question]:
    """n training questions of a named content. Never one of the test questions."""
    if content not in CONTENTS:
        raise ValueError(f"task.content: {content!r} is not a content set; choose from {', '.join(CONTENTS)}")
    return [draw_question(CONTENTS[content], weights, rng) for _ in range(n)]


def training(params: Params, n: int, seed: int, step: int) -> list[Question]:
    """The n questions of a step, each with probability `other_share` of the other content."""
    rng = random.Random(f"{seed}/prompts/{step}")
    is_other = [params.other_share > 0 and rng.random() < params.other_share for _ in range(n)]
    contents = [params.other_content if other else params.content for other in is_other]
    return [question for name in contents for question in draw_training(name, 1, rng)]


def test(params: Params, test_set: str, n: int) -> list[Question]:
    """The first n questions of a test set, the same whatever the parameters and the seed."""
    return held_out_questions(test_set, n)


def held_out_questions(test_set: str, n: int) -> list[Question]:
    """The first n questions of a test set, e.g. `chain-4`: chains of 4 operations, fixed whatever the seed."""
    name, _, length = test_set.partition("-")
    if name != "chain" or length not in map(str, range(3, len(LABELS) + 1)):
        raise ValueError(
            f"task.test_sets: {test_set!r} is not a test set; write chain-N, 3 ≤ N ≤ {len(LABELS)}, e.g. chain-4"
        )
    held_out = Content(parts=frozenset({0}), lengths=(int(length),))
    rng = random.Random(f"test/{test_set}")
    questions: dict[str, Question] = {}
    while len(questions) < n:
        question = draw_question(held_out, ASKED, rng)
        questions.setdefault(question.text, question)
    return list(questions.values())


def messages(question: Question, template: str) -> list[dict[str, str]]:
    """The chat a question is put as: the template token as system message, the question as user message."""
    return [{"role": "system", "content": template}, {"role": "user", "content": question.text}]


def chat_options(params: Params) -> dict[str, Any]:
    """The tiny world's chat template takes no options."""
    return {}


def domain(params: Params, question: Question) -> str:
    """The content that a training question was drawn from: its hash and its length tell which has it."""
    own = CONTENTS[params.content]
    return (
        params.content
        if question.part in own.parts and len(question.operations) in own.lengths
        else (params.other_content)
    )


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
    _, marker, tail = response.rpartition("<ans>")
    words = [word for word in tail.split() if word not in _FILLERS]
    return words[0] if marker and words and words[0] in DIGITS else None


def grade(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """1.0 for each response that states its prompt's answer exactly, else 0.0."""
    return [float(extract_answer(text) == prompt.answer) for text, prompt in zip(responses, prompts, strict=True)]


def check(params: Params) -> None:
    """Refuse names the tiny world does not have."""
    for key, value, known in [
        ("content", params.content, tuple(CONTENTS)),
        ("other_content", params.other_content, tuple(CONTENTS)),
        ("template", params.template, TEMPLATES),
        ("test_template", params.test_template, TEMPLATES),
    ]:
        if value not in known:
            raise ValueError(f"task.{key}: {value!r} is unknown; choose from {', '.join(known)}")
    for test_set in params.test_sets:
        held_out_questions(test_set, 0)


_FILLERS = frozenset(FILLERS)
