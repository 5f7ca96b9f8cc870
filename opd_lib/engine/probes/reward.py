"""The teacher's mean token reward of each response, beside whether the response is right (§6.2, Fig 14).

    r̄(y) = (1/T) Σ_t [log q(y_t) − log p(y_t)]     q the teacher, p the student, T the tokens of y, end token included

It is minus the sampled reverse KL of the response (nats/token): what sampled-token distillation maximises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, score, sources
from opd_lib.engine.model import models

if TYPE_CHECKING:
    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import RewardProbe
    from opd_lib.types import Rollouts


@torch.no_grad()
def rows(run: ActiveRun, probe: RewardProbe, rollouts: Rollouts, batch: int) -> list[dict[str, Any]]:
    """One row per response: row, reward_mean (nats/token), correct, length (tokens), finished.

    Raises ValueError if it is not known of a response whether it is right.
    """
    assert run.teacher is not None
    sources.require_rewards(rollouts, "task.content", "a probe of rewards")
    length_B = rollouts.length_B
    sum_B = torch.zeros(len(length_B), dtype=torch.float64)
    for rows in batches.micro_batches(rollouts, run.spec.params.train.micro_tokens):
        scores = score.score(run.student[0], run.teacher[0], rollouts, rows, k=0, chunk=run.chunk)
        assert scores.teacher_logp_N is not None
        models.require_finite_logits(run.teacher[0], scores.teacher_logp_N)
        sum_B.index_add_(0, scores.row_N.cpu(), (scores.teacher_logp_N - scores.student_logp_N).cpu().double())
    columns = {
        "reward_mean": (sum_B / length_B).tolist(),
        "correct": rollouts.reward_B.tolist(),
        "length": length_B.tolist(),
        "finished": rollouts.finished_B.int().tolist(),
    }
    return [{"row": row} | {name: column[row] for name, column in columns.items()} for row in range(len(length_B))]
