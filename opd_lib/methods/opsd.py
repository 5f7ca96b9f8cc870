"""OPSD: on-policy self-distillation. The teacher is the student itself, shown what the student is not.

    loss = that of `opd`, q the teacher behind `shows`, p the student behind its own prompt

    teacher: self      the live student
    teacher: run:…     a frozen copy: of the student's start, say (what the paper trains with)
    decay < 1          such a copy follows: teacher ← decay · teacher + (1 − decay) · student after each step

`shows` is the teacher's user message, with {question}, {answer}, {solution} and, where the task tells more, {key} and
{results} filled in; "{question}" is the student's own prompt, behind which a live teacher agrees with it: loss 0.

Source: arXiv 2601.18734 and its code. Differs: one global token mean; no temperature other than 1 in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from opd_lib.methods import opd
from opd_lib.methods.opd import NEEDS as NEEDS
from opd_lib.methods.opd import reads as reads
from opd_lib.methods.opd import value as value
from opd_lib.seam import Group, Say, Shown, State, World, require_message
from opd_lib.types import Chat, Prompt


class Params(opd.Params):
    """The objective's options, what the teacher is shown, and how it follows the student."""

    shows: str = Field(description="the teacher's user message, with {question}, {answer}, {solution} …")
    decay: Annotated[float, Field(ge=0.0, le=1.0, description="share of itself that the teacher keeps; 1: all")]


def shown(prompts: Sequence[Prompt], groups: Sequence[Group], params: Params, say: Say) -> Shown:
    """The student's chat with another user message, the same for all responses to a prompt."""
    chats = [shown_chat(prompt, params.shows) for prompt in prompts]
    return Shown(chats=[chat for chat, group in zip(chats, groups, strict=True) for _ in group.texts])


def shown_chat(prompt: Prompt, shows: str) -> Chat:
    """A prompt's chat, its user message in the form of `shows`. Raises ValueError for what the task does not tell."""
    filled = {"answer": prompt.answer, "solution": prompt.solution, **dict(prompt.told)}
    try:
        return tuple(
            (role, shows.format(question=content, **filled) if role == "user" else content)
            for role, content in prompt.chat
        )
    except KeyError as error:
        raise ValueError(f"method.shows: {shows!r}: the task has no {error} of a question to tell") from None


def after_step(world: World, row: Mapping[str, float], state: State, params: Params) -> State:
    """Let a teacher that has weights of its own follow the student."""
    if params.decay < 1.0 and row["step"] > 0:
        world.combine("teacher", {"teacher": params.decay, "student": 1.0 - params.decay})
    return state


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """What `opd` refuses, and a message that names what there is not. Raises ValueError."""
    opd.check(params, vocabulary, has_teacher)
    require_message(params.shows, "method.shows")


def check_teachers(params: Params, teachers: frozenset[str], contents: frozenset[str]) -> None:
    """Refuse a teacher that is to follow the student and is the student. Raises ValueError."""
    if params.decay < 1.0 and "self" in teachers:
        raise ValueError(
            f"method.decay: {params.decay:g}: with teacher: self the teacher is the student and follows nobody; use "
            "decay: 1.0, or name the checkpoint that it starts from"
        )


def check_served(params: Params) -> None:
    """What `opd` refuses, and a teacher that follows: a server keeps the weights it has. Raises ValueError."""
    opd.check_served(params)
    if params.decay < 1.0:
        raise ValueError(
            f"method.decay: {params.decay:g}: the weights of a served teacher stay as they are; use decay: 1.0, or "
            "machine.teacher_url: null"
        )
