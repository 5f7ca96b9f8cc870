"""Executed notebooks as the site reads them: titles, figures with their captions, differences from the paper."""

from __future__ import annotations

import ast
import html
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from opd_lib import paths
from opd_lib.records import reading

PROFILE = "tiny"
"""Whose records the committed notebooks show."""
COMMITTED = paths.RESULTS / PROFILE
INJECTED = "injected-parameters"
"""The tag of the cell in which papermill says what a notebook was executed with."""
FIGURE = re.compile(r'outputs\.figure\(\s*"([^"]+)"')
LOOK_FOR = re.compile(r"\*What\s+to\s+look\s+for:\*\s*(.+?)(?:\n\s*\n|\Z)", re.DOTALL)
DIFFERENCES = "Differences from the paper"
LIVE = re.compile(r"^application/vnd\.jupyter\.widget")
"""Outputs that need a running kernel; where a page stands beside them, the page is shown."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a notebook. `heading` is the section it stands in, `caption` what to look for in it."""

    name: str
    notebook: str
    heading: str
    caption: str
    root: Path = COMMITTED

    @property
    def svg(self) -> Path:
        """The drawing."""
        return self.root / self.notebook / "figures" / f"{self.name}.svg"

    def link(self, to_root: str) -> str:
        """The figure as HTML: a picture that is a link to itself at full size, seen from a page `to_root` away."""
        address = f"{to_root}figures/{self.notebook}/{self.name}.svg"
        text = html.escape(f"{self.heading} ({self.name})", quote=True)
        return f'<a class="zoom" href="{address}" title="Enlarge"><img src="{address}" alt="{text}" loading="lazy"></a>'


@dataclass(frozen=True)
class Notebook:
    """An executed notebook; `root` is the folder of its profile's results, in which NN_name has what it wrote."""

    path: Path
    root: Path = COMMITTED

    @property
    def name(self) -> str:
        return self.path.parent.name if self.path.name == paths.EXECUTED else self.path.stem

    @property
    def results(self) -> Path:
        """Its figures, tables and records."""
        return self.root / self.name

    @cached_property
    def content(self) -> NotebookNode:
        """Cells and outputs. Raises ValueError if the file cannot be read, or begins with no heading."""
        try:
            found: NotebookNode = nbformat.reads(reading.text(self.path), as_version=4)  # type: ignore[no-untyped-call]
        except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError, KeyError, TypeError) as error:
            reading.refuse(self.path, f"not readable as a notebook ({str(error)[:200]})", reading.RESTORE, error)
        if not found.cells or not found.cells[0].source.startswith("# "):
            reading.refuse(self.path, "its first cell does not begin with a heading", "begin it with `# TITLE`")
        return found

    def parameters(self) -> dict[str, Any]:
        """What it was executed with: what its cell of parameters was told; empty if nothing."""
        told = [cell.source for cell in self.content.cells if INJECTED in cell.metadata.get("tags", [])]
        lines = (line for source in told for line in ast.parse(source).body)
        sets = [line for line in lines if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)]
        return {line.targets[0].id: ast.literal_eval(line.value) for line in sets}  # type: ignore[attr-defined]

    @cached_property
    def title(self) -> str:
        """The first heading."""
        return str(self.content.cells[0].source.splitlines()[0].lstrip("# "))

    @property
    def short_title(self) -> str:
        """The title up to its colon."""
        return self.title.partition(":")[0]

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Its figures that are there as SVG, in order."""
        found, heading, caption = [], self.title, ""
        for cell in self.content.cells:
            if cell.cell_type == "markdown":
                headings = re.findall(r"^##+ (.+)$", cell.source, re.MULTILINE)
                heading = headings[-1] if headings else heading
                looked_for = LOOK_FOR.search(cell.source)
                caption = " ".join(looked_for[1].split()) if looked_for else ""
                continue
            found += [Figure(name, self.name, heading, caption, self.root) for name in FIGURE.findall(cell.source)]
        return tuple(figure for figure in found if figure.svg.exists())

    def section(self, heading: str) -> str:
        """The Markdown below a heading of the second level, empty if there is none."""
        for cell in self.content.cells:
            if cell.cell_type == "markdown":
                _, found, rest = f"\n{cell.source}".partition(f"\n## {heading}\n")
                if found:
                    return re.split(r"^## ", rest, flags=re.MULTILINE)[0].strip()
        return ""

    def page(self, head: str) -> NotebookNode:
        """The notebook as a page: `head` below the title, and each figure in the place of its pixels."""
        page: NotebookNode = nbformat.from_dict(self.content)  # type: ignore[no-untyped-call]
        page.metadata.pop("widgets", None)
        by_name = {figure.name: figure for figure in self.figures}
        for cell in page.cells:
            names = FIGURE.findall(cell.source) if cell.cell_type == "code" else []
            drawn = [by_name[name].link("../") for name in names if name in by_name]
            for output in cell.get("outputs", []):
                _make_static(output, "".join(drawn))
        heading, _, text = page.cells[0].source.partition("\n")
        page.cells[0].source = f"{heading}\n\n{head}\n{text}"
        return page


def _make_static(output: NotebookNode, drawn: str) -> None:
    data = output.get("data", {})
    if "image/png" in data and drawn:
        output.data = {"text/html": drawn, "text/plain": ""}
    elif "text/html" in data:
        for kind in [kind for kind in data if LIVE.match(kind)]:
            del data[kind]


def read(folder: Path = paths.NOTEBOOKS) -> tuple[Notebook, ...]:
    """Every notebook of a folder, by name."""
    return tuple(Notebook(path) for path in sorted(folder.glob("[0-9]*.ipynb")))


def executed(root: Path) -> tuple[Notebook, ...]:
    """Every notebook that was executed into a folder RESULTS/PROFILE, by name."""
    return tuple(Notebook(path, root) for path in sorted(root.glob(f"[0-9]*/{paths.EXECUTED}")))
