"""Processes that share a run: their ranks, sums over them, and one fate.

One process is the special case of many: every function works without a process group.

Whoever writes into the store through which processes meet can run code in them, and the sockets between them ask
nobody for a password. On one machine the store is a file that nobody else can open and the sockets are the loopback
interface's: `run/ranks`. Over several machines both are open to a network, which has to be named.
"""

from __future__ import annotations

import os
import signal
import socket
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
    from opd_lib.params.schema import Machine

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
    """This process's place among those of its run, which `connect` has brought together if they are several.

    Raises ValueError unless exactly `machine.processes` were started (a launcher that silently starts one process
    would otherwise train on a fraction of the batch), if they are not connected, and if weights are to be sharded over
    one process.
    """
    world = require_started(machine)
    if machine.shard and world == 1:
        raise ValueError("machine.shard: true with processes: 1: there is nothing to spread; use shard: false")
    if world > 1 and not dist.is_initialized():
        raise ValueError(
            f"machine.processes: {world} were started by a launcher (torchrun, accelerate) whose store listens on "
            "every address of this machine and believes whoever writes into it. On one machine use `opd run`, which "
            "opens nothing to others; over several machines, name the interface of a network that nobody else reaches: "
            "machine.network in the params"
        )
    return Ranks(rank=dist.get_rank(), world=world) if world > 1 else ALONE


def require_started(machine: Machine) -> int:
    """How many processes the launcher has started. Raises ValueError unless as many were asked for."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != machine.processes:
        raise ValueError(
            f"machine.processes: {machine.processes} asked for, {world} started; use `opd run`, which starts them. "
            f"Over several machines: torchrun, or `accelerate launch --num_processes {machine.processes}` (without a "
            "GPU: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu, because its --cpu starts one process without "
            "a word) -m opd_lib.engine"
        )
    return world


def connect_here(machine: Machine, file: Path) -> None:
    """Connect this process with the others of its run, all on this machine, through a file that is not there yet.

    Nothing listens but on the loopback interface; the file's folder is local and the caller's alone. Raises ValueError
    as `require_started` does.
    """
    world = require_started(machine)
    store = dist.FileStore(str(file), world)  # type: ignore[attr-defined]
    _connect(machine, loopback(), store=store, rank=int(os.environ.get("RANK", "0")), world_size=world)


def connect_over(machine: Machine, network: str) -> None:
    """Connect this process with the others of its run at the address that the launcher gives, over a named interface.

    The launcher's store and the processes' sockets are open to everybody who reaches this machine there. Raises
    ValueError as `require_started` does, and naming the interfaces there are if this is none.
    """
    world = require_started(machine)
    known = [name for _, name in socket.if_nameindex()]
    if network not in known:
        raise ValueError(f"machine.network: {network} is no interface of this machine; choose from {', '.join(known)}")
    if world > 1:
        _connect(machine, network)


def stand_alone(machine: Machine) -> None:
    """A process group of this process alone, if there is none: libraries that want one would open ports for theirs."""
    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined]
        _connect(machine, loopback(), store=store, rank=0, world_size=1)


def loopback() -> str:
    """The interface that only this machine reaches."""
    return next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))


def _connect(machine: Machine, interface: str, **meeting: Any) -> None:
    if machine.device == "cuda" and machine.processes > 1:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    os.environ |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}  # they read it nowhere else
    backend = "gloo" if machine.device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE, **meeting)


def are_many() -> bool:
    """True if other processes share this run. (For vLLM there is a process group of one.)"""
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
            if connection_broke(error):
                raise ValueError("another process of this run has ended; what it said stands in this log") from error
            if isinstance(error, Exception):
                with suppress(OSError):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    (self.folder / f"{NOTE}{self.ranks.rank}").write_text(f"{type(error).__name__}: {error}")
            return
        # a failing run has its record to write before it may be terminated
        signal.signal(signal.SIGTERM, self._before if error is None else signal.SIG_IGN)
        if connection_broke(error) or isinstance(error, SystemExit):
            failures = [f"process {note.name.removeprefix(NOTE)}: {note.read_text()}" for note in self._notes()]
            if failures:
                raise ValueError("; ".join(failures)) from error
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
