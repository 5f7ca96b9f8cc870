"""Corpus traces of labelled chains: what models of the tiny world are trained on, as a params file describes it.

A *slip* is a systematic error: a step whose operand is one of a few digits is off by one, nearly always; steps of `~`
have none. All sizes learn it; reinforcement learning can remove it. A *re-check* says a result again behind `wait`, and
then slips less: the last value counts. How often a trace re-checks is drawn once, so that responses differ in length.
*Fillers* stand before a step, and rarely before any word: they give every position a learned tail, so that the top 16
of 256 tokens mean something.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from opd_lib.tasks import world
from opd_lib.tasks.labelled import draw_training
from opd_lib.tasks.labelled_questions import STOPS, Operation, Question, step
from opd_lib.tasks.labelled_words import FILLERS, LABELS
from opd_lib.tasks.world import EOS


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How traces are written. Probabilities in [0, 1].

    `filler_offset`: the larger, the more alike the fillers are in frequency.
    `slip_operands`: the digits that provoke a slip.
    `recheck`: one of these, dealt at random, is the probability of one more re-check at each step of a trace.
    `recheck_slip`: how likely a slip is at a re-check, as a share of `slip_probability`.
    """

    filler_offset: float
    filler_before_step: float
    filler_anywhere: float
    slip_operands: tuple[int, ...]
    slip_probability: float
    recheck: tuple[float, ...]
    recheck_slip: float


def draw(source: Any, content: str, rng: random.Random) -> tuple[list[Question], list[str], list[list[str]]]:
    """The questions of a step, their templates (dealt at random) and a trace of each, as `source:` describes them."""
    style = Style(**{field.name: getattr(source, field.name) for field in fields(Style)})
    questions = draw_training(content, source.prompts_per_step, rng, source.operator_weights)
    templates = rng.choices(sorted(source.pattern_b), k=len(questions))
    patterns = ["B" if rng.random() < source.pattern_b[template] else "A" for template in templates]
    traces = [write_trace(each, pattern, style, rng) for each, pattern in zip(questions, patterns, strict=True)]
    return questions, templates, traces


@cache
def filler_weights(pattern: str, offset: float) -> list[float]:
    """Weights over FILLERS (see `world.filler_weights`)."""
    return world.filler_weights(len(FILLERS), pattern, offset)


def write_trace(question: Question, pattern: str, style: Style, rng: random.Random) -> list[str]:
    """A corpus response to a question: words, the end token last. Follows its own slips to its (wrong) answer."""
    recheck = rng.choice(style.recheck)
    weights = filler_weights(pattern, style.filler_offset)
    words, value = write_steps(question, pattern, style, recheck, rng)
    words += ["<ans>", str(value), EOS]
    return world.strewn(words, style.filler_anywhere, FILLERS, weights, rng)


def write_steps(
    question: Question, pattern: str, style: Style, recheck: float, rng: random.Random
) -> tuple[list[str], int]:
    """The words of all steps, and the value that they come to; `recheck`: how likely one more re-check is."""
    weights = filler_weights(pattern, style.filler_offset)
    words: list[str] = []
    value = question.start
    for label, operation in zip(LABELS, question.operations, strict=False):
        if rng.random() < style.filler_before_step:
            words += rng.choices(FILLERS, weights)
        before, written = value, step(pattern, label, operation, value)
        value = _result(operation, before, style, 1.0, rng)
        words += [*written, str(value)]
        while rng.random() < recheck:
            value = _result(operation, before, style, style.recheck_slip, rng)
            words += ["wait", written[-1], str(value)]
        words.append(STOPS[pattern])
    return words, value


def _result(operation: Operation, value: int, style: Style, share: float, rng: random.Random) -> int:
    """The result of a step, or the one after it where an operand provokes a slip."""
    provoked = operation.operator != "~" and operation.digits[0] in style.slip_operands
    slips = provoked and rng.random() < share * style.slip_probability
    return (operation(value) + slips) % 10
