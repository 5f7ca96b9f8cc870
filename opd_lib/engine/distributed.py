"""Ranks and sums. One process is the special case of many: every function works without a process group."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process's place among `world` processes."""

    rank: int
    world: int

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0


def join(processes: int) -> Ranks:
    """Join the process group that the launcher described, if any.

    Raises ValueError unless exactly `processes` were started: a launcher that silently starts one process would
    otherwise train on a fraction of the batch.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != processes:
        raise ValueError(
            f"machine.processes: {processes} asked for, {world} started; use `torchrun --nproc-per-node {processes}`, "
            "which `opd run` calls for you"
        )
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return Ranks(rank=dist.get_rank() if world > 1 else 0, world=world)


def sum_over_ranks(tensors: Iterable[torch.Tensor]) -> None:
    """Add each tensor over all processes, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def max_over_ranks(value: float) -> float:
    """The largest value any process holds."""
    tensor = torch.tensor(value, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)
