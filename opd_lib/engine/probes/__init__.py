"""Runs that measure two checkpoints as they are and train nothing, one file per question.

Each module has `rows(run, probe, rollouts, batch) -> rows of probe.csv`, called once per batch of the student's
responses; `batch` counts from 1. Batch b of a probe holds the responses of step b of a run that trains, if the student
has not changed until then: batch 1 is what a distillation run of the same parameters begins with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opd_lib.engine import checkpoint, sources
from opd_lib.engine.first_batch import require_gates
from opd_lib.engine.probes import continuation, gradient, mixture, prefix, reward, rollouts, teachers

if TYPE_CHECKING:
    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import Probe

ROWS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "continuation": continuation.rows,
    "gradient": gradient.rows,
    "mixture": mixture.rows,
    "prefix": prefix.rows,
    "reward": reward.rows,
    "teachers": teachers.rows,
}


def carry_out(run: ActiveRun, probe: Probe) -> None:
    """Every batch of the probe. One that was interrupted begins again, or goes on if it writes rollouts."""
    assert run.writer is not None
    if probe.kind == "rollouts":
        rollouts.write(run, probe)
        return
    run.writer.truncate(-1)
    for batch in range(1, probe.batches + 1):
        with run.timed("rollout"):
            drawn = sources.draw(run.spec.params, run.batch_key(batch), run.authors)
        if batch == 1:
            require_gates(run, drawn)
        with run.timed("probe"):
            rows = ROWS[probe.kind](run, probe, drawn, batch)
        run.writer.append("probe", [{"batch": batch, **row} for row in rows])
        checkpoint.progress(run.spec.folder, batch, probe.batches, dict(run.seconds))
