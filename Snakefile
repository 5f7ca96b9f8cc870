# The batch: one shell rule per run and per notebook. `opd reproduce` writes the plan and calls Snakemake; nobody needs to.
# By hand, or on another kind of cluster, with its executor plugin: opd reproduce --plan-only, then
#   snakemake --snakefile Snakefile --directory RESULTS --config plan=RESULTS/.plan.json --cores 2 --keep-going
# Resources are what a job asks of a cluster; on one machine only the threads count.
# Outputs are sentinels in RESULTS/.done: Snakemake deletes outputs when a job fails, and records must outlive that.

import json
from pathlib import Path

PLAN = json.loads(Path(config["plan"]).read_text())
RUNS, NOTEBOOKS = PLAN["runs"], PLAN["notebooks"]


def asks(jobs, key):
    return lambda wildcards: jobs[wildcards.name]["resources"][key]


rule all:
    input:
        [job["done"] for job in (RUNS | NOTEBOOKS).values()],


rule run:
    input:
        lambda wildcards: RUNS[wildcards.name]["needs"],
    output:
        ".done/{name}.run.json",
    params:
        command=lambda wildcards: RUNS[wildcards.name]["command"],
    threads: lambda wildcards: RUNS[wildcards.name]["cores"]
    resources:
        nodes=asks(RUNS, "nodes"),
        gpu=asks(RUNS, "gpu"),
        cpus_per_task=asks(RUNS, "cpus_per_task"),
        mem_mb=asks(RUNS, "mem_mb"),
        runtime=asks(RUNS, "runtime"),
    shell:
        "{params.command}"


rule notebook:
    input:
        lambda wildcards: NOTEBOOKS[wildcards.name]["needs"],
    output:
        ".done/{name}.notebook.json",
    params:
        command=lambda wildcards: NOTEBOOKS[wildcards.name]["command"],
    resources:
        nodes=asks(NOTEBOOKS, "nodes"),
        gpu=asks(NOTEBOOKS, "gpu"),
        cpus_per_task=asks(NOTEBOOKS, "cpus_per_task"),
        mem_mb=asks(NOTEBOOKS, "mem_mb"),
        runtime=asks(NOTEBOOKS, "runtime"),
    shell:
        "{params.command}"
