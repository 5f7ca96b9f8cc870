"""Processes that share a run: their ranks, sums over them, and one fate.

One process is the special case of many: every function works without a process group.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from opd_lib.schema import Machine

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: one share of long responses may take much longer than another."""
NOTE = ".failed-rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process's place among `world` processes."""

    rank: int
    world: int

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    def share(self, n: int) -> list[int]:
        """Which of n things this process takes, dealt in turn."""
        return list(range(n))[self.rank :: self.world]


ALONE = Ranks(rank=0, world=1)


def join(machine: Machine) -> Ranks:
    """Join the process group that the launcher described, if any.

    Raises ValueError unless exactly `machine.processes` were started (a launcher that silently starts one process
    would otherwise train on a fraction of the batch), and if weights are to be sharded over one process.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != machine.processes:
        raise ValueError(
            f"machine.processes: {machine.processes} asked for, {world} started; use `opd run`, which starts them, "
            f"`torchrun --nproc-per-node {machine.processes}`, or `accelerate launch --num_processes "
            f"{machine.processes}` (without a GPU: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu, "
            "because its --cpu starts one process without a word)"
        )
    if machine.shard and world == 1:
        raise ValueError("machine.shard: true with processes: 1: there is nothing to spread; use shard: false")
    if world > 1 and not dist.is_initialized():
        if machine.device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("gloo" if machine.device == "cpu" else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
    return Ranks(rank=dist.get_rank(), world=world) if world > 1 else ALONE


def are_many() -> bool:
    """True if other processes share this run. (vLLM makes a process group of one, for itself.)"""
    return dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensors: Iterable[torch.Tensor]) -> None:
    """Add each tensor over all processes, in place."""
    if are_many():
        for tensor in tensors:
            dist.all_reduce(tensor)


def total(value: float) -> float:
    """A number added over all processes."""
    tensor = torch.tensor(value, dtype=torch.float64)
    sum_over_ranks([tensor])
    return float(tensor)


def max_over_ranks(value: float) -> float:
    """The largest value any process holds."""
    tensor = torch.tensor(value, dtype=torch.float64)
    if are_many():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)


def by_rank(value: float) -> list[float]:
    """What each process holds, known to all."""
    if not are_many():
        return [value]
    values = torch.zeros(dist.get_world_size(), dtype=torch.float64)
    values[dist.get_rank()] = value
    dist.all_reduce(values)
    found: list[float] = values.tolist()
    return found


def meet() -> None:
    """Wait until every process is here."""
    max_over_ranks(0.0)


class OneFate:
    """Inside the block the failure of one process ends all; the process that writes the record learns whose it was.

    A failing process leaves a note in the run's folder. The broken connection and the launcher end the others within
    seconds; the writing process then raises ValueError with what the note says (a killed process leaves none).
    Terminated together, as by a scheduler, the processes end as they are and the run counts as interrupted.
    """

    def __init__(self, ranks: Ranks, folder: Path) -> None:
        self.ranks, self.folder = ranks, folder
        self._before: Any = signal.SIG_DFL

    def __enter__(self) -> None:
        if self.ranks.is_main and self.ranks.world > 1:
            for left in self._notes():
                left.unlink()
            self._before = signal.signal(signal.SIGTERM, _end)
        meet()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ranks.world == 1:
            return
        if not self.ranks.is_main:
            if isinstance(error, Exception) and not connection_broke(error):
                with suppress(OSError):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    (self.folder / f"{NOTE}{self.ranks.rank}").write_text(f"{type(error).__name__}: {error}")
            return
        # a failing run has its record to write before it may be terminated
        signal.signal(signal.SIGTERM, self._before if error is None else signal.SIG_IGN)
        if connection_broke(error) or isinstance(error, SystemExit):
            said = [f"process {note.name.removeprefix(NOTE)}: {note.read_text()}" for note in self._notes()]
            if said:
                raise ValueError("; ".join(said)) from error
        if connection_broke(error):
            raise ValueError(
                "another process of this run ended without a word (killed? out of memory?); the launcher's report in "
                "the log names it; run again to go on"
            ) from error

    def _notes(self) -> list[Path]:
        return sorted(self.folder.glob(f"{NOTE}*"))


def connection_broke(error: BaseException | None) -> bool:
    """True for what a process sees when another one has gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
