"""The command `opd lab`: copies of the notebooks, and JupyterLab on them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from opd_lib import paths

Arguments = Annotated[
    list[str] | None,
    typer.Argument(help="Options of JupyterLab, behind `--`: opd lab -- --no-browser --port=8890.", show_default=False),
]
CopyOnly = Annotated[bool, typer.Option("--copy-only", help="Bring the copies up to date and start nothing.")]


def lab(arguments: Arguments = None, copy_only: CopyOnly = False) -> None:
    """Open copies of the notebooks, in lab/, in JupyterLab: a changed copy is kept, the originals stay untouched."""
    from opd_lib.batch import lab as copies

    done = copies.copy_all()
    for what in (copies.MADE, copies.REFRESHED, copies.NEW):
        if names := [copied.path.name for copied in done if copied.what == what]:
            typer.echo(f"{SAID[what]}: {', '.join(names)}", err=True)
    typer.echo(f"{len(done)} notebooks to change and run in {paths.COPIES}", err=True)
    if not copy_only:
        words = copies.command(extra=arguments or ())
        os.execv(words[0], words)


SAID = {
    "made": "copied",
    "refreshed": "copied again, newer and not changed here",
    "new": "newer than the copy that you have changed, put beside it",
}
"""What has happened to a copy → how it is said."""
