"""A question that somebody types in, answered by a student, with what it and a teacher say of every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opd_lib import tasks
from opd_lib.engine import gates, memory, pair_features, sources, tokens
from opd_lib.engine.model import models
from opd_lib.engine.sampling import rollout
from opd_lib.maths import sampling
from opd_lib.types import Prompt

if TYPE_CHECKING:
    from opd_lib.params.schema import RunParams

ASKED = "asked"
"""Stands where a test set's name stands for the problems of a run."""


@dataclass(frozen=True, slots=True)
class Question:
    """What was typed in; nobody knows its answer."""

    text: str
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the student answers: tokens at most, temperature, nucleus, and a seed of its random numbers."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


def prepare(student: sources.Model, teacher: sources.Model) -> None:
    """Make a pair ready to be asked. Raises ValueError for tokenizers that differ or cannot put a question."""
    pair_features.prepare(student, teacher)
    gates.same_end(student, teacher)


def put(params: RunParams, student: sources.Model, text: str) -> Prompt:
    """The prompt of a question: in the task's own words and template, or to models of other tokens as a plain message.

    Raises ValueError for words that a tiny world does not have.
    """
    kind = tasks.load(params.task.name)
    own = kind.world is None or pair_features.is_of_the_world(student, params.task.name)
    if own and kind.world is not None and (unknown := [word for word in text.split() if word not in kind.world.words]):
        example = kind.test(params.task, params.task.test_sets[0], 1)[0].text
        raise ValueError(f"{unknown[0]!r} is no word of this model's world; ask for example: {example}")
    question = kind.typed(params.task, text) if kind.typed else Question(text)
    asked = kind.messages(question, params.task.test_template) if own else [{"role": "user", "content": text}]
    chat = tuple((message["role"], message["content"]) for message in asked)
    (rendered,), (ids,) = sources.render(student[1], params.task, [chat])
    return Prompt(id=text, source=ASKED, question=text, rendered=rendered, token_ids=tuple(ids), answer="", chat=chat)


def answer(params: RunParams, student: sources.Model, teacher: sources.Model, text: str, manner: Manner) -> tokens.Row:
    """The student's answer as a row of `tokens.jsonl`: words, and what both say of each (nats; lists: probabilities).

    `reward` is null. Raises ValueError as `put`, and for more tokens than the student's context has.
    """
    prompt = put(params, student, text)
    uniform_BT = sampling.uniform((1, manner.max_new_tokens), models.generator(manner.seed, "talk"))
    rollouts = rollout.sample(*student, [prompt], uniform_BT, manner.temperature, manner.top_p)
    words = student[1].convert_ids_to_tokens(list(range(len(student[1]))))
    limits = tokens.Limits(
        k=min(max(tokens.LISTED, tokens.OVERLAP_K), len(words)),
        micro_tokens=len(prompt.token_ids) + manner.max_new_tokens,
        chunk=memory.chunk(params.machine, len(words)),
    )
    (row,) = tokens.opinions((student[0], teacher[0]), words, rollouts, limits)
    return row | {"reward": None}
