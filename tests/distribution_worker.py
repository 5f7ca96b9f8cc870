"""One of several processes started by test_distribution: `distribution_worker.py TASK WORLD_FOLDER MEETING`.

It works on the `world` of conftest and leaves what it found in files that the test reads.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import conftest
import micro
import pytest
import torch
from torch import Tensor

from opd_lib.engine import batches, checkpoint, first_batch, score, setup, sources, train
from opd_lib.engine.model import distributed, models, sharding
from opd_lib.engine.running import ActiveRun
from opd_lib.params import RunSpec
from opd_lib.types import TokenScores

UNEVEN = {"train.micro_tokens": 60, "source.prompts_per_step": 5}
"""Few rows per micro-batch and prompts that cannot be shared equally: unequal numbers of micro-batches."""
SHARDED = UNEVEN | {"machine.shard": True}
GIVEN = {"arms.plain": {"source": conftest.CORPUS | {"prompts_per_step": 5}}}
"""Responses that do not depend on the precision in which they are sampled."""
VARIANTS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "whole": ({}, False, False),
    "sharded": ({"machine.shard": True}, False, False),
    "sharded, tied, recomputed, sharded teacher": ({"machine.shard": True, "student": "tied"}, True, False),
    "whole, bfloat16": ({"machine.precision": "bfloat16", **GIVEN}, False, True),
    "sharded, bfloat16": ({"machine.precision": "bfloat16", "machine.shard": True, **GIVEN}, False, True),
}
"""name → overrides, whether it is heavy (see `gradients`), whether it is in bfloat16."""


def spec_of(world: Path, results: str, processes: int, **overrides: Any) -> RunSpec:
    """The distillation run of the world with models made there, and its record elsewhere."""
    if "student" in overrides:
        overrides["student"] = str(world / overrides["student"])
    changes = {"machine.processes": processes} | overrides
    made = micro.load(world, micro.OPD).spec("plain", 0)
    spec = micro.load(world, micro.OPD, results, overrides=changes).spec("plain", 0)
    return replace(spec, parents={role: made.parents[role] for role in spec.parents})


class Kept:
    """In the place of an optimiser: keeps the gradients whole instead of stepping."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.param_groups = model, [{"lr": 0.0}]
        self.gradients: dict[str, Tensor] = {}

    def step(self) -> None:
        for name, parameter in self.model.named_parameters():
            assert parameter.grad is not None and parameter.grad.dtype == parameter.dtype == torch.float32, name
            self.gradients[name] = sharding.full(parameter.grad).clone()

    def zero_grad(self, set_to_none: bool) -> None:
        self.model.zero_grad(set_to_none=set_to_none)


def gradients(world: Path, processes: int, changes: dict[str, Any], heavy: bool = False) -> dict[str, Tensor]:
    """The gradient of the first step of a distillation, by weight: the whole of it, in every process.

    `heavy`: activations are computed again in the backward pass, and the teacher is sharded.
    """
    spec = spec_of(world, "none", processes, **UNEVEN, **changes, **{"train.max_grad_norm": 1e9})
    ranks = distributed.join(spec.params.machine)
    fits = sharding.fits_whole
    sharding.fits_whole = lambda *_: not heavy
    run = setup.start(spec, ranks, None, recompute=heavy)
    sharding.fits_whole = fits
    assert run.teacher is not None and sharding.is_sharded(run.teacher[0]) == heavy
    run.optimizer = kept = Kept(run.student[0])  # type: ignore[assignment]
    rollouts = sources.draw(spec.params, run.batch_key(1), run.authors)
    groups = batches.micro_batches(rollouts, spec.params.train.micro_tokens)
    counts = distributed.by_rank(len(groups))
    assert processes == 1 or len(set(counts)) > 1, f"the test needs unequal numbers of micro-batches, not {counts}"
    first_batch.require_gates(run, rollouts)
    train.update(run, rollouts, 1)
    if heavy:
        weights = sharding.gathered(run.student[0], keep=ranks.is_main)
        if ranks.is_main:
            models.save(*run.student, world / "exported", weights)
        distributed.meet()
    return kept.gradients


