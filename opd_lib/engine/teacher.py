"""Who teaches, and its output for a micro-batch's tokens: of a model in this process, of several, or of a server.

The output of a teacher in process is its last hidden states and its head (`maths.head.Head`): logits are made of them a
few tokens at a time, where they are read. One with a tokenizer of its own has them for its own tokens (`aligning`). The
live student may teach itself: its output is then a constant like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from opd_lib.engine import aligning, batches, served
from opd_lib.engine.model import sharding
from opd_lib.maths.head import CombinedLogits, Head, TeacherLogits
from opd_lib.maths.streaming import Served
from opd_lib.maths.units import AlignedLogits
from opd_lib.params.schema import SELF

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.engine.sources import Model
    from opd_lib.methods import Method
    from opd_lib.params.schema import RunParams
    from opd_lib.types import Rollouts

Teacher: TypeAlias = "PreTrainedModel | Several | aligning.Foreign | served.Teacher | None"
TeacherOutput = TeacherLogits | AlignedLogits | Served | None
"""A teacher's output for N tokens: its states and head, for the student's tokens or its own, or a server's scores
(`served.Teacher.score`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """Teachers by name, all in this process; `combine` makes one distribution of theirs (None: the first one's)."""

    models: Mapping[str, PreTrainedModel]
    combine: Callable[[Mapping[str, Tensor]], Tensor] | None = None


def output(teacher: Teacher, rollouts: Rollouts, rows: Tensor, k: int) -> TeacherOutput:
    """The teacher's output for these rows' tokens, without gradient."""
    given = replace(rollouts, prompts=rollouts.for_teacher)
    if isinstance(teacher, served.Teacher):
        lengths = rollouts.length_B[rows].tolist()
        responses = [rollouts.response_BT[row, :n].tolist() for row, n in zip(rows.tolist(), lengths, strict=True)]
        prompts = [given.prompts[row].token_ids for row in rows.tolist()]
        scored = teacher.score([[*p, *r] for p, r in zip(prompts, responses, strict=True)], lengths, k)
        begins = [sum(lengths[:i]) for i in range(len(lengths))]
        own = [begin + batches.own_positions(rollouts, row) for begin, row in zip(begins, rows.tolist(), strict=True)]
        own_N = torch.cat(own).to(scored[0].device)
        return scored[0][own_N], scored[1][own_N], scored[2][own_N]
    if isinstance(teacher, aligning.Foreign):
        return teacher.output(given, rows, head)
    if isinstance(teacher, Several):
        return CombinedLogits(
            {name: head(model, given, rows) for name, model in teacher.models.items()}, teacher.combine
        )
    return None if teacher is None else head(teacher, given, rows)


def head(model: PreTrainedModel, rollouts: Rollouts, rows: Tensor) -> Head:
    """One model's states and head, to be used later: a head that is gathered from all processes is kept."""
    with torch.no_grad():
        return batches.with_head(
            model, rollouts, rows, Head.copy if sharding.is_sharded(model) else lambda found: found
        )


def of(params: RunParams, student: Model, frozen: Mapping[str, Model], method: Method, options: Any) -> Model | None:
    """Who teaches a run: nobody, the live student, one checkpoint, or several by name; `frozen` has them by role."""
    if params.teacher == SELF:
        return student
    if method.aligned and "teacher" in frozen:
        return aligning.foreign(params, student, frozen["teacher"], method, options)
    if not params.named_teachers:
        return frozen.get("teacher")
    named = {name: frozen[f"teacher.{name}"] for name in params.named_teachers}
    combine = partial(method.taught, params=options) if method.taught else None
    several = Several(models={name: model for name, (model, _) in named.items()}, combine=combine)
    return several, next(iter(named.values()))[1]
