"""One run: in this process, or in as many as it has, which torchrun starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from opd_lib.params import RunSpec
from opd_lib.run import plan

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def train(spec: RunSpec, spawned: bool) -> Path | None:
    """Train a run to its end unless that is done; the folder of its record, None if it did not come to its end.

    Where several processes are needed this one becomes torchrun, which calls the same command once for each, `spawned`.
    Raises ValueError naming a parent whose weights are not there.
    """
    for parent in spec.parents.values():
        if not plan.trained(parent):
            results = spec.origin.results
            options = f" --profile {spec.profile}" + ("" if results is None else f" --results {results}")
            raise ValueError(
                f"{spec.name}: needs {parent.name}, whose weights are not in {parent.model_folder}; first do "
                f"`opd run {parent.experiment} {parent.arm} {parent.seed}{options}`, or "
                f"`opd reproduce --only {spec.experiment}{options}`"
            )
    processes = spec.params.machine.processes
    if processes > 1 and not spawned:
        os.execv(sys.executable, [*TORCHRUN, str(processes), "-m", "opd_lib.run.cli", *sys.argv[1:], "--spawned"])
    if not plan.trained(spec):
        from opd_lib.engine import train as engine

        engine.train(spec)
    plan.swept([spec])
    if weights := spec.weights:
        return weights.parent
    found = plan.finished(spec) if plan.trained(spec) else None
    return None if found is None else found.folder
