"""The training loop. Pre-training, SFT, GRPO and on-policy distillation are this loop with another source and method.

    responses ← source          scores ← student, teacher          values ← method          one optimiser step

One optimiser step per batch of responses, so the policy that is trained is the policy that sampled: no second pass for
old log-probabilities, no importance ratio. The loss is a sum of values divided once by the token count of the batch, so
micro-batches, processes and padding do not change the gradient. Nothing here knows which method it runs.
"""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, checkpoint, collapse, evaluate, gates, probes, shown, sources, tokens, view
from opd_lib.engine.first_batch import require_gates
from opd_lib.engine.model import distributed, models, sharding
from opd_lib.engine.running import ActiveRun
from opd_lib.engine.setup import needs_recompute, new_record, prepare_task, start
from opd_lib.engine.step_record import StepRecord
from opd_lib.records import leftovers
from opd_lib.records.record import RunRecord, write_json
from opd_lib.records.writer import RunWriter
from opd_lib.types import Rollouts

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.params import RunSpec
    from opd_lib.params.schema import Train

Row = dict[str, Any]


def train(spec: RunSpec) -> RunRecord:
    """Train one run to its end, from its last checkpoint if it was interrupted; or measure, if it is a probe.

    Every process of the run must call it. Raises ValueError if the record cannot be written or belongs to other
    parameters, if there is too little memory, if a gate fails, if the loss is not finite (the batch is then written
    beside the record), or if another process has failed.
    """
    torch.set_num_threads(1)
    ranks = distributed.join(spec.params.machine)
    record = new_record(spec)
    with RunWriter(record) if ranks.is_main else nullcontext() as writer, distributed.OneFate(ranks, spec.folder):
        prepare_task(spec)
        run = start(spec, ranks, writer, needs_recompute(spec))
        if spec.params.probe is None:
            loop(run)
            weights = sharding.gathered(run.student[0], keep=ranks.is_main)
            if writer:
                models.save(*run.student, spec.model_folder, weights)
        else:
            probes.carry_out(run, spec.params.probe)
        if writer:
            writer.finish({stage: round(s, 3) for stage, s in run.seconds.items()})
            leftovers.finish(spec.folder)
            record = writer.record
        distributed.meet()
    return record


def loop(run: ActiveRun) -> None:
    """Every step from the last checkpoint to the end."""
    spec, params, writer = run.spec, run.spec.params, run.writer
    state = checkpoint.resume(run)
    run.seconds.update(state.seconds)
    if writer:
        rewind(writer, state)
        if params.diagnose.hedges:
            run.watch = collapse.Watch(writer.record.frame("steps").to_dict("records"))
    if state.step is None:
        act_between_steps(run, {"step": 0})
        evaluate_student(run, step=0)
    first = (state.step or 0) + 1
    for step in range(first, params.train.steps + 1):
        rollouts = draw(run, step)
        if step == first:
            require_gates(run, rollouts, recorded=state.gates is None)
        row = update(run, rollouts, step)
        look_for_collapse(run, row)
        act_between_steps(run, row)
        if step % params.evaluate.every == 0 or step == params.train.steps:
            evaluate_student(run, step)
        if step % params.train.checkpoint_every == 0:
            checkpoint.write(run, step)
        if writer:
            checkpoint.progress(spec.folder, step, params.train.steps, dict(run.seconds))


def rewind(writer: RunWriter, state: checkpoint.State) -> None:
    """Bring the record back to where its run goes on. Raises ValueError if rows from before are lost."""
    if state.gates is not None:
        writer.update(gates=state.gates)
    if state.tables is not None:
        writer.restore(state.tables)
    else:
        writer.truncate(-1 if state.step is None else state.step, counted="steps")


def draw(run: ActiveRun, step: int) -> Rollouts:
    """This process's responses of a step, and what the teacher is shown in front of them."""
    with run.timed("rollout"):
        authors = replace(run.authors, for_author=shown.for_author(run, step))
        rollouts = sources.draw(run.spec.params, run.batch_key(step), authors)
        return shown.show(run, rollouts, step)


def update(run: ActiveRun, rollouts: Rollouts, step: int) -> Row:
    """One optimiser step on a batch of responses, and its rows in the record; the row of `steps` is returned."""
    record = accumulate(run, rollouts, step)
    of_branches = {branch.name: accumulate(branch, draw(branch, step), step, coef) for coef, branch in run.branches}
    with run.timed("optimize"):
        norm = step_optimizer(run, rollouts, step)
    with run.timed("diagnose"):
        return record.write(norm, of_branches)


