"""The commands that rewrite records: digests for those that have none, many packed into a few files, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opd_lib import names, paths
from opd_lib.run import options

Committed = Annotated[Path, typer.Option(help="Folder of the records: the committed ones by default.")]
Notebooks = Annotated[str | None, typer.Option("--only", help="Notebooks, separated by commas. Default: all there.")]
OfSeeds = Annotated[str | None, typer.Option("--seeds", help="How many seeds (from 0), or which: 0,3,4. Default: all.")]
Output = Annotated[Path | None, typer.Option(help="Write the runs there, as OUTPUT/PROFILE, and keep the packs.")]


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
