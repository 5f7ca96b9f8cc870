# The batch: one shell rule per run and per notebook. `opd reproduce` writes the plan and calls Snakemake; nobody needs to.
# By hand, or on a cluster with a profile: opd reproduce --plan-only, then
#   snakemake --snakefile Snakefile --directory RESULTS --config plan=RESULTS/.plan.json --cores 2 --keep-going
# Outputs are sentinels in RESULTS/.done: Snakemake deletes outputs when a job fails, and records must outlive that.

import json
from pathlib import Path

PLAN = json.loads(Path(config["plan"]).read_text())
RUNS, NOTEBOOKS = PLAN["runs"], PLAN["notebooks"]


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
    shell:
        "{params.command}"


rule notebook:
    input:
        lambda wildcards: NOTEBOOKS[wildcards.name]["needs"],
    output:
        ".done/{name}.notebook.json",
    params:
        command=lambda wildcards: NOTEBOOKS[wildcards.name]["command"],
    shell:
        "{params.command}"
