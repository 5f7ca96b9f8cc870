"""The command `opd site`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from opd_lib import paths


def site(
    output: Annotated[Path, typer.Option(help="Folder of the pages; replaced.")] = paths.LOCAL / "site",
) -> None:
    """Build the results site from what is committed: pages that need no network and no server (`make site`)."""
    if missing := [name for name in ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml") if not find_spec(name)]:
        raise ValueError(f"the site needs {', '.join(missing)}; say `make site`, or install the extra `site`")
    from opd_lib.site.build import build

    typer.echo(f"done: {build(output)}")
