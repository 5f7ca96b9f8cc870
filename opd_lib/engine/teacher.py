"""Who teaches, and what is said of a micro-batch's tokens: by a model in this process, by several, or by a server.

A teacher in process says its last hidden states and its head (`maths.head.Head`): logits are made of them a few tokens
at a time, where they are read. The live student may teach itself: what it says then is a constant like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from opd_lib.engine import batches, served, sharding
from opd_lib.maths.head import Chorus, Head, Voice
from opd_lib.maths.streaming import Served

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.types import Rollouts

Teacher: TypeAlias = "PreTrainedModel | Several | served.Teacher | None"
Said = Voice | Served | None
"""What a teacher says about N tokens: its states and head, or as a server does (`served.Teacher.score`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """Teachers by name, all in this process; `taught` makes one of what they say (None: the first speaks for all)."""

    models: Mapping[str, PreTrainedModel]
    taught: Callable[[Mapping[str, Tensor]], Tensor] | None = None


def ask(teacher: Teacher, rollouts: Rollouts, rows: Tensor, k: int) -> Said:
    """What the teacher says about these rows' tokens, without gradient."""
    if isinstance(teacher, served.Teacher):
        lengths = rollouts.length_B[rows].tolist()
        responses = [rollouts.response_BT[row, :n].tolist() for row, n in zip(rows.tolist(), lengths, strict=True)]
        prompts = [rollouts.prompts[row].token_ids for row in rows.tolist()]
        return teacher.score([[*p, *r] for p, r in zip(prompts, responses, strict=True)], lengths, k)
    if isinstance(teacher, Several):
        return Chorus({name: heard(model, rollouts, rows) for name, model in teacher.models.items()}, teacher.taught)
    return None if teacher is None else heard(teacher, rollouts, rows)


def heard(model: PreTrainedModel, rollouts: Rollouts, rows: Tensor) -> Head:
    """What one model says, to be used later: a head that is gathered from all processes is kept."""
    with torch.no_grad():
        return batches.with_head(model, rollouts, rows, Head.copy if sharding.is_sharded(model) else lambda head: head)
