"""The commands about records: how far they are, digests for those that have none, many packed into a few files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opd_lib import names, paths
from opd_lib.run import options

Verify = Annotated[bool, typer.Option("--verify", help="Read every table of finished runs and compare its digest.")]
Runs = Annotated[bool, typer.Option("--runs", help="One line per run, of all notebooks.")]
Committed = Annotated[Path, typer.Option(help="Folder of the records: the committed ones by default.")]
Notebooks = Annotated[str | None, typer.Option("--only", help="Notebooks, separated by commas. Default: all there.")]
OfSeeds = Annotated[str | None, typer.Option("--seeds", help="How many seeds (from 0), or which: 0,3,4. Default: all.")]
Output = Annotated[Path | None, typer.Option(help="Write the runs there, as OUTPUT/PROFILE, and keep the packs.")]


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
    from opd_lib.report import tables
    from opd_lib.run import overview, plan, processes, progress, timeleft, tries
    from opd_lib.run.status import MISSING
    from opd_lib.run.status import status as table

    chosen = options.experiments(profile, only, seeds, results, params, notebooks)
    specs = plan.with_parents(plan.all_runs(chosen))
    frame = table(specs, verify)
    if runs or only is not None:
        shown = frame.rename(columns={"seconds": "spent (s)", "remaining": "to go (s)"})
        typer.echo(tables.show(shown, digits=0))
    else:
        typer.echo(tables.show(overview.by_notebook(frame), digits=2))
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    unknown = bool(frame["remaining"].isna().any())
    left = 0.0 if unknown else timeleft.makespan(overview.left(specs, frame), jobs or processes.cores())
    words = "unknown until a first run is finished" if unknown else progress.duration(left)
    bad = 0 if runs or only is not None else int(frame["state"].isin(overview.BAD).sum())
    why = f"; --runs says what is the matter with {bad}" if bad else ""
    typer.echo(f"\n{len(frame)} runs in {results}: {counts or 'none'}; the rest takes: {words}{why}")
    committed = paths.RESULTS / profile
    if results.resolve() == paths.LOCAL and set(frame["state"]) == {MISSING} and committed.is_dir():
        typer.echo(f"nothing is computed here yet; what is committed lies in {committed}")
    if results.resolve() == paths.LOCAL and (found := tries.folders()):
        typer.echo(f"tries of your own, made with overrides: {len(found)} in {paths.VARIANTS} (`opd tries`)")


def seal(profile: options.Profile = "tiny", results: Committed = paths.RESULTS) -> None:
    """Give finished records that have none the digests of their tables, and show that nothing else changed."""
    from opd_lib.run import sealed

    typer.echo(sealed.seal_all(results / profile))


def pack(
    profile: options.Profile = "tiny",
    only: Notebooks = None,
    seeds: OfSeeds = None,
    results: Committed = paths.RESULTS,
) -> None:
    """Pack finished runs: a Parquet file per notebook, table and seed. Their own files go once both were compared."""
    from opd_lib.run import packs

    moved = packs.pack(_folder(results, profile), options.listed(only), options.seed_list(seeds))
    typer.echo(f"{moved}; compared byte for byte")


def unpack(
    profile: options.Profile = "tiny",
    only: Notebooks = None,
    seeds: OfSeeds = None,
    results: Committed = paths.RESULTS,
    output: Output = None,
) -> None:
    """Put packed runs back into folders of their own, byte for byte; elsewhere with --output."""
    from opd_lib.run import packs

    moved = packs.unpack(_folder(results, profile), options.listed(only), options.seed_list(seeds), output)
    typer.echo(f"{moved}; unpacked to the same bytes")


def _folder(results: Path, profile: str) -> Path:
    return results / names.require(profile, "profile", "--profile")
