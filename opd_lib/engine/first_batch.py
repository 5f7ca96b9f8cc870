"""The gates of a run's first batch: what can be seen of models, sampler and objective before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, gates, score, served, view
from opd_lib.engine import teacher as teachers

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.engine.credit import Credit
    from opd_lib.engine.running import ActiveRun
    from opd_lib.types import Rollouts


def require_gates(run: ActiveRun, rollouts: Rollouts, recorded: bool = True) -> None:
    """Pass every gate that applies to this process's first batch, and record what they measured.

    Not `recorded` is what they measure of a run that goes on: its gates are those of its own first batch.
    """
    params, model = run.spec.params, run.student[0]
    found: dict[str, Any] = {}
    rollouts = batches.beginnings(rollouts, params.train.micro_tokens)  # a whole row may be more than memory holds
    with torch.no_grad():
        rows = batches.micro_batches(rollouts, params.train.micro_tokens)[0]
        scores = score.score(model, run.teacher and run.teacher[0], rollouts, rows, first_k(run), run.chunk)
    if run.teacher:
        found |= gates.teacher_speaks(scores, len(run.student[1]))
        if "teacher" in run.method.needs:
            found |= gates.gradient_sees_teacher(run.objective, model, run.teacher[0], rollouts, credits(run, rollouts))
    if params.source.kind == "student":
        found |= gates.sampler_agrees(rollouts, scores, params.machine.max_sampler_gap)
    if run.writer and recorded:
        run.writer.update(gates=run.writer.record.gates | found)


def credits(run: ActiveRun, rollouts: Rollouts) -> tuple[Credit, Credit]:
    """What the method makes of these responses under its teacher, and under another."""
    vocabulary = len(run.student[1])

    def another(given: Rollouts, rows: Tensor) -> teachers.TeacherOutput:
        return gates.another(run.teacher_output(given, rows, first_k(run)), vocabulary)

    return view.credit(run, rollouts, 1), view.credit(run, rollouts, 1, another)


def first_k(run: ActiveRun) -> int:
    """How long the lists must be for the gates too, which see of a served teacher nothing else."""
    if run.teacher and isinstance(run.teacher[0], served.Teacher):
        return max(run.k, min(gates.LISTED, len(run.teacher[1])))
    return run.k
