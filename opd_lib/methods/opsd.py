"""OPSD: on-policy self-distillation. The teacher is the student itself, shown what the student is not.

    loss = that of `opd`, q the teacher behind `shows`, p the student behind its own prompt

    teacher: self      the live student
    teacher: run:…     a frozen copy: of the student's start, say (what the paper trains with)
    decay < 1          such a copy follows: teacher ← decay · teacher + (1 − decay) · student after each step

`shows` is the teacher's user message (the last, of several), with {question}, {answer}, {solution} and, where the task
tells more, {key} and {results} filled in; "{question}" is the student's own prompt, behind which a live teacher agrees
with it: loss 0. `system`, filled in likewise, is the teacher's system message in place of the student's, if it has one.

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
    system: str | None = Field(default=None, description="the teacher's system message; null: the student's")
    decay: Annotated[float, Field(ge=0.0, le=1.0, description="share of itself that the teacher keeps; 1: all")]


def shown(prompts: Sequence[Prompt], groups: Sequence[Group], params: Params, say: Say) -> Shown:
    """The student's chat with other messages, the same for all responses to a prompt."""
    chats = [shown_chat(prompt, params.shows, params.system) for prompt in prompts]
    return Shown(chats=[chat for chat, group in zip(chats, groups, strict=True) for _ in group.texts])


def shown_chat(prompt: Prompt, shows: str, system: str | None = None) -> Chat:
    """A prompt's chat, its last user message in the form of `shows`, its system message (None: as it is) of `system`.

    Raises ValueError for what the task does not tell.
    """
    told = {"answer": prompt.answer, "solution": prompt.solution, **dict(prompt.told)}
    last = max((place for place, (role, _) in enumerate(prompt.chat) if role == "user"), default=-1)

    def filled(key: str, text: str) -> str:
        try:
            return text.format(question=prompt.chat[last][1], **told)
        except KeyError as error:
            raise ValueError(f"method.{key}: {text!r}: the task has no {error} of a question to tell") from None

    chat = [
        (role, filled("shows", shows) if place == last else content)
        for place, (role, content) in enumerate(prompt.chat)
        if system is None or role != "system"
    ]
    return tuple(chat if system is None else [("system", filled("system", system)), *chat])


def after_step(world: World, row: Mapping[str, float], state: State, params: Params) -> State:
    """Let a teacher that has weights of its own follow the student."""
    if params.decay < 1.0 and row["step"] > 0:
        world.combine("teacher", {"teacher": params.decay, "student": 1.0 - params.decay})
    return state


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """What `opd` refuses, and messages that name what there is not, or say nothing. Raises ValueError."""
    opd.check(params, vocabulary, has_teacher)
    require_message(params.shows, "method.shows")
    if params.system is not None:
        require_message(params.system, "method.system")
        if not params.system.strip():
            raise ValueError("method.system: is empty; write the message, or null for the student's")


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
