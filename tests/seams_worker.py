"""One of the processes started by test_methods_on_machines: it leaves every method's first gradients in the world."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distribution_worker import Kept
from seams import ARMS, MACHINES, refusal, spec_of

from opd_lib.engine import setup, train
from opd_lib.engine.model import distributed
from opd_lib.engine.running import ActiveRun

UNEVEN = {"train.micro_tokens": 60, "source.prompts_per_step": 5, "train.max_grad_norm": 1e9}
"""Few rows per micro-batch and prompts that cannot be shared equally: unequal numbers of micro-batches."""


def first(world: Path, arm: str, machine: dict[str, Any]) -> dict[str, Any]:
    """The gradient of a method's first step by weight, and its row of `steps`."""
    spec = spec_of(world, world / "none", f"{arm}-there", **UNEVEN | ARMS[arm] | machine)
    run = setup.start(spec, distributed.join(spec.params.machine), None, recompute=False)
    run.optimizer = kept = Kept(run.student[0])  # type: ignore[assignment]
    train.act_between_steps(run, {"step": 0})
    row = train.update(run, train.draw(run, 1), 1)
    return {"gradients": kept.gradients, "row": row}


BETWEEN = ("prune", "opsd-ema", "opsdc", "eff_opd")
"""Methods that act between two steps."""


def stopped(world: Path, arm: str) -> None:
    """A run with sharded weights that every process leaves one step after a checkpoint; it goes on to its end."""
    spec, update = spec_of(world, world / "sharded", arm, **MACHINES["sharded"]), train.update

    def failing(run: ActiveRun, rollouts: Any, step: int) -> Any:
        if step == 5:
            raise ValueError("stopped here")
        return update(run, rollouts, step)

    train.update = failing
    with pytest.raises(ValueError, match="stopped here"):
        train.train(spec)
    train.update = update
    train.train(spec)


def main(folder: str, meeting: str) -> None:
    """Every method in all processes, with whole weights and, where it can, with weights shared out."""
    world, whole = Path(folder), {"machine.processes": int(os.environ["WORLD_SIZE"])}
    distributed.connect_here(spec_of(world, world, "vopd", **whole).params.machine, Path(meeting))
    found = {(arm, "processes"): first(world, arm, whole) for arm in ARMS}
    for arm in ARMS:
        if not refusal(world, arm, MACHINES["sharded"]):
            found[arm, "sharded"] = first(world, arm, MACHINES["sharded"])
    for arm in BETWEEN:
        stopped(world, arm)
    if int(os.environ["RANK"]) == 0:
        torch.save(found, world / "together.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
