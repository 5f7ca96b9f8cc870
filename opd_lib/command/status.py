"""The command `opd status`: how far runs and notebooks are, and how long the rest takes."""

from __future__ import annotations

from typing import Annotated

import typer

from opd_lib import paths
from opd_lib.run import options

Verify = Annotated[bool, typer.Option("--verify", help="Read every table of finished runs and compare its digest.")]
Runs = Annotated[bool, typer.Option("--runs", help="One line per run, of all notebooks.")]


def status(
    profile: options.Profile = "tiny",
    only: options.Only = None,
    seeds: options.Seeds = None,
    jobs: options.Jobs = None,
    results: options.Results = paths.LOCAL,
    verify: Verify = False,
    runs: Runs = False,
    params: options.Params = paths.PARAMS,
    notebooks: options.Notebooks = paths.NOTEBOOKS,
) -> None:
    """What is done, corrupt, stale, failed, running, interrupted or missing, by notebook, and how long the rest takes.

    One line per run with --runs, and of the notebooks that --only names.
    """
    from opd_lib.batch import execute
    from opd_lib.records import files
    from opd_lib.report import tables
    from opd_lib.run import overview, plan, processes, progress, timeleft, tries
    from opd_lib.run.status import DONE, MISSING
    from opd_lib.run.status import status as table

    chosen = options.experiments(profile, only, seeds, results, params, notebooks)
    specs = plan.with_parents(plan.all_runs(chosen))
    frame = table(specs, verify)
    undone = {row.run for row in frame.itertuples() if row.state != DONE}
    reads = {each.name: [spec.name for spec in plan.with_parents(each.runs())] for each in chosen}
    executed = {}
    for each in chosen:
        request = execute.Request.of(each, notebooks, params)
        executed[each.name] = undone.isdisjoint(reads[each.name]) and execute.is_done(request, each)
    if runs or only is not None:
        shown = frame.rename(columns={"seconds": "spent (s)", "remaining": "to go (s)"})
        typer.echo(tables.show(shown, digits=0))
    else:
        typer.echo(tables.show(overview.by_notebook(frame, executed)))
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    unknown = bool(frame["remaining"].isna().any())
    pieces = overview.left(specs, frame, {name: reads[name] for name, is_done in executed.items() if not is_done})
    left = 0.0 if unknown else timeleft.makespan(pieces, jobs or processes.cores())
    words = "unknown until a first run is finished" if unknown else progress.duration(left)
    bad = 0 if runs or only is not None else int(frame["state"].isin(overview.BAD).sum())
    why = f"; --runs says what is the matter with {bad}" if bad else ""
    done = f"{sum(executed.values())} of {len(executed)} notebooks executed"
    typer.echo(f"\n{len(frame)} runs in {results}: {counts or 'none'}; {done}; the rest takes: {words}{why}")
    if results.resolve() != paths.LOCAL:
        return
    committed = paths.RESULTS / profile
    if set(frame["state"]) == {MISSING} and committed.is_dir():
        typer.echo(f"nothing is computed here yet; what is committed lies in {committed}")
    if by_hand := len(files.runs(paths.LAB / profile)):
        typer.echo(
            f"{progress.many(by_hand, 'run')} of notebooks and of `opd run` in {paths.LAB} (--results {paths.LAB}); "
            "`opd reproduce` makes its own"
        )
    if found := tries.folders():
        typer.echo(f"tries of your own, made with overrides: {len(found)} in {paths.VARIANTS} (`opd tries`)")