def at(step: int, rank: int, do: Callable[[], None]) -> None:
    """Let one process do something after an update."""
    original = train.update

    def update(run: ActiveRun, rollouts: Any, now: int) -> None:
        original(run, rollouts, now)
        if (run.ranks.rank, now) == (rank, step):
            do()

    train.update = update


def fail() -> None:
    """What a process of a run may find."""
    raise ValueError("no teacher at the door")


def refused(spec: RunSpec, expected: str) -> None:
    """Train and find the error that every process must find."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        train.train(spec)


def without_room(run: ActiveRun, step: int, original: Callable[[ActiveRun, int], None]) -> None:
    """Save a checkpoint; at step 4 the second process may write no more than 100 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if step == 4 and run.ranks.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        original(run, step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def whole_runs(world: Path, processes: int) -> None:
    """Runs with whole and with sharded weights; then sharded ones with a poisoned process and with a full disk."""
    train.train(spec_of(world, "whole", processes, **UNEVEN))
    gathered = sharding.gathered

    def keeping(model: Any, keep: bool) -> dict[str, Tensor] | None:
        found = gathered(model, keep)
        if keep:
            torch.save(found, world / "gathered.pt")
        return found

    sharding.gathered = keeping
    train.train(spec_of(world, "sharded", processes, **SHARDED))
    sharding.gathered = gathered
    check, train.require_gates = train.require_gates, lambda *_, **__: None  # or the gates would see it first
    score.Objective.value = poisoned
    refused(spec_of(world, "poisoned", processes, **SHARDED), "loss nan at step 1; the batch is in")
    score.Objective.value, train.require_gates = VALUE, check
    write_shares = checkpoint.write_shares
    checkpoint.write_shares = lambda run, step: without_room(run, step, write_shares)
    refused(spec_of(world, "full", processes, **SHARDED), "cannot save the checkpoint of step 4 (process 1: ")
    checkpoint.write_shares = write_shares
    full, corrupt = (spec_of(world, results, processes, **SHARDED) for results in ("full", "corrupt"))
    if distributed.join(corrupt.params.machine).is_main:
        shutil.copytree(full.folder / checkpoint.FOLDER, corrupt.folder / checkpoint.FOLDER)
        for share in checkpoint.saved(corrupt.folder)[0].glob("*.distcp"):
            share.write_bytes(share.read_bytes()[:100])
    distributed.meet()
    refused(corrupt, "00000002: corrupt checkpoint (process ")


def poisoned(self: score.Objective, scores: TokenScores) -> torch.Tensor:
    """Values that are not finite in the second process."""
    value_N = VALUE(self, scores)
    return value_N * float("nan") if torch.distributed.get_rank() == 1 else value_N


VALUE = score.Objective.value


def main(task: str, folder: str, meeting: str) -> None:
    """Do one task in every process."""
    world, processes = Path(folder), int(os.environ["WORLD_SIZE"])
    distributed.connect_here(spec_of(world, "none", processes).params.machine, Path(meeting))
    if task == "everything":
        whole_runs(world, processes)
    if task in ("everything", "gradients"):
        variants = VARIANTS if task == "everything" else ("whole", "sharded")
        found = {name: gradients(world, processes, *VARIANTS[name][:2]) for name in variants}
        if int(os.environ["RANK"]) == 0:
            torch.save(found, world / f"gradients{processes}.pt")
    if task == "fail":
        at(3, 1, fail)
        train.train(spec_of(world, "broken", processes, **SHARDED))
    if task == "kill":
        at(5, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
        train.train(spec_of(world, "broken", processes, **SHARDED))


if __name__ == "__main__":
    main(*sys.argv[1:])
