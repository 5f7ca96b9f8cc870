"""The commands `opd tries`: the experiments of one's own, which overrides have made."""

from __future__ import annotations

from typing import Annotated

import typer

from opd_lib import paths

tries = typer.Typer(
    name="tries",
    invoke_without_command=True,
    help="Your own experiments, made with overrides: all of them, or two compared, one renamed or deleted.",
)
Known = Annotated[str, typer.Argument(help="Its name or its hash, as `opd tries` shows them.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@tries.callback()
def listed(context: typer.Context) -> None:
    """Your own experiments, made with overrides: all of them, or two compared, one renamed or deleted."""
    if context.invoked_subcommand is not None:
        return
    from opd_lib.report import tables
    from opd_lib.run import tried
    from opd_lib.run import tries as own

    if found := own.every():
        typer.echo(tables.show(tried.table(found)))
    else:
        typer.echo(f'No tries in {paths.VARIANTS}: overrides = {{"train.lr": 2e-4}} in a notebook make one.')


@tries.command()
def compare(first: Known, second: Known) -> None:
    """Two tries side by side: parameters that differ, accuracy at the start and at the end."""
    from opd_lib.run import tried
    from opd_lib.run import tries as own

    typer.echo(tried.compare(own.find(first), own.find(second)))


@tries.command()
def rename(
    known: Known, name: Annotated[str, typer.Argument(help="What it is called from now on; its hash: no name.")]
) -> None:
    """Give a try a name; its folder stays where it is."""
    from opd_lib.run import tries as own

    typer.echo(f"{known} is now {own.rename(known, name).name}")


@tries.command()
def delete(known: Known, yes: Yes = False) -> None:
    """Delete a try with its records, checkpoints and figures; not while one of its runs is going on."""
    from opd_lib.run import tries as own

    folder = own.locate(known)
    if not yes:
        typer.confirm(f"Delete {folder} with all that is in it?", abort=True, err=True)
    typer.echo(f"deleted: {own.delete(known)}")
