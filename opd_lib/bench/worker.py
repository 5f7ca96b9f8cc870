"""One entrant, one size, in a process of its own: `python -m opd_lib.bench.worker REQUEST`, a JSON line per step.

Memory is the kernel's own count of this process. `step_mib` is what the step needed on top of what stood before it:
weights of both models and AdamW's moments. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from opd_lib.bench.entrants import ENTRANTS
from opd_lib.bench.workload import Size, Workload

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One step: response tokens, processor and wall seconds, memory in MiB, loss (nats per token), gradient norm."""

    produced: int
    cpu_s: float
    wall_s: float
    peak_mib: float
    step_mib: float
    loss: float
    norm: float


def resident(what: str) -> float:
    """VmRSS or VmHWM (MiB): what this process holds now, or has held since `forget`."""
    found = re.search(rf"{what}:\s+(\d+) kB", STATUS.read_text())
    assert found
    return int(found[1]) / 1024


def forget() -> None:
    """Give free memory back and begin to count the peak anew."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    CLEAR.write_text("5")


def measure(name: str, size: Size, warm: int, steps: int) -> list[Measured]:
    """`steps` measured steps after `warm` others. The first is at weights that are the same for everybody."""
    torch.set_num_threads(1)
    work = Workload(size)
    loss_of = ENTRANTS[name].make(work)
    for parameter in work.student.parameters():  # the moments come into being, the weights stay
        parameter.grad = torch.zeros_like(parameter)
    work.step()
    found = []
    for _ in range(warm + steps):
        forget()
        before = resident("VmRSS")
        cpu, wall = time.process_time(), time.perf_counter()
        loss, backward = loss_of()
        backward()
        norm = work.step()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = resident("VmHWM")
        found.append(
            Measured(
                produced=work.produced,
                cpu_s=cpu,
                wall_s=wall,
                peak_mib=peak,
                step_mib=peak - before,
                loss=loss,
                norm=norm,
            )
        )
    return found[warm:]


def main(request: dict[str, Any]) -> None:
    """Measure and print."""
    for one in measure(request["entrant"], Size(**request["size"]), request["warm"], request["steps"]):
        print(json.dumps(asdict(one)), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
