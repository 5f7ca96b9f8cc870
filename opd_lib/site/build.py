"""Write the pages' sources, let Sphinx make HTML of them, and put what they link to beside them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from io import StringIO
from pathlib import Path

import nbformat
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import docutils_namespace, patch_docutils

from opd_lib import paths
from opd_lib.records import files as records
from opd_lib.report import badges
from opd_lib.site import claims, files, glossary, pages, rendering
from opd_lib.site.notebooks import Notebook
from opd_lib.site.source import Source

MARK = ".buildinfo"  # which Sphinx leaves in what it built


def build(output: Path, source: Source) -> Path:
    """The site of these results in `output`, whose old pages are replaced; returns the first page.

    Raises ValueError if `output` is a file or holds anything but a site, for a damaged file among those that are shown,
    and if a page cannot be made without a warning.
    """
    output = output.resolve()
    for place in (output, *output.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--output {output}: {place} is a file; name a folder")
    if output.exists() and any(output.iterdir()) and not (output / MARK).exists():
        raise ValueError(f"{output}: holds files that are no site; name an empty folder with --output")
    files.require_whole(source.notebooks)
    with tempfile.TemporaryDirectory(prefix="opd-site.") as scratch:
        texts, made = Path(scratch) / "source", Path(scratch) / "site"
        write_sources(texts, source)
        render(texts, made, source)
        copy_linked(made, source)
        shutil.rmtree(output, ignore_errors=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, output)
    return output / "index.html"


def write_sources(folder: Path, source: Source) -> None:
    """Every page as Markdown or notebook."""
    known = files.names(source)
    texts = {
        "index": pages.index(source, known) if source.is_committed else pages.own_index(source),
        "claims": claims.page(source),
        "figures": pages.figures(source),
        "differences": pages.differences(source.notebooks),
        "glossary": glossary.page(),
        "add_a_method": pages.add_a_method(known),
        **dict(files.pages(source)),
    }
    for name, text in texts.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "notebooks").mkdir()
    for notebook in source.notebooks:
        page = notebook.page(head(notebook, source))
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = files.relinked(cell.source, known, "../")
        nbformat.write(page, folder / "notebooks" / f"{notebook.name}.ipynb")  # type: ignore[no-untyped-call]


def head(notebook: Notebook, source: Source) -> str:
    """What stands below a notebook's title on its page: its claims with their verdicts, params, records."""
    judged = source.verdicts["verdict"]
    words = " ".join(
        f'<a class="verdict {badges.kind(judged[claim.id])}" href="../claims.html#{claim.id}" '
        f'title="{judged[claim.id]}">{claim.id}</a>'
        for claim in source.register.of(notebook.name)
    )
    links = []
    if paths.params_file(notebook.name, source.profile).exists():
        links.append(f'<a href="../params/{notebook.name}.html">params</a>')
    if source.arms_of(notebook.name):
        links.append(f'<a href="../records/{notebook.name}.html">records</a>')
    links.append(f'<a href="{notebook.name}.ipynb">notebook (.ipynb)</a>')
    return claims.raw(f'<p class="notebook-head">{words}<span class="links">{" · ".join(links)}</span></p>')


def render(texts: Path, made: Path, source: Source) -> None:
    """Run Sphinx. Raises ValueError with its first warning or error."""
    settings = rendering.settings(source.notice) | {
        "extensions": [*rendering.SETTINGS["extensions"], rendering.__name__],
        "opd_names": files.names(source),
        "opd_claims": frozenset(claim.id for claim in source.claims),
    }
    said = StringIO()
    processes = 1 if sys.platform == "darwin" else 2  # Sphinx forks, which macOS's libraries do not survive
    try:
        with patch_docutils(), docutils_namespace():  # a second site in one process begins with nothing of the first
            app = Sphinx(
                texts, None, made, made.with_name("doctrees"), "html", settings,
                status=None, warning=said, parallel=processes,
            )  # fmt: skip
            app.build()
    except SphinxError as error:
        raise ValueError(f"the site cannot be built: {error}\n{said.getvalue()}") from error
    if said.getvalue() or app.statuscode:
        raise ValueError(f"the site has warnings:\n{said.getvalue()}")


def copy_linked(made: Path, source: Source) -> None:
    """Figures, tables, records and notebooks, which the pages link to."""
    for notebook in source.notebooks:
        shutil.copyfile(notebook.path, made / "notebooks" / f"{notebook.name}.ipynb")
        folder = notebook.results
        for kind in ("figures", "tables"):
            if (folder / kind).is_dir():
                shutil.copytree(folder / kind, made / kind / notebook.name)
        for arm in source.arms_of(notebook.name):
            for run in records.of_arm(folder / arm):
                target = made / "records" / notebook.name / arm / run.name
                target.mkdir(parents=True)
                for name in files.RECORD_FILES:
                    if (content := records.read(run, name)) is not None:
                        (target / name).write_bytes(content)