def accumulate(run: ActiveRun, rollouts: Rollouts, step: int, coef: float = 1.0) -> StepRecord:
    """Add `coef` times the gradient of engine/plain: Σ weight · value, divided by the number of tokens trained on."""
    model, teacher = run.student[0], run.teacher and run.teacher[0]
    with run.timed("score"):
        credit = view.credit(run, rollouts, step)
    record = StepRecord(run, rollouts, credit, step)
    model.train()
    groups = batches.micro_batches(rollouts, run.spec.params.train.micro_tokens, credit.selected_B)
    for rows, counts in batches.lock_step(groups):
        with run.timed("score"):
            scale = coef * counts / max(record.n_tokens, 1)
            scaled, value_sum, scores = run.objective(model, teacher, rollouts, rows, credit, scale, record.is_measured)
        require_finite(run, "loss", value_sum, rollouts, step)
        with run.timed("backward"):
            torch.autograd.backward(scaled)
        with run.timed("diagnose"), torch.no_grad():
            record.add(counts * value_sum, scores if counts else scores.part(slice(0)))
    if run.spec.params.source.kind == "student":
        gates.require_agreement(record.mean_gap, run.spec.params.machine.max_sampler_gap)
    return record


def act_between_steps(run: ActiveRun, row: Row) -> None:
    """Let the method act between two steps, if it does."""
    world = run.world
    if world is None or run.method.after_step is None:
        return
    with run.timed("between"):
        world.step = int(row["step"])
        world.state = dict(run.method.after_step(world, row, world.state, run.options))


def look_for_collapse(run: ActiveRun, row: Row) -> None:
    """Warn, once, when signatures of a collapse have crossed; stop if the machine is to. Raises ValueError then."""
    found = run.watch.see(row) if run.watch else ""
    if found and run.spec.params.machine.stop_on_collapse:
        raise ValueError(f"{run.spec.name}: {found}; it stops here, as machine.stop_on_collapse says")
    if found:
        warnings.warn(f"{run.spec.name}: {found}", stacklevel=2)


def step_optimizer(run: ActiveRun, rollouts: Rollouts, step: int) -> float:
    """Sum gradients over processes (sharded ones are sums already), clip, step. Returns the norm before clipping."""
    parameters = list(run.student[0].parameters())
    if not sharding.is_sharded(run.student[0]):
        distributed.sum_over_ranks(p.grad for p in parameters if p.grad is not None)
    norm = sharding.full(torch.nn.utils.clip_grad_norm_(parameters, run.spec.params.train.max_grad_norm))
    require_finite(run, "gradient norm", norm, rollouts, step)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.spec.params.train, step)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return float(norm)


def learning_rate(train: Train, step: int) -> float:
    """Constant, with linear ramps over the first `warmup` and the last `decay` steps.

    Step 1 of a warm-up of w steps has lr / w; the last step of a decay of d steps has lr / d.
    """
    up = step / train.warmup if train.warmup else 1.0
    down = (train.steps - step + 1) / train.decay if train.decay else 1.0
    return train.lr * min(1.0, up, down)


def evaluate_student(run: ActiveRun, step: int) -> None:
    """Evaluate the student, every process its share of the problems, and record it with what it writes."""
    params = run.spec.params
    with run.timed("evaluate"):
        found = evaluate.evaluate(
            *run.student, params.task, params.evaluate, run.spec.seed, step, run.sample, run.ranks
        )
    if run.writer:
        for table, rows in found.items():
            run.writer.append(table, rows)
    if run.teacher:
        with run.timed("diagnose"):
            tokens.keep(run, step)


def require_finite(run: ActiveRun, name: str, value: Tensor, rollouts: Rollouts, step: int) -> None:
    """Stop every process at a loss or gradient that is not finite in one, before it reaches the weights.

    The batches of such processes are left in the run's folder.
    """
    values = distributed.by_rank(value.item())
    bad = [rank for rank, number in enumerate(values) if not math.isfinite(number)]
    if not bad:
        return
    paths = [run.spec.folder / f"nonfinite_step{step}_rank{rank}.json" for rank in bad]
    if run.ranks.rank in bad:
        texts = sources.decode(rollouts, run.student[1])
        batch = [{"prompt": p.rendered, "response": t} for p, t in zip(rollouts.prompts, texts, strict=True)]
        write_json(paths[bad.index(run.ranks.rank)], batch)
    raise ValueError(f"{run.spec.name}: {name} {values[bad[0]]} at step {step}; the batch is in {paths[0]}")
