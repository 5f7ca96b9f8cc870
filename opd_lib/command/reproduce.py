"""The command `opd reproduce`: everything that is missing, or with overrides a try."""

from __future__ import annotations

import typer

from opd_lib import paths
from opd_lib.run import options


def reproduce(
    profile: options.Profile = "tiny",
    only: options.Only = None,
    seeds: options.Seeds = None,
    jobs: options.AtATime = None,
    results: options.Reproduced = None,
    overrides: options.Overrides = "{}",
    name: options.TryName = None,
    dry_run: options.DryRun = False,
    cluster: options.Cluster = None,
    partition: options.Partition = None,
    account: options.Account = None,
    snakemake: options.Snakemake = None,
    plan_only: options.PlanOnly = False,
    params: options.Params = paths.PARAMS,
    notebooks: options.Notebooks = paths.NOTEBOOKS,
) -> None:
    """Train what is missing and execute the notebooks, in parallel, through Snakemake. Can be stopped and resumed.

    With --overrides: a try. What they change goes to a folder of its own, which `opd tries` lists.
    """
    from opd_lib.batch import chosen as choosing
    from opd_lib.batch import cluster as clusters
    from opd_lib.batch import jobs as planning
    from opd_lib.batch import workflow
    from opd_lib.run import estimate, processes
    from opd_lib.run.streams import resumable

    changes = options.mapping(overrides)
    loaded = options.experiments(profile, only, seeds, options.records(results, changes), params, notebooks, changes)
    batch = choosing.chosen(loaded, changes, name, notebooks)
    for notebook, why in batch.left_out.items():
        typer.echo(f"left out: {notebook}: {why}", err=True)
    if dry_run:
        typer.echo(estimate.plan_text(batch.experiments))
        return
    slurm = clusters.named(cluster, partition, account)
    program = None if plan_only else workflow.find_snakemake(snakemake)
    with workflow.alone(batch.root):
        batch.begin()
        todo = planning.make_plan(batch.experiments, batch.root, notebooks, params)
        before = planning.standing(batch.experiments, todo)
        typer.echo(planning.summary(todo, batch.root, before.finished), err=True)
        if program is None:
            typer.echo(planning.write_plan(todo, batch.root, guardian=None))
            return
        at_a_time = jobs or (clusters.QUEUE if slurm else processes.cores())
        with resumable():
            workflow.carry_out(todo, batch.root, at_a_time, program, slurm, before)
    for line in batch.ended():
        typer.echo(line)
