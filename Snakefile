# The batch: one shell rule per run and per notebook. `opd reproduce` writes the plan and calls Snakemake; nobody needs to.
# By hand, or on another kind of cluster, with its executor plugin: opd reproduce --plan-only, then
#   snakemake --snakefile Snakefile --directory RESULTS --config plan=RESULTS/.plan.json --cores 2 --keep-going
# Resources are what a job asks of a cluster; on one machine only the threads count. The most urgent job that can start
# starts first: the one with the longest way to the end behind it.
# Outputs are sentinels in RESULTS/.done: Snakemake deletes outputs when a job fails, and records must outlive that.

import json
import re
from pathlib import Path

PLAN = json.loads(Path(config["plan"]).read_text())
JOBS = PLAN["runs"] | PLAN["notebooks"]


rule all:
    input:
        [job["done"] for job in JOBS.values()],


for number, (name, job) in enumerate(JOBS.items()):
    asked = job["resources"]

    rule:
        name:
            f"job_{number}_" + re.sub(r"\W", "_", name)
        input:
            job["needs"],
        output:
            job["done"],
        params:
            command=job["command"],
        priority: job["urgency"]
        threads: job["cores"]
        resources:
            nodes=asked["nodes"],
            gpu=asked["gpu"],
            cpus_per_task=asked["cpus_per_task"],
            mem_mb=asked["mem_mb"],
            runtime=asked["runtime"],
        shell:
            "{params.command}"
