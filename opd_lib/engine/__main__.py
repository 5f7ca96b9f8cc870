"""One process of a run, for launchers that start as many as the run has: torchrun, accelerate, a cluster's own.

    accelerate launch --num_processes 16 ... -m opd_lib.engine NOTEBOOK ARM SEED --profile paper

That is for a run over several machines. The launcher's store listens on every address of its machine and runs what is
written into it, and the processes' sockets ask for no password: whoever reaches the network can run code as you. So it
is a network between these machines alone, and `machine.network` in the params names its interface. On one machine
`opd run` does the same, starts the processes itself and opens nothing to others. Errors are one message and exit code
1; the models the run starts from must be there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from opd_lib import params, paths
from opd_lib.engine.model.distributed import connect_over
from opd_lib.engine.train import train
from opd_lib.params import RunSpec
from opd_lib.params.spec import FINISHED
from opd_lib.records import record


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one run, or this process's part of it, unless it is finished; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m opd_lib.engine", description="Train one run: one arm, one seed.")
    parser.add_argument("notebook", help="an experiment, such as 03_reverse_distillation")
    parser.add_argument("arm", help="one of its arms")
    parser.add_argument("seed", type=int)
    parser.add_argument("--profile", default="tiny", help="a folder of PARAMS (default: tiny)")
    parser.add_argument("--results", type=Path, help="folder of records (default: results/local/lab)")
    parser.add_argument("--overrides", default="{}", help='JSON, such as {"train.steps": 20}')
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="folder of params files")
    options = parser.parse_args(arguments)
    try:
        experiment = params.load(
            options.notebook, options.profile, options.overrides, (options.seed,), options.results, options.params
        )
        spec = experiment.spec(options.arm, options.seed)
        if not is_trained(spec):
            if spec.params.machine.network is not None:
                connect_over(spec.params.machine, spec.params.machine.network)
            train(spec)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"finished: {spec.folder}")
    return 0


def is_trained(spec: RunSpec) -> bool:
    """True if the record is finished and what the run makes stands beside it."""
    present = record.read(spec.folder)
    finished = present is not None and present.status == FINISHED and present.identity == spec.identity
    return finished and (spec.params.probe is not None or spec.model_folder.is_dir())


if __name__ == "__main__":
    sys.exit(main())
