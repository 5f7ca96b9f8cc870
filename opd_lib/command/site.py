"""The command `opd site`: pages of the committed results, or of a results folder or a try of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opd_lib import paths

if TYPE_CHECKING:
    import pandas as pd

    from opd_lib.site.notebooks import Notebook
    from opd_lib.site.source import Source

SITE = "site"
Output = Annotated[
    Path | None,
    typer.Option(help="Folder of the pages; replaced. Default: results/local/site, or `site` in the --results folder."),
]
Mine = Annotated[
    str | None,
    typer.Option("--results", help="A results folder, or a try by its name or hash, instead of what is committed."),
]
OfProfile = Annotated[str | None, typer.Option("--profile", help="Which profile of --results, where it has several.")]


def site(output: Output = None, results: Mine = None, profile: OfProfile = None) -> None:
    """Build the results site from what is committed: pages that need no network and no server (`make site`).

    With --results of the notebooks that `opd reproduce` has executed there; every page then says so.
    """
    if missing := [name for name in ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml") if not find_spec(name)]:
        raise ValueError(f"the site needs {', '.join(missing)}; say `make site`, or install the extra `site`")
    from opd_lib.site.build import build
    from opd_lib.site.source import committed

    if results is None:
        if profile is not None:
            raise ValueError(f"--profile {profile}: is that of a --results folder; what is committed has one alone")
        typer.echo(f"done: {build(output or paths.LOCAL / SITE, committed())}")
        return
    folder = _folder(results)
    typer.echo(f"done: {build(output or folder / SITE, _own(folder, profile))}")


def _folder(results: str) -> Path:
    """The results folder that is meant. Raises ValueError for what is neither a folder nor a try."""
    from opd_lib.run import tries

    if Path(results).is_dir():
        return Path(results).resolve()
    try:
        return tries.locate(results).resolve()
    except ValueError as error:
        raise ValueError(f"--results {results}: no such folder; {error}") from None


def _own(folder: Path, profile: str | None) -> Source:
    """What a folder has to show. Raises ValueError if that is nothing, or of several profiles."""
    from opd_lib.run import tries
    from opd_lib.site import notebooks, source

    there = sorted({path.parents[1].name for path in folder.glob(f"[!.]*/[0-9]*/{paths.EXECUTED}")})
    chosen = profile or (there[0] if len(there) == 1 else None)
    if not there or (profile and profile not in there):
        which = f" of profile {profile} (there are those of {', '.join(there)})" if there else ""
        raise ValueError(
            f"--results {folder}: no executed notebook{which} in it (PROFILE/NOTEBOOK/{paths.EXECUTED}); "
            "`opd reproduce` leaves them there, with its --results or --overrides"
        )
    if chosen is None:
        raise ValueError(f"--results {folder}: has notebooks of the profiles {', '.join(there)}; choose a --profile")
    root, is_try = folder / chosen, folder.parent == paths.VARIANTS
    shown = notebooks.executed(root)
    name = f"the try {tries.read(folder).name}, " if is_try else ""
    return source.Source(
        notebooks=shown,
        root=root,
        profile=chosen,
        judged=None if (root / source.FILE).exists() else _judged(shown, chosen, None if is_try else folder),
        notice=f"Not the committed results: {name}{folder}, profile {chosen}",
    )


def _judged(shown: Iterable[Notebook], profile: str, results: Path | None) -> pd.DataFrame:
    """The verdicts of these notebooks' claims, each with the overrides and seeds that it was executed with."""
    import pandas as pd

    from opd_lib import params
    from opd_lib.run import notebook

    found = []
    for each in shown:
        told = each.parameters()
        experiment = params.load(each.name, profile, told.get("overrides"), told.get("seeds"), results)
        found.append(notebook.judged(experiment))
    judged = [table for table in found if table is not None]
    return pd.concat(judged, ignore_index=True) if judged else pd.DataFrame(columns=["id", "verdict"])
