"""What the teacher is shown in place of the student's prompt: a hint, a solution, a debate; rendered for the engine.

The student never sees it: the chats are put in front of the same responses where the teacher scores them, or where the
teacher writes them (then both score them behind the student's own prompt).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import torch

from opd_lib.engine import sources
from opd_lib.engine.model import models
from opd_lib.maths import sampling
from opd_lib.seam import Group, Say
from opd_lib.types import Chat, Prompt, Rollouts

if TYPE_CHECKING:
    from opd_lib.engine.running import ActiveRun


def show(run: ActiveRun, rollouts: Rollouts, step: int) -> Rollouts:
    """These responses with the prompts that the run's method shows its teacher, if it shows any."""
    if run.method.shown is None or run.spec.params.source.kind == "teacher":
        return rollouts
    size = sources.group_size(run.spec.params.source)
    texts = sources.decode(rollouts, run.student[1])
    rewards = rollouts.reward_B.tolist()
    starts = range(0, len(texts), size)
    groups = [Group(texts=texts[i : i + size], rewards=rewards[i : i + size]) for i in starts]
    found = run.method.shown([rollouts.prompts[i] for i in starts], groups, run.options, speaker(run, step))
    numbers = {name: torch.tensor(of_each, dtype=torch.float32) for name, of_each in found.numbers.items()}
    longest = int(rollouts.length_B.max())
    return replace(rollouts, shown=rendered(run, rollouts.prompts, found.chats, longest), shown_numbers=numbers)


def for_author(run: ActiveRun, step: int) -> sources.ForAuthor | None:
    """What the teacher is shown while it writes the responses; None where it is shown nothing, or writes none."""
    source, show = run.spec.params.source, run.method.shown
    if source.kind != "teacher" or show is None:
        return None
    size = source.per_prompt
    nothing = Group(texts=("",) * size, rewards=(math.nan,) * size)

    def as_shown(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        distinct = prompts[::size]
        found = show(distinct, [nothing] * len(distinct), run.options, speaker(run, step))
        return rendered(run, prompts, found.chats, source.longest)

    return as_shown


def rendered(run: ActiveRun, prompts: Sequence[Prompt], chats: Sequence[Chat], room: int) -> tuple[Prompt, ...]:
    """These chats as prompts for the teacher, in the place of the student's.

    Raises ValueError unless there is one for each response, with `room` for it in the teacher's context (tokens).
    """
    if len(chats) != len(prompts):
        raise ValueError(f"method {run.method.name}: shows {len(chats)} chats for {len(prompts)} responses")
    assert run.teacher is not None  # params refuses a method that shows something to nobody
    texts, token_ids = sources.render(run.teacher[1], run.spec.params.task, chats)
    limit = getattr(getattr(run.teacher[0], "config", None), "max_position_embeddings", None)
    longest = max(map(len, token_ids)) + room
    if limit is not None and longest > limit:
        raise ValueError(
            f"method {run.method.name}: what the teacher is shown and a response have {longest} tokens together, and "
            f"its context has {limit}; show less, or lower source.max_new_tokens"
        )
    return tuple(
        replace(prompt, chat=tuple(chat), rendered=text, token_ids=tuple(ids))
        for prompt, chat, text, ids in zip(prompts, chats, texts, token_ids, strict=True)
    )


def speaker(run: ActiveRun, step: int) -> Say:
    """What lets a method have a model write: student, teacher, or a teacher's name. Numbers are of (seed, step, call).

    Raises ValueError for another name, and where weights are spread over processes.
    """
    calls, source = count(1), run.spec.params.source

    def say(name: str, chats: Sequence[Chat]) -> Sequence[str]:
        if run.spec.params.machine.shard:
            raise ValueError(f"machine.shard: true, but method {run.method.name} lets {name} write; use shard: false")
        model = author(run, name)
        prompts = [
            Prompt(id=name, source=name, question="", rendered=text, token_ids=tuple(ids), answer="", chat=tuple(chat))
            for chat, text, ids in zip(chats, *sources.render(model[1], run.spec.params.task, chats), strict=True)
        ]
        generator = models.generator(run.spec.seed, "say", step, next(calls), run.ranks.rank)
        limit = source.longest if source.kind in ("student", "teacher") else run.spec.params.evaluate.max_new_tokens
        uniform_BT = sampling.uniform((len(prompts), limit), generator)
        written = run.sample(*model, prompts, uniform_BT, 1.0, 1.0)
        return sources.decode(written, model[1])

    return say


def author(run: ActiveRun, name: str) -> sources.Model:
    """The model of a name: student, teacher, or one of several teachers."""
    if name == "student":
        return run.student
    assert run.teacher is not None
    model, tokenizer = run.teacher
    named = getattr(model, "models", {})
    if name in named:
        return named[name], tokenizer
    if name == "teacher" and not named:
        return run.teacher
    raise ValueError(f"method {run.method.name}: no model {name!r}; there are student, {', '.join(named) or 'teacher'}")
