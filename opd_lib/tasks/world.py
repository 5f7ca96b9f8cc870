"""What both editions of the tiny world share: words, the chat, how questions are dealt and answers read, fillers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from opd_lib.types import Prompt

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
DIGITS = tuple("0123456789")
TEMPLATES = tuple(f"T{i}" for i in range(1, 9))
CHAT_TEMPLATE = (
    "{{ bos_token }} {% for message in messages %}"
    "{% if message.role == 'user' %}<q> {{ message.content }} <a>{% else %}{{ message.content }} {% endif %}"
    "{% endfor %}"
)
N_PARTS = 8
"""Questions are dealt by hash: part 0 is held out, 1–4 are chain-a, 5–7 chain-b (and chain-long, second edition)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The tokens of models that are trained from nothing: a word's token id is its place in `words`.

    `templates`: the words that a question may be put behind.
    """

    words: tuple[str, ...]
    pad: str = PAD
    bos: str = BOS
    eos: str = EOS
    unknown: str = UNKNOWN
    chat_template: str = CHAT_TEMPLATE
    templates: tuple[str, ...] = TEMPLATES


class Asked(Protocol):
    """What a question has that this file reads."""

    @property
    def text(self) -> str: ...


Question = TypeVar("Question", bound=Asked)


def part(text: str) -> int:
    """Where the hash deals a question: the same on every machine, whatever the seed."""
    return hashlib.blake2b(text.encode(), digest_size=4).digest()[0] % N_PARTS


def training(
    params: Any, n: int, seed: int, step: int, draw: Callable[[str, random.Random], Question]
) -> list[Question]:
    """The n questions of a step, each with probability `other_share` of the other content; `draw`: one of a content."""
    rng = random.Random(f"{seed}/prompts/{step}")
    is_other = [params.other_share > 0 and rng.random() < params.other_share for _ in range(n)]
    return [draw(params.other_content if other else params.content, rng) for other in is_other]


def held_out(test_set: str, n: int, longest: int, draw: Callable[[int, random.Random], Question]) -> list[Question]:
    """The first n questions of a test set `chain-N`, all different; `draw`: one of N operations.

    Raises ValueError unless 3 ≤ N ≤ `longest`.
    """
    name, _, length = test_set.partition("-")
    if name != "chain" or length not in map(str, range(3, longest + 1)):
        raise ValueError(
            f"task.test_sets: {test_set!r} is not a test set; write chain-N, 3 ≤ N ≤ {longest}, e.g. chain-4"
        )
    rng = random.Random(f"test/{test_set}")
    questions: dict[str, Question] = {}
    while len(questions) < n:
        question = draw(int(length), rng)
        questions.setdefault(question.text, question)
    return list(questions.values())


def messages(question: Asked, template: str) -> list[dict[str, str]]:
    """The chat a question is put as: the template token as system message, the question as user message."""
    return [{"role": "system", "content": template}, {"role": "user", "content": question.text}]


def chat_options(params: Any) -> dict[str, Any]:
    """The tiny world's chat template takes no options."""
    return {}


def stated(response: str, fillers: Collection[str]) -> str | None:
    """The digit after the last `<ans>`, fillers skipped; None if there is none."""
    words = behind_answer(response, fillers)
    return words[0] if words and words[0] in DIGITS else None


def behind_answer(response: str, fillers: Collection[str]) -> list[str]:
    """The words after the last `<ans>`, fillers skipped; none if it is not there."""
    _, marker, tail = response.rpartition("<ans>")
    return [word for word in tail.split() if word not in fillers] if marker else []


def graded(responses: Sequence[str], prompts: Sequence[Prompt], fillers: Collection[str]) -> list[float]:
    """1.0 for each response that states its prompt's answer exactly, else 0.0."""
    pairs = zip(responses, prompts, strict=True)
    return [float(stated(response, fillers) == prompt.answer) for response, prompt in pairs]


def check_names(params: Any, contents: Collection[str]) -> None:
    """Raise ValueError for a content or a template that the tiny world does not have."""
    known_of = {"content": contents, "other_content": contents, "template": TEMPLATES, "test_template": TEMPLATES}
    for key, known in known_of.items():
        if (value := getattr(params, key)) not in known:
            raise ValueError(f"task.{key}: {value!r} is unknown; choose from {', '.join(known)}")


def filler_weights(n: int, pattern: str, offset: float) -> list[float]:
    """Weights of n fillers, 1 / (rank + offset). Pattern B keeps every second rank and reverses the others."""
    weights = [1.0 / (rank + offset) for rank in range(n)]
    if pattern == "A":
        return weights
    swapped = list(weights)
    swapped[1::2] = weights[1::2][::-1]
    return swapped


def strewn(
    words: Sequence[str], probability: float, fillers: Sequence[str], weights: Sequence[float], rng: random.Random
) -> list[str]:
    """The words, each with this probability behind a filler."""
    found = []
    for word in words:
        if rng.random() < probability:
            found += rng.choices(fillers, weights)
        found.append(word)
    return found
