"""One run: in this process, or in as many as it has, which torchrun starts."""

from __future__ import annotations

import os
import sys

from opd_lib.params import RunSpec
from opd_lib.run import plan

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def train(spec: RunSpec, spawned: bool) -> bool:
    """Train a run to its end unless that is done; whether it is. `spawned`: this is one of its processes.

    Where several are needed this process becomes torchrun, which calls the same command once for each. Raises
    ValueError naming a parent whose weights are not there.
    """
    for parent in spec.parents.values():
        if not plan.trained(parent):
            raise ValueError(
                f"{spec.name}: needs {parent.name}, whose weights are not in {parent.model_folder}; first do "
                f"`opd run {parent.experiment} {parent.arm} {parent.seed}`, or `opd reproduce --only {spec.experiment}`"
            )
    processes = spec.params.machine.processes
    if processes > 1 and not spawned:
        os.execv(sys.executable, [*TORCHRUN, str(processes), "-m", "opd_lib.run.cli", *sys.argv[1:], "--spawned"])
    if not plan.trained(spec):
        from opd_lib.engine import train as engine

        engine.train(spec)
    return plan.trained(spec)
