# The batch: one shell rule per run and per notebook. `opd reproduce` writes the plan and calls Snakemake; nobody needs to.
# By hand, or on another kind of cluster, with its executor plugin: opd reproduce --plan-only, then
#   snakemake --snakefile Snakefile --directory RESULTS --cores 2 --keep-going
# Resources are what a job asks of a cluster; on one machine only the threads count. The most urgent job that can start
# starts first: the one with the longest way to the end behind it.
# Texts are kept from Snakemake, which would fill in what stands in braces: as functions, or with the braces doubled.
# Outputs are sentinels in RESULTS/.done: Snakemake deletes outputs when a job fails, and records must outlive that.

import json
import re
from pathlib import Path

PLAN = json.loads(Path(".plan.json").read_text())
JOBS = PLAN["runs"] | PLAN["notebooks"]


def literal(path):
    return path.replace("{", "{{").replace("}", "}}")


rule all:
    input:
        [literal(job["done"]) for job in JOBS.values()],


for number, (name, job) in enumerate(JOBS.items()):
    asked = job["resources"]

    rule:
        name:
            f"job_{number}_" + re.sub(r"\W", "_", name)
        input:
            [literal(need) for need in job["needs"]],
        output:
            literal(job["done"]),
        params:
            command=lambda wildcards, command=job["command"]: command,
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
