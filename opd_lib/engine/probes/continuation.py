"""The teacher finishes the student's long responses from ever later cuts: how much does that still change (Fig 11b)?

Of each response longer than every depth d the first d tokens are kept and continued, once by the teacher and once by
the student itself, both with the same random numbers: fresh ones, so a student's continuation is not its old response.

    budget total    the whole response has the limit it was sampled with: what may be added shrinks as d grows
    budget new      `new_tokens` are added at every depth

Differs: the paper has one (undisclosed) budget and no continuation by the student, which shows how much of a gain is
the second attempt and how much the teacher. As in the paper, only long responses are looked at: a hard sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import sources
from opd_lib.engine.model import models
from opd_lib.engine.sampling.turns import begun
from opd_lib.maths import sampling
from opd_lib.types import Rollouts

if TYPE_CHECKING:
    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import ContinuationProbe


def rows(run: ActiveRun, probe: ContinuationProbe, rollouts: Rollouts, batch: int) -> list[dict[str, Any]]:
    """One row per depth, author and budget: accuracy, that of the same responses uncut, and their number.

    No rows if no response is longer than every depth. Raises ValueError if it is not known whether one is right.
    """
    source = run.spec.params.source
    assert run.teacher is not None and source.kind == "student"  # params refuses a probe without a teacher or samples
    sources.require_rewards(rollouts, "task.content", "a probe of continuations")
    kept = (rollouts.length_B > max(probe.depths)).nonzero()[:, 0].tolist()
    if not kept:
        return []
    student_accuracy = float(rollouts.reward_B[kept].mean())
    rows = []
    for depth in probe.depths:
        budgets = {"total": source.max_new_tokens - depth, "new": probe.new_tokens}
        size = (len(rollouts.prompts), max(budgets.values()))
        uniform_BT = sampling.uniform(size, models.generator(run.spec.seed, "continuation", batch, depth))[kept]
        for who, author in (("teacher", run.teacher), ("student", run.student)):
            begun_with = [rollouts.response_BT[row, :depth].tolist() for row in kept]
            prompts = [begun(rollouts.prompts[row], r) for row, r in zip(kept, begun_with, strict=True)]
            added = run.sample(*author, prompts, uniform_BT, source.temperature, source.top_p)
            for budget, limit in budgets.items():
                finished = sources.grade(
                    run.spec.params.task, joined(rollouts, kept, depth, added, limit), run.student[1]
                )
                row = {"depth": depth, "who": who, "budget": budget, "accuracy": float(finished.reward_B.mean())}
                rows.append(row | {"student_accuracy": student_accuracy, "n": len(kept)})
    return rows


def joined(rollouts: Rollouts, rows: list[int], depth: int, added: Rollouts, limit: int) -> Rollouts:
    """Whole responses to the original prompts: `depth` tokens of the old ones, then at most `limit` of those added."""
    return Rollouts(
        prompts=tuple(rollouts.prompts[row] for row in rows),
        response_BT=torch.cat([rollouts.response_BT[rows, :depth], added.response_BT], 1),
        length_B=depth + added.length_B.clamp(max=limit),
        finished_B=added.finished_B & (added.length_B <= limit),
        reward_B=added.reward_B,
    )
