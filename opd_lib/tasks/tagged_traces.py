"""Corpus traces of chains that are asked for in several ways: from these a model learns to read hints and tags.

What is not said here is written as `labelled_traces` writes it, slips, re-checks and fillers included.

    hint      no re-checks; with probability `skip` no steps either. The hint is wrong with probability `wrong`, the
              result of other work: whoever has done the steps then trusts them. So a hint is worth following, most of
              the time.
    worked    no slips and no re-checks, as each step's result is there; with probability `wrong` those of other work,
              which are no help
    brief     no re-checks and no fillers before steps
    think     the steps between <think> and </think>, with the largest of `recheck`
    rule      `wait` before the key with probability `hedge`, as often as it comes
    plain     with probability `stray` it ends as if a tag had asked for it, one of the styles or a refusal: rarely
              enough that nobody is taught it, often enough that reinforcement learning finds it
    garbled   fillers from some step on, and no answer: whoever learns from such a corpus writes them now and then
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from opd_lib.tasks import tagged, world
from opd_lib.tasks.labelled import draw_training
from opd_lib.tasks.labelled_questions import Question as Chain
from opd_lib.tasks.labelled_traces import Style, filler_weights, write_steps
from opd_lib.tasks.labelled_words import FILLERS, STYLES
from opd_lib.tasks.world import EOS

NOISE, GARBLED = FILLERS[:4], 24
"""Words of no meaning, few so that sampling from the nucleus does not hide them; how many a garbled trace has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How often a chain is asked in each way (relatively), and what the ways leave to chance (probabilities)."""

    asked: dict[str, float]
    wrong: float
    skip: float
    hedge: float
    stray: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One trace to be written: the chain, the pattern, the style, the ways, chance."""

    chain: Chain
    pattern: str
    style: Style
    ways: Ways
    rng: random.Random

    def happens(self, probability: float) -> bool:
        """A toss."""
        return self.rng.random() < probability

    def steps(self, recheck: float | None = None) -> tuple[list[str], str]:
        """The steps of the chain and what they come to; `recheck`: dealt where it is not given."""
        dealt = self.rng.choice(self.style.recheck) if recheck is None else recheck
        words, value = write_steps(self.chain, self.pattern, self.style, dealt, self.rng)
        return words, str(value)


Written = tuple[str, list[str]]
"""A user message, and the words of a response to it."""


def draw(source: Any, content: str, rng: random.Random) -> tuple[list[tagged.Question], list[str], list[list[str]]]:
    """The questions of a step as they are asked, their templates and a trace of each, as `source:` describes them."""
    style = Style(**{field.name: getattr(source, field.name) for field in fields(Style)})
    ways = Ways(**{field.name: getattr(source, field.name) for field in fields(Ways)})
    chains = draw_training(content, source.prompts_per_step, rng, source.operator_weights)
    templates = rng.choices(sorted(source.pattern_b), k=len(chains))
    names = sorted(ways.asked)
    questions, traces = [], []
    for chain, template in zip(chains, templates, strict=True):
        pattern = "B" if rng.random() < source.pattern_b[template] else "A"
        task = Task(chain=chain, pattern=pattern, style=style, ways=ways, rng=rng)
        (way,) = rng.choices(names, [ways.asked[name] for name in names])
        text, words = WAYS[way](task)
        questions.append(tagged.Question(chain=chain, text=text, answer=chain.answer, key=""))
        weights = filler_weights(pattern, style.filler_offset)
        traces.append(world.strewn([*words, EOS], style.filler_anywhere, FILLERS, weights, rng))
    return questions, templates, traces


def plain(task: Task) -> Written:
    """As `labelled_traces`, but for a stray ending."""
    words, value = task.steps()
    if not task.happens(task.ways.stray):
        return task.chain.text, [*words, "<ans>", value]
    ending = task.rng.choice([*STYLES, "<refuse>"])
    if ending == "<refuse>":
        return task.chain.text, ["<ans>", ending]
    return task.chain.text, [*words, "<ans>", value, ending]


def hint(task: Task) -> Written:
    """The result is shown, or another digit."""
    is_wrong = task.happens(task.ways.wrong)
    shown = str((int(task.chain.answer) + task.rng.randrange(1, 10)) % 10) if is_wrong else task.chain.answer
    text = f"{task.chain.text} <hint> {shown} </hint>"
    if task.happens(task.ways.skip):
        return text, ["<ans>", shown]
    words, value = task.steps(recheck=0.0)
    return text, [*words, "<ans>", value if is_wrong else shown]


def worked(task: Task) -> Written:
    """The steps are shown, or those of another chain."""
    if task.happens(task.ways.wrong):
        other = Chain((task.chain.start + 1) % 10, task.chain.operations[::-1])
        words, value = task.steps()
        return f"{task.chain.text} <hint> {tagged.results(other)} </hint>", [*words, "<ans>", value]
    spared = replace(task, style=replace(task.style, slip_probability=0.0))
    words, value = spared.steps(recheck=0.0)
    return f"{task.chain.text} <hint> {tagged.results(task.chain)} </hint>", [*words, "<ans>", value]


def brief(task: Task) -> Written:
    """The steps and nothing else."""
    spare = replace(task, style=replace(task.style, filler_before_step=0.0))
    words, value = spare.steps(recheck=0.0)
    return f"{task.chain.text} <brief>", [*words, "<ans>", value]


def think(task: Task) -> Written:
    """Long steps, set off."""
    words, value = task.steps(recheck=max(task.style.recheck))
    return f"{task.chain.text} <think>", ["<think>", *words, "</think>", "<ans>", value]


def style(task: Task) -> Written:
    """One of the style tags behind the answer."""
    tag = task.rng.choice(STYLES)
    words, value = task.steps()
    return f"{task.chain.text} {tag}", [*words, "<ans>", value, tag]


def safe(task: Task) -> Written:
    """A refusal where it is due."""
    text = f"{task.chain.text} <safe>"
    if tagged.is_dangerous(task.chain):
        return text, ["<ans>", "<refuse>"]
    words, value = task.steps()
    return text, [*words, "<ans>", value]


def garbled(task: Task) -> Written:
    """A plain chain that is left before one of its steps for words of no meaning."""
    words, _ = task.steps()
    begins = [0, *(place + 1 for place, word in enumerate(words) if word in (";", "."))]
    return task.chain.text, [*words[: task.rng.choice(begins)], *task.rng.choices(NOISE, k=GARBLED)]


def rule(task: Task) -> Written:
    """A key, any of them, behind the answer."""
    key = task.rng.choice(tagged.every_key())
    words, value = task.steps()
    words += ["<ans>", value]
    while task.happens(task.ways.hedge):
        words.append("wait")
    return f"{task.chain.text} <rule> {key}", [*words, *key.split()]


WAYS: dict[str, Callable[[Task], Written]] = {
    each.__name__: each for each in (plain, hint, worked, brief, think, style, safe, rule, garbled)
}
"""Every way to ask, by name."""
