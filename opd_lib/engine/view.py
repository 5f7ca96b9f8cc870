"""What a method sees of a step before anything is trained, and what it makes of that: who counts, and how much.

    responses → View → advantages (B) → weights (N), selected responses (B), shares (N each), columns for the record

If the method reads signals, student and teacher score all responses once for the view, without gradient; they do so
again, a micro-batch at a time, where the values are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, score, sources
from opd_lib.engine import teacher as teachers
from opd_lib.engine.credit import Credit
from opd_lib.engine.model import distributed, models
from opd_lib.maths import diagnostics
from opd_lib.seam import View
from opd_lib.types import Rollouts

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.engine.running import ActiveRun
    from opd_lib.methods import Method


OutputOf = Callable[[Rollouts, "Tensor"], teachers.TeacherOutput]
"""A teacher's output for the tokens of some rows of the responses."""


def credit(run: ActiveRun, rollouts: Rollouts, step: int, output_of: OutputOf | None = None) -> Credit:
    """What the run's method makes of the responses of a step; `output_of`: under another teacher than the run's.

    Raises ValueError where the method breaks its contract. Every process must call it.
    """
    if not run.method.views:
        return Credit()
    if "reward" in run.method.needs:
        sources.require_rewards(rollouts, "task.content", f"method {run.method.name}")
    return assign(run.method, run.options, of_run(run, rollouts, step, output_of))


def assign(method: Method, options: Any, view: View) -> Credit:
    """The credit that a method assigns to what it views. Raises ValueError where it breaks its contract."""
    if method.advantages:
        advantage_X = method.advantages(view, options)
        by_token = advantage_X.shape == view.token_N.shape
        require(method, "advantages", advantage_X, view.token_N if by_token else view.reward_B)
        view = replace(view, advantage_N=advantage_X if by_token else advantage_X[view.row_N])
    weight_N = method.weights(view, options) if method.weights else None
    selected_B = method.select(view, options) if method.select else None
    shares = method.shares(view, options) if method.shares else {}
    if weight_N is not None:
        require(method, "weights", weight_N, view.token_N, at_least=0.0)
    for name, share_N in shares.items():
        require(method, f"shares: {name}", share_N, view.token_N, at_least=0.0)
    if selected_B is not None:
        require(method, "select", selected_B, view.reward_B)
    return Credit(
        advantage_N=view.advantage_N,
        weight_N=weight_N,
        selected_B=selected_B,
        shares=shares,
        notes=method.notes(view, options) if method.notes else {},
    )


def of_run(run: ActiveRun, rollouts: Rollouts, step: int, output_of: OutputOf | None = None) -> View:
    """All of this process's responses; with its signals, if the method reads any. Every process must call it."""
    view = of(rollouts, sources.group_size(run.spec.params.source), signals(run, rollouts, output_of))
    texts = cache(partial(sources.decode, rollouts, run.student[1]))
    return replace(view, uniform_B=uniform(run, rollouts, step), texts=texts)


def of(rollouts: Rollouts, group: int, signal: Mapping[str, Tensor]) -> View:
    """Responses as a method sees them, `group` to a prompt, without random numbers and texts."""
    token_N, row_N, position_N = batches.packed(rollouts, torch.arange(len(rollouts.prompts)))
    return View(
        signal=signal,
        token_N=token_N,
        row_N=row_N,
        position_N=position_N,
        turn_N=torch.zeros_like(token_N) if rollouts.turn_BT is None else rollouts.turn_BT[row_N, position_N],
        reward_PG=rollouts.reward_B.view(-1, group),
        reward_B=rollouts.reward_B,
        length_B=rollouts.length_B,
        finished_B=rollouts.finished_B,
        uniform_B=torch.full_like(rollouts.reward_B, torch.nan),
        prompts=rollouts.prompts,
        shown_numbers=rollouts.shown_numbers,
        texts=tuple,
    )


@torch.no_grad()
def signals(run: ActiveRun, rollouts: Rollouts, output_of: OutputOf | None = None) -> dict[str, Tensor]:
    """What the method reads of each token (N), of all responses in row order, in the machine's own memory."""
    names = run.method.reads(run.options).signals
    if not names:
        return {}
    found = {name: torch.full((int(rollouts.n_own_B.sum()),), torch.nan) for name in names}
    groups = batches.micro_batches(rollouts, run.spec.params.train.micro_tokens)
    for rows, _ in batches.lock_step(groups):
        k = score.length(names)
        output = output_of(rollouts, rows) if output_of else run.teacher_output(rollouts, rows, k)
        scores = score.constants(run.student[0], output, rollouts, rows, k, run.chunk)
        index_N = batches.places(rollouts, rows)
        for name, value_N in diagnostics.signals(scores, names).items():
            found[name][index_N] = value_N.to(found[name])
    return found


def uniform(run: ActiveRun, rollouts: Rollouts, step: int) -> Tensor:
    """A random number in [0, 1) for each response (B), of (seed, step) and of its place in the whole batch."""
    ranks, number_B = run.ranks, rollouts.number_B
    if number_B is None:
        number_B = ranks.rank + ranks.world * torch.arange(len(rollouts.prompts))
    total = int(distributed.max_over_ranks(float(number_B.max()))) + 1
    return torch.rand(total, generator=models.generator(run.spec.seed, "view", step))[number_B]


def require(method: Method, what: str, value_X: Tensor, like_X: Tensor, at_least: float | None = None) -> None:
    """Raise ValueError unless a method's result has the shape it must have, and finite numbers where they are any."""
    if value_X.shape != like_X.shape:
        problem = f"has shape {tuple(value_X.shape)}; it must have {tuple(like_X.shape)}"
    elif value_X.dtype != torch.bool and not value_X.isfinite().all():
        problem = "has numbers that are not finite"
    elif at_least is not None and value_X.min() < at_least:
        problem = f"has {float(value_X.min()):g}; use {at_least:g} or more"
    else:
        return
    raise ValueError(f"method {method.name}: {what} {problem}")
