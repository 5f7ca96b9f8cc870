"""The training loop. Pre-training, SFT, GRPO and on-policy distillation are this loop with another source and method.

    responses ← source          scores ← student, teacher          loss ← method          one optimiser step

One optimiser step per batch of responses, so the policy that is trained is the policy that sampled: no second pass for
old log-probabilities, no importance ratio. The loss is a sum divided once by the token count of the whole batch, so
micro-batches, processes and padding do not change the gradient. Nothing here knows which method it runs.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from opd_lib.engine import checkpoint, distributed, evaluate, gates, models, probes, score, sharding, sources, tokens
from opd_lib.engine.setup import Run, check, n_positions, needs_recompute, new_record, start, words
from opd_lib.maths import diagnostics
from opd_lib.report import leftovers
from opd_lib.report.record import RunRecord, write_json
from opd_lib.report.writer import RunWriter
from opd_lib.types import Rollouts

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.params import RunSpec
    from opd_lib.schema import Train

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
        run = start(spec, ranks, writer, needs_recompute(spec))
        if spec.params.probe is None:
            loop(run)
            weights = sharding.gathered(run.student[0], keep=ranks.is_main)
            if writer:
                models.save(*run.student, spec.model_folder, weights)
        else:
            probes.measure(run, spec.params.probe)
        if writer:
            writer.finish({stage: round(s, 3) for stage, s in run.seconds.items()})
            leftovers.finish(spec.folder)
            record = writer.record
        distributed.meet()
    return record


def loop(run: Run) -> None:
    """Every step from the last checkpoint to the end."""
    spec, params, writer = run.spec, run.spec.params, run.writer
    state = checkpoint.resume(run)
    run.seconds.update(state.seconds)
    if writer:
        go_back(writer, state)
    if state.step is None:
        assess(run, step=0)
    first = (state.step or 0) + 1
    for step in range(first, params.train.steps + 1):
        with run.timed("rollout"):
            rollouts = sources.draw(params, spec.seed, step, run.ranks, run.student, run.teacher, run.sample, run.shelf)
        if step == first:
            check(run, rollouts, recorded=state.gates is None)
        update(run, rollouts, step)
        if step % params.evaluate.every == 0 or step == params.train.steps:
            assess(run, step)
        if step % params.train.checkpoint_every == 0:
            checkpoint.write(run, step)
        if writer:
            checkpoint.progress(spec.folder, step, params.train.steps, dict(run.seconds))


def go_back(writer: RunWriter, state: checkpoint.State) -> None:
    """Bring the record back to where its run goes on. Raises ValueError if rows from before are lost."""
    if state.gates is not None:
        writer.update(gates=state.gates)
    if state.tables is not None:
        writer.restore(state.tables)
    else:
        writer.truncate(-1 if state.step is None else state.step, counted="steps")


def update(run: Run, rollouts: Rollouts, step: int) -> Row:
    """One optimiser step on a batch of responses, and its rows in the record; the row of `steps` is returned."""
    params, model = run.spec.params, run.student[0]
    advantage_B = sequence_advantages(run, rollouts)
    tally = diagnostics.Tally(params.diagnose.ks, params.diagnose.depth_bucket, n_positions(run))
    n_tokens = total(float(rollouts.length_B.sum()))
    loss_sum, gap, gap_sum, counted = 0.0, 0.0, 0.0, 0
    examples: list[Row] = []
    keep = step == 1 or step % params.evaluate.every == 0
    measured = keep or step == params.train.steps or step % params.machine.diagnose_every == 0
    model.train()
    groups = score.micro_batches(rollouts, params.train.micro_tokens)
    for rows, weight in score.lock_step(groups):
        with run.timed("score"):
            scaled, loss, scores = run.objective(
                model, run.teacher and run.teacher[0], rollouts, rows, advantage_B, weight / n_tokens, measured
            )
        require_finite(run, "loss", loss.total, rollouts, step)
        with run.timed("backward"):
            torch.autograd.backward(scaled)
        if not weight:
            continue
        with run.timed("diagnose"), torch.no_grad():
            loss_sum += loss.total.item()
            counted += loss.n_tokens
            gaps_N = gates.sampler_gaps(rollouts, scores)
            gap = np.maximum(gap, float(gaps_N.max()))  # unlike max, keeps a NaN
            gap_sum += float(gaps_N.sum())
            if measured:
                tally.add(scores)
            if keep and not examples:
                examples = score.examples(step, rollouts, scores, words(run), params.diagnose.examples)
    assert counted == int(rollouts.length_B.sum()), "a method must count every response token"
    if params.source.kind == "student":
        gates.require_agreement(total(gap_sum) / n_tokens, params.machine.max_sampler_gap)
    with run.timed("optimize"):
        norm = step_optimizer(run, rollouts, step)
    with run.timed("diagnose"):
        if measured:
            distributed.sum_over_ranks([tally.sums_MD, tally.weights_MD])
        row: Row = {
            "step": step,
            "loss": total(loss_sum) / n_tokens,
            "grad_norm": norm,
            "n_tokens": int(n_tokens),
            **batch_row(rollouts),
            "sampler_gap": distributed.max_over_ranks(float(gap)),
            **(tally.means() if measured else {}),
        }
        if run.writer:
            run.writer.append("steps", [row])
            if measured and (step == 1 or step % params.diagnose.depth_every == 0):
                run.writer.append("depth", [{"step": step, **bucket} for bucket in tally.by_depth()])
            run.writer.append_lines("rollouts", examples)
    return row


def step_optimizer(run: Run, rollouts: Rollouts, step: int) -> float:
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


def sequence_advantages(run: Run, rollouts: Rollouts) -> Tensor | None:
    """The method's advantage of each response (B), from the rewards of its group; None if the method has none.

    Raises ValueError if a response has no reward.
    """
    if run.method.advantages is None:
        return None
    source = run.spec.params.source
    sources.require_rewards(rollouts, "task.content", f"method {run.method.name}")
    assert source.kind == "student"  # params refuses rewards of responses that are not the student's own
    advantage_PG: Tensor = run.method.advantages(rollouts.reward_B.view(-1, source.per_prompt), run.options)
    return advantage_PG.flatten()


def assess(run: Run, step: int) -> None:
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


def require_finite(run: Run, name: str, value: Tensor, rollouts: Rollouts, step: int) -> None:
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


def batch_row(rollouts: Rollouts) -> Row:
    """Length, truncation and correctness of the batch, over all processes."""
    n = total(len(rollouts.prompts))
    columns = {
        "response_length": rollouts.length_B,
        "truncated_share": ~rollouts.finished_B,
        "reward": rollouts.reward_B,
    }
    return {name: total(float(values.sum())) / n for name, values in columns.items()}


def total(value: float) -> float:
    """A number added over all processes."""
    tensor = torch.tensor(value, dtype=torch.float64)
    distributed.sum_over_ranks([tensor])
    return float(tensor)
