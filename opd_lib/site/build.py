"""Write the pages' sources, let Sphinx make HTML of them, and put what they link to beside them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import nbformat
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

from opd_lib import paths
from opd_lib.judge import register
from opd_lib.judge.register import Register
from opd_lib.records import files as records
from opd_lib.report import badges
from opd_lib.site import claims, files, glossary, notebooks, pages, rendering
from opd_lib.site.notebooks import PROFILE, Notebook

MARK = ".buildinfo"  # which Sphinx leaves in what it built


def build(output: Path, folder: Path = paths.NOTEBOOKS) -> Path:
    """The site in `output`, whose old pages are replaced; returns the first page.

    Raises ValueError if `output` is a file or holds anything but a site, for a damaged file among those that are shown,
    and if a page cannot be made without a warning.
    """
    output = output.resolve()
    for place in (output, *output.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--output {output}: {place} is a file; name a folder")
    if output.exists() and any(output.iterdir()) and not (output / MARK).exists():
        raise ValueError(f"{output}: holds files that are no site; name an empty folder with --output")
    found = notebooks.read(folder)
    judged_by = register.load(paths.claims_file(files.CLAIMS))
    claims.require(judged_by)
    files.require_whole(found)
    with tempfile.TemporaryDirectory(prefix="opd-site.") as scratch:
        source, made = Path(scratch) / "source", Path(scratch) / "site"
        write_sources(source, judged_by, found)
        render(source, made, judged_by, found)
        copy_linked(made, found)
        shutil.rmtree(output, ignore_errors=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, output)
    return output / "index.html"


def write_sources(source: Path, judged_by: Register, found: Sequence[Notebook]) -> None:
    """Every page as Markdown or notebook."""
    known = files.names(found)
    texts = {
        "index": pages.index(judged_by, found, known),
        "claims": claims.page(judged_by, found),
        "figures": pages.figures(found),
        "differences": pages.differences(found),
        "glossary": glossary.page(),
        "add_a_method": pages.add_a_method(known),
        **dict(files.pages(found)),
    }
    for name, text in texts.items():
        path = source / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (source / "notebooks").mkdir()
    for notebook in found:
        page = notebook.page(head(notebook, judged_by))
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = files.relinked(cell.source, known, "../")
        nbformat.write(page, source / "notebooks" / notebook.path.name)  # type: ignore[no-untyped-call]


def head(notebook: Notebook, judged_by: Register) -> str:
    """What stands below a notebook's title on its page: its claims with their verdicts, params, records."""
    judged = claims.read().set_index("id")["verdict"]
    words = " ".join(
        f'<a class="verdict {badges.kind(judged[claim.id])}" href="../claims.html#{claim.id}" '
        f'title="{judged[claim.id]}">{claim.id}</a>'
        for claim in judged_by.of(notebook.name)
    )
    links = []
    if paths.params_file(notebook.name, PROFILE).exists():
        links.append(f'<a href="../params/{notebook.name}.html">params</a>')
    if files.arms(notebook.name):
        links.append(f'<a href="../records/{notebook.name}.html">records</a>')
    links.append(f'<a href="{notebook.path.name}">notebook (.ipynb)</a>')
    return claims.raw(f'<p class="notebook-head">{words}<span class="links">{" · ".join(links)}</span></p>')


def render(source: Path, made: Path, judged_by: Register, found: Sequence[Notebook]) -> None:
    """Run Sphinx. Raises ValueError with its first warning or error."""
    settings = rendering.SETTINGS | {
        "extensions": [*rendering.SETTINGS["extensions"], rendering.__name__],
        "opd_names": files.names(found),
        "opd_claims": frozenset(claim.id for claim in judged_by.claims),
    }
    said = StringIO()
    processes = 1 if sys.platform == "darwin" else 2  # Sphinx forks, which macOS's libraries do not survive
    try:
        app = Sphinx(
            source, None, made, made.with_name("doctrees"), "html", settings,
            status=None, warning=said, parallel=processes,
        )  # fmt: skip
        app.build()
    except SphinxError as error:
        raise ValueError(f"the site cannot be built: {error}\n{said.getvalue()}") from error
    if said.getvalue() or app.statuscode:
        raise ValueError(f"the site has warnings:\n{said.getvalue()}")


def copy_linked(made: Path, found: Sequence[Notebook]) -> None:
    """Figures, tables, records and notebooks, which the pages link to."""
    for notebook in found:
        shutil.copyfile(notebook.path, made / "notebooks" / notebook.path.name)
        folder = files.COMMITTED / notebook.name
        for kind in ("figures", "tables"):
            if (folder / kind).is_dir():
                shutil.copytree(folder / kind, made / kind / notebook.name)
        for arm in files.arms(notebook.name):
            for run in records.of_arm(folder / arm):
                target = made / "records" / notebook.name / arm / run.name
                target.mkdir(parents=True)
                for name in files.RECORD_FILES:
                    if (content := records.read(run, name)) is not None:
                        (target / name).write_bytes(content)
