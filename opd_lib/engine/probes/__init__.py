"""Runs that measure two checkpoints as they are and train nothing, one file per question.

Each module has `measure(run, probe, rollouts) -> rows of probe.csv`, called once per batch of the student's responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opd_lib.engine import sources
from opd_lib.engine.probes import continuation, gradient, reward, teachers

if TYPE_CHECKING:
    from opd_lib.engine.setup import Run
    from opd_lib.schema import Probe

MEASURES = {
    "continuation": continuation.measure,
    "gradient": gradient.measure,
    "reward": reward.measure,
    "teachers": teachers.measure,
}


def measure(run: Run, probe: Probe) -> None:
    """Every batch of the probe. A probe that was interrupted begins again."""
    assert run.writer is not None
    run.writer.truncate(-1)
    for batch in range(1, probe.batches + 1):
        with run.timed("rollout"):
            rollouts = sources.draw(run.spec.params, run.spec.seed, batch, run.ranks, run.student, run.teacher)
        with run.timed("probe"):
            rows: list[dict[str, Any]] = MEASURES[probe.kind](run, probe, rollouts)
        run.writer.append("probe", [{"batch": batch, **row} for row in rows])
