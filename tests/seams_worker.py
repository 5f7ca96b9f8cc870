"""One of the processes started by test_seams: it leaves every method's first gradients in the world's folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from distribution_worker import Kept
from seams import ARMS, spec_of

from opd_lib.engine import setup, train
from opd_lib.engine.model import distributed

UNEVEN = {"train.micro_tokens": 60, "source.prompts_per_step": 5, "train.max_grad_norm": 1e9}
"""Few rows per micro-batch and prompts that cannot be shared equally: unequal numbers of micro-batches."""


def first(world: Path, arm: str, processes: int) -> dict[str, Any]:
    """The gradient of a method's first step by weight, and its row of `steps`."""
    changes = UNEVEN | ARMS[arm] | {"machine.processes": processes}
    spec = spec_of(world, world / "none", f"{arm}-{processes}", **changes)
    run = setup.start(spec, distributed.join(spec.params.machine), None, recompute=False)
    run.optimizer = kept = Kept(run.student[0])  # type: ignore[assignment]
    train.between(run, {"step": 0})
    row = train.update(run, train.draw(run, 1), 1)
    return {"gradients": kept.gradients, "row": row}


def main(folder: str, meeting: str) -> None:
    """Every method, in all processes."""
    world, processes = Path(folder), int(os.environ["WORLD_SIZE"])
    machine = spec_of(world, world, "vopd", **ARMS["vopd"] | {"machine.processes": processes}).params.machine
    distributed.connect_here(machine, Path(meeting))
    found = {arm: first(world, arm, processes) for arm in ARMS}
    if int(os.environ["RANK"]) == 0:
        torch.save(found, world / "together.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
