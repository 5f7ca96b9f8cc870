"""The commands about records: how far they are, and digests for those that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opd_lib import paths
from opd_lib.run import options

Verify = Annotated[bool, typer.Option("--verify", help="Read every table of finished runs and compare its digest.")]
Committed = Annotated[Path, typer.Option(help="Folder of the records: the committed ones by default.")]


def status(
    profile: options.Profile = "tiny",
    only: options.Only = None,
    seeds: options.Seeds = None,
    jobs: options.Jobs = None,
    results: options.Results = paths.LOCAL,
    verify: Verify = False,
    params: options.Params = paths.PARAMS,
    notebooks: options.Notebooks = paths.NOTEBOOKS,
) -> None:
    """What is done, corrupt, stale, failed, running, interrupted or missing, and how long the rest takes."""
    from opd_lib.report import tables
    from opd_lib.run import plan, processes, progress
    from opd_lib.run.status import status as table

    chosen = options.experiments(profile, only, seeds, results, params, notebooks)
    frame = table(plan.with_parents(plan.all_runs(chosen)), verify)
    typer.echo(tables.show(frame, digits=0))
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    left = float(frame["remaining"].sum(skipna=False)) / (jobs or processes.cores()) if len(frame) else 0.0
    rest = "unknown until a first run is finished" if left != left else progress.duration(left)
    typer.echo(f"\n{len(frame)} runs in {results}: {counts or 'none'}; the rest takes: {rest}")


def seal(profile: options.Profile = "tiny", results: Committed = paths.RESULTS) -> None:
    """Give finished records that have none the digests of their tables, and show that nothing else changed."""
    from opd_lib.run import sealed

    typer.echo(sealed.seal_all(results / profile))
