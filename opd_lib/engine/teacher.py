"""Who teaches, and what is said of a micro-batch's tokens: by a model in this process, by several, or by a server.

A teacher in process says its last hidden states and its head (`maths.head.Head`): logits are made of them a few tokens
at a time, where they are read. One with a tokenizer of its own says them of its own tokens (`aligning`). The live
student may teach itself: what it says then is a constant like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from opd_lib.engine import aligning, batches, served
from opd_lib.engine.model import sharding
from opd_lib.maths.head import Chorus, Head, Voice
from opd_lib.maths.streaming import Served
from opd_lib.maths.units import Spelt
from opd_lib.params.schema import SELF

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.engine.sources import Model
    from opd_lib.methods import Method
    from opd_lib.params.schema import RunParams
    from opd_lib.types import Rollouts

Teacher: TypeAlias = "PreTrainedModel | Several | aligning.Foreign | served.Teacher | None"
Said = Voice | Spelt | Served | None
"""What a teacher says about N tokens: its states and head, in tokens of its own or the student's, or as a server does
(`served.Teacher.score`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """Teachers by name, all in this process; `taught` makes one of what they say (None: the first speaks for all)."""

    models: Mapping[str, PreTrainedModel]
    taught: Callable[[Mapping[str, Tensor]], Tensor] | None = None


def ask(teacher: Teacher, rollouts: Rollouts, rows: Tensor, k: int) -> Said:
    """What the teacher says about these rows' tokens, without gradient."""
    given = replace(rollouts, prompts=rollouts.for_teacher)
    if isinstance(teacher, served.Teacher):
        lengths = rollouts.length_B[rows].tolist()
        responses = [rollouts.response_BT[row, :n].tolist() for row, n in zip(rows.tolist(), lengths, strict=True)]
        prompts = [given.prompts[row].token_ids for row in rows.tolist()]
        said = teacher.score([[*p, *r] for p, r in zip(prompts, responses, strict=True)], lengths, k)
        begins = [sum(lengths[:i]) for i in range(len(lengths))]
        own = [begin + batches.own_positions(rollouts, row) for begin, row in zip(begins, rows.tolist(), strict=True)]
        own_N = torch.cat(own).to(said[0].device)
        return said[0][own_N], said[1][own_N], said[2][own_N]
    if isinstance(teacher, aligning.Foreign):
        return teacher.said(given, rows, heard)
    if isinstance(teacher, Several):
        return Chorus({name: heard(model, given, rows) for name, model in teacher.models.items()}, teacher.taught)
    return None if teacher is None else heard(teacher, given, rows)


def heard(model: PreTrainedModel, rollouts: Rollouts, rows: Tensor) -> Head:
    """What one model says, to be used later: a head that is gathered from all processes is kept."""
    with torch.no_grad():
        return batches.with_head(model, rollouts, rows, Head.copy if sharding.is_sharded(model) else lambda head: head)


def of(params: RunParams, student: Model, frozen: Mapping[str, Model], method: Method, options: Any) -> Model | None:
    """Who teaches a run: nobody, the live student, one checkpoint, or several by name; `frozen` has them by role."""
    if params.teacher == SELF:
        return student
    if method.aligned and "teacher" in frozen:
        return aligning.foreign(params, student, frozen["teacher"], method, options)
    if not params.named_teachers:
        return frozen.get("teacher")
    named = {name: frozen[f"teacher.{name}"] for name in params.named_teachers}
    taught = partial(method.taught, params=options) if method.taught else None
    several = Several(models={name: model for name, (model, _) in named.items()}, taught=taught)
    return several, next(iter(named.values()))[1]
