"""Responses fit for fine-tuning are written to parquet files: what a cold start learns from (Table 3).

Each batch asks the prompts of a training step. A response that fails a filter of `tasks/filters.py` is dropped and its
prompt answered again with fresh random numbers, `attempts` times in all; what still fails is left out. A batch is one
part of the folder `rollouts/`, whole or absent: an interrupted run goes on with the first batch that is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opd_lib.engine import checkpoint, sources, stored
from opd_lib.engine.model import models
from opd_lib.maths import sampling
from opd_lib.params.schema import Sampled
from opd_lib.tasks import filters

if TYPE_CHECKING:
    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import RolloutsProbe
    from opd_lib.types import Prompt, Rollouts


def write(run: ActiveRun, probe: RolloutsProbe) -> None:
    """Every batch that is not there yet. A row of the table says what became of each batch's responses."""
    assert run.writer is not None
    folder = run.spec.folder / stored.FOLDER
    written = next(n for n in range(probe.batches + 1) if not stored.part(folder, n + 1).exists() or n == probe.batches)
    run.writer.truncate(written, counted="probe")
    for batch in range(written + 1, probe.batches + 1):
        with run.timed("rollout"):
            kept, failures = answer(run, probe, batch)
        run.writer.append("probe", [{"batch": batch, **failures, "kept": len(kept)}])
        run.writer.save()
        stored.write(folder, batch, kept, author(run)[1])
        checkpoint.progress(run.spec.folder, batch, probe.batches, dict(run.seconds))


def answer(run: ActiveRun, probe: RolloutsProbe, batch: int) -> tuple[list[stored.Row], dict[str, int]]:
    """The responses of a batch that pass, in the order of their prompts, and how many failed each filter."""
    drawn = sources.draw(run.spec.params, run.batch_key(batch), run.authors)
    waiting = list(range(len(drawn.prompts)))
    kept: dict[int, stored.Row] = {}
    failed: list[int] = []
    failures = dict.fromkeys(filters.FILTERS, 0)
    for attempt in range(1, probe.attempts + 1):
        if attempt > 1:
            drawn = again(run, [drawn.prompts[index] for index in failed], batch, attempt)
        answers = stored.rows(drawn, sources.decode(drawn, author(run)[1]))
        reasons = [filters.first_failure(row["response"], row["finished"]) for row in answers]
        kept |= {waiting[index]: row for index, row in enumerate(answers) if reasons[index] is None}
        failed = [index for index, reason in enumerate(reasons) if reason is not None]
        for index in failed:
            failures[str(reasons[index])] += 1
        waiting = [waiting[index] for index in failed]
        if not waiting:
            break
    return [kept[place] for place in sorted(kept)], failures


def again(run: ActiveRun, prompts: list[Prompt], batch: int, attempt: int) -> Rollouts:
    """New responses to these prompts, graded."""
    source, writer = run.spec.params.source, author(run)
    assert isinstance(source, Sampled)
    numbers = models.generator(run.spec.seed, "rollout", batch, "attempt", attempt)
    uniform_BT = sampling.uniform((len(prompts), source.limit(batch)), numbers)
    drawn = run.sample(*writer, prompts, uniform_BT, source.temperature, source.top_p)
    return sources.grade(run.spec.params.task, drawn, writer[1])


def author(run: ActiveRun) -> sources.Model:
    """The model that writes."""
    source = run.spec.params.source
    assert isinstance(source, Sampled)  # params refuses stored rollouts of anything else
    return sources.author(source, run.student, run.teacher)
