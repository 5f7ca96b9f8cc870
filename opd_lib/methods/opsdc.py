"""OPSDC: a copy of the student, told how to answer, teaches it to answer so untold, and is renewed now and then.

    loss = that of `opsd`, the teacher a copy of the student's start behind `shows`: "Be brief. {question}", say
    teacher ← student   after every `renew` steps; 0: never

Renewed at every step the teacher is one step behind its student, and what it is told is compressed again and again.

Source: arXiv 2603.05433. Differs: one global token mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from opd_lib.methods import opsd
from opd_lib.methods.opsd import NEEDS as NEEDS
from opd_lib.methods.opsd import check as check
from opd_lib.methods.opsd import reads as reads
from opd_lib.methods.opsd import shown as shown
from opd_lib.methods.opsd import value as value
from opd_lib.seam import State, World


class Params(opsd.Params):
    """The options of `opsd`, and how often the teacher is renewed."""

    renew: Annotated[int, Field(ge=0, le=10**9, description="steps after which the teacher is the student; 0: never")]


def after_step(world: World, row: Mapping[str, float], state: State, params: Params) -> State:
    """Let the teacher follow as in `opsd`, and renew it when it is time."""
    step = int(row["step"])
    if params.renew and step and step % params.renew == 0:
        world.combine("teacher", {"student": 1.0})
        return state
    return opsd.after_step(world, row, state, params)


def check_teachers(params: Params, teachers: frozenset[str], contents: frozenset[str]) -> None:
    """Refuse a teacher that is to be renewed and is the student. Raises ValueError."""
    opsd.check_teachers(params, teachers, contents)
    if params.renew and "self" in teachers:
        raise ValueError(
            f"method.renew: {params.renew}: with teacher: self the teacher is the student at every step; use renew: 0, "
            "or name the checkpoint that it starts from"
        )


def check_served(params: Params) -> None:
    """What `opsd` refuses, and a teacher that is renewed: a server keeps the weights it has. Raises ValueError."""
    opsd.check_served(params)
    if params.renew:
        raise ValueError(
            f"method.renew: {params.renew}: the weights of a served teacher stay as they are; use renew: 0, or "
            "machine.teacher_url: null"
        )
