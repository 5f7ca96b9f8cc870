"""What is asked and how it is graded, one file per task: the tiny world (`chain`; `labelled` is its
second edition, `tagged` that with hints, rules and tags), real mathematics (`math`), one's own prompts (`prompts`).

A task module states its `Params`, the keys of `task:` in a params file, and

    training(params, n, seed, step) -> list[Question]     the n questions of a training step (from 1)
    test(params, test_set, n) -> list[Question]           the first n questions of a test set, fewer if it has fewer
    messages(question, template) -> list[dict]            the chat a question is put as
    chat_options(params) -> dict                          further arguments for the tokenizer's chat template
    domain(params, question) -> str                       the content that a training question was drawn from
    extract_answer(response) -> str | None                the answer a response states
    grade(responses, prompts) -> list[float]              1.0 for a right answer, 0.0 otherwise
    grading(params) -> Grading | None                     in place of these two where the params say how; None:
                                                          nothing is graded, and rewards are NaN
    prepare(params)                                       optional: read what the questions come from; whatever is wrong
                                                          there is refused before a model is loaded (ValueError)
    typed(params, text) -> Question                       optional: the question of a text that somebody types in
    respond(question, text) -> str | None                 optional, with CALL: what a tool answers to a response that
                                                          ends with that word
    sound(prompt, text) -> bool                           optional: whether a response that has begun is right so far
    check(params)                                         refuse names the task does not have (ValueError)
    WORLD, longest_prompt(params) -> (int, int)           of a task whose models are trained from nothing on a corpus:
                                                          their tokens; tokens of the longest training and test prompt

A question has `text` (what is asked, without instructions), `answer` and `id`. Whatever a task draws depends on
(params, seed, step) alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from opd_lib.tasks.world import World
from opd_lib.types import Prompt

NAMES = ("chain", "labelled", "math", "prompts", "tagged", "tool")
CORPORA = {
    "corpus": ("chain", "traces"),
    "traces": ("labelled", "labelled_traces"),
    "tagged": ("tagged", "tagged_traces"),
}
"""source.kind → the task whose questions a corpus answers, and the module that writes it."""


class Question(Protocol):
    """What every task's questions offer."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def answer(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """How responses are graded: the answer that one states, and 1.0 for each that is right, 0.0 otherwise."""

    extract_answer: Callable[[str], str | None]
    grade: Callable[[Sequence[str], Sequence[Prompt]], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a task module offers."""

    name: str
    training: Callable[[Any, int, int, int], Sequence[Question]]
    test: Callable[[Any, str, int], Sequence[Question]]
    messages: Callable[[Any, str], list[dict[str, str]]]
    chat_options: Callable[[Any], dict[str, Any]]
    domain: Callable[[Any, Any], str]
    grading: Callable[[Any], Grading | None]
    check: Callable[[Any], None]
    prepare: Callable[[Any], None] | None
    typed: Callable[[Any, str], Question] | None
    respond: Callable[[str, str], str | None] | None
    call: str
    sound: Callable[[Prompt, str], bool] | None
    world: World | None
    longest_prompt: Callable[[Any], tuple[int, int]] | None


def load(name: str) -> Task:
    """The task of a file's name. Raises ValueError listing the names there are."""
    if name not in NAMES:
        raise ValueError(f"task.name: {name!r} is unknown; choose from {', '.join(NAMES)}")
    module = import_module(f"{__name__}.{name}")
    parts = ("training", "test", "messages", "chat_options", "domain", "check")

    def one_way(params: Any) -> Grading:
        return Grading(extract_answer=module.extract_answer, grade=module.grade)

    return Task(
        name=name,
        grading=getattr(module, "grading", one_way),
        prepare=getattr(module, "prepare", None),
        typed=getattr(module, "typed", None),
        respond=getattr(module, "respond", None),
        call=getattr(module, "CALL", ""),
        sound=getattr(module, "sound", None),
        world=getattr(module, "WORLD", None),
        longest_prompt=getattr(module, "longest_prompt", None),
        **{part: getattr(module, part) for part in parts},
    )


def grading(params: Any) -> Grading | None:
    """How responses are graded under these keys of `task:`; None where nothing is."""
    return load(params.name).grading(params)


def corpus(source: Any, content: str, rng: random.Random) -> tuple[list[Any], list[str], list[list[str]]]:
    """What a corpus (`source:` of a params file) holds at a step: questions, their templates, responses in words."""
    _, module = CORPORA[source.kind]
    found: tuple[list[Any], list[str], list[list[str]]]
    found = import_module(f"{__name__}.{module}").draw(source, content, rng)
    return found
