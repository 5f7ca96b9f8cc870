"""The jobs of a batch given to a cluster: what Snakemake is told so that Slurm runs them instead of this machine.

Every run asks for what its params say: one accelerator per process, machine.memory_gib and machine.hours. All machines
must see this repository, its environments and the results folder under the same paths. Jobs outlive the process that
submitted them and have no guardian: interrupted, `opd reproduce` cancels them; killed, it leaves Snakemake at work.
Where a job has ended before its run, the next `opd reproduce` goes on from the run's last checkpoint.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from dataclasses import dataclass

from opd_lib.params.schema import Machine

KINDS = ("slurm",)
QUEUE = 100
"""Jobs in the cluster's queue at a time, unless said otherwise."""
LATENCY = 60
"""Seconds until a file that another machine wrote must be seen here."""
CPUS_PER_GPU = 4
"""Processor cores beside each accelerator: for the process itself, its sampler's engine, and what feeds the two."""
NOTEBOOK_GIB, NOTEBOOK_HOURS = 4.0, 1.0
"""What a notebook asks of a cluster: all its runs are finished by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """A Slurm cluster; without a partition or an account, its defaults."""

    partition: str | None
    account: str | None


def named(kind: str | None, partition: str | None, account: str | None) -> Slurm | None:
    """The cluster that these options mean; None: this machine. Raises ValueError where it cannot be used."""
    if kind is None:
        for option, value in (("--partition", partition), ("--account", account)):
            if value is not None:
                raise ValueError(f"{option} {value}: belongs to a cluster; say --cluster {KINDS[0]} as well")
        return None
    if kind not in KINDS:
        raise ValueError(f"--cluster {kind}: not supported; choose from {', '.join(KINDS)}")
    if shutil.which("sbatch") is None:
        raise ValueError(f"--cluster {kind}: no program sbatch on the path; run this where jobs can be submitted")
    return Slurm(partition=partition, account=account)


def arguments(slurm: Slurm, queue: int) -> list[str]:
    """What Snakemake is told beside the plan, with at most `queue` jobs submitted at a time.

    Where no accounts are kept its plugin, which asks sacct for the state of jobs, would wait for ever.
    """
    words = ["--executor", "slurm", "--jobs", str(queue), "--latency-wait", str(LATENCY)]
    defaults = {"slurm_partition": slurm.partition, "slurm_account": slurm.account}
    chosen = [f"{name}={value}" for name, value in defaults.items() if value is not None]
    words += ["--default-resources", *chosen] if chosen else []
    words += [] if slurm.account else ["--slurm-no-account"]
    return words + ([] if keeps_accounts() else ["--slurm-status-command", "squeue"])


def keeps_accounts() -> bool:
    """Whether the cluster has an accounting database, which remembers jobs that have ended."""
    try:
        answered = subprocess.run(["sacct", "--noheader", "--allocations"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return answered.returncode == 0


def resources(machine: Machine | None) -> dict[str, int]:
    """What a job asks of a cluster, under Snakemake's names (MiB, minutes): one node; None stands for a notebook."""
    if machine is None:
        gpus, cpus, gib, hours = 0, 1, NOTEBOOK_GIB, NOTEBOOK_HOURS
    else:
        gpus = machine.processes if machine.device == "cuda" else 0
        cpus, gib, hours = max(machine.processes, CPUS_PER_GPU * gpus), machine.memory_gib, machine.hours
    return {
        "nodes": 1,
        "gpu": gpus,
        "cpus_per_task": cpus,
        "mem_mb": math.ceil(1024 * gib),
        "runtime": math.ceil(60 * hours),
    }
