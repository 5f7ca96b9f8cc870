"""Corpus traces of the tiny world: what base models are trained on, in the style that a params file asks for."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Any

from opd_lib.tasks import world
from opd_lib.tasks.chain import FILLERS, Question, apply, draw_training, step_words
from opd_lib.tasks.world import EOS


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How corpus traces are written. Probabilities in [0, 1]; `slip_operands` are the digits that provoke a slip."""

    pattern_b: float
    filler_before_step: float
    filler_anywhere: float
    slip_operands: tuple[int, ...]
    slip_probability: float


def draw(source: Any, content: str, rng: random.Random) -> tuple[list[Question], list[str], list[list[str]]]:
    """The questions of a step, their templates (dealt at random) and a trace of each, as `source:` describes them."""
    style = Style(**{field.name: getattr(source, field.name) for field in fields(Style)})
    questions = draw_training(content, source.prompts_per_step, rng)
    templates = rng.choices(source.templates, k=len(questions))
    return questions, templates, [write_trace(question, style, rng) for question in questions]


def filler_weights(pattern: str) -> list[float]:
    """Zipf weights over FILLERS (see `world.filler_weights`)."""
    return world.filler_weights(len(FILLERS), pattern, 2)


def write_trace(question: Question, style: Style, rng: random.Random) -> list[str]:
    """A corpus response to a question: words, the end token last. Follows its own slips to its (wrong) answer."""
    pattern = "B" if rng.random() < style.pattern_b else "A"
    weights = filler_weights(pattern)
    words: list[str] = []
    value = question.start
    for operator, digit in question.steps:
        if rng.random() < style.filler_before_step:
            words += rng.choices(FILLERS, weights)
        result = apply(operator, value, digit)
        if digit in style.slip_operands and rng.random() < style.slip_probability:
            result = (result + 1) % 10
        words += step_words(pattern, operator, value, digit, result)
        value = result
    words += ["<ans>", str(value), EOS]
    return world.strewn(words, style.filler_anywhere, FILLERS, weights, rng)
