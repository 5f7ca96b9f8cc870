"""Pages of what the results rest on: params files, records of runs, the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from opd_lib import paths
from opd_lib.records import files as records
from opd_lib.records import parameters, reading, record, sealing
from opd_lib.site.claims import raw, slug
from opd_lib.site.notebooks import Notebook
from opd_lib.site.source import Source

PAPER = "paper"
"""The profile of the papers' own settings, shown beside that of the results."""
ALONE = "---\norphan: true\nnosearch: true\nhtml_theme.sidebar_secondary.remove: true\n---\n"
"""Before a page that stands in no table of contents; what is searched for stands in the index of such pages."""
LINK = re.compile(r"\[(`[^`]+`|[^\]]+)\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")
LIBRARY = paths.ROOT / "opd_lib"
RECORD_FILES = ("run.json", *(f"{table}.csv" for table in record.TABLES))


def pages(source: Source) -> Iterator[tuple[str, str]]:
    """(page, Markdown) of every params file, of the records of every notebook and of every module."""
    notebooks = source.notebooks
    with_params = [n for n in notebooks if paths.params_file(n.name, source.profile).exists()]
    for notebook in with_params:
        yield f"params/{notebook.name}", _params(notebook, source)
    yield "params/claims", f"# The claims file\n\n{_code(source.claims_file)}"
    names = [*(notebook.name for notebook in with_params), "claims"]
    yield "params/index", _list("Params", "What each notebook ran, and what judges it.", names)
    with_records = [notebook for notebook in notebooks if source.arms_of(notebook.name)]
    for notebook in with_records:
        yield f"records/{notebook.name}", _records(notebook, source)
    told = "What runs leave behind: one folder per arm and seed. Columns: [](../glossary.md)."
    yield "records/index", _list("Records", told, [notebook.name for notebook in with_records])
    for path in modules():
        yield f"code/{module(path)}", _module(path)
    yield "code/index", _code_index()


def require_whole(notebooks: Sequence[Notebook]) -> None:
    """Raise ValueError naming the first damaged figure, table or record among those that the site shows."""
    for path in (path for n in notebooks for path in _shown(n)):
        if path.suffix == ".json":
            reading.content(path)
        elif path.suffix == ".csv" and path.stat().st_size > 1:  # a table without columns is a line break
            reading.frame(path)
        elif path.suffix == ".svg" and not reading.text(path).rstrip().endswith("</svg>"):
            reading.refuse(path, "cut off (no </svg> at its end)", reading.RESTORE)
    for run in (run for n in notebooks for run in records.of_notebook(n.results) if records.is_packed(run)):
        present = record.read(run)
        if present and (fault := sealing.fault(run, present.tables, verify=True)):
            raise ValueError(fault)


def _shown(notebook: Notebook) -> list[Path]:
    """Its figures and tables, and the records that are not packed; no checkpoints."""
    runs = [run for run in records.of_notebook(notebook.results) if not records.is_packed(run)]
    files = [run / name for run in runs for name in RECORD_FILES if (run / name).exists()]
    return sorted(files + [path for kind in ("figures", "tables") for path in (notebook.results / kind).glob("*")])


def names(source: Source) -> dict[str, str]:
    """What a text may call a notebook, a params file or a module → its page."""
    notebooks = source.notebooks
    found = {notebook.name: f"notebooks/{notebook.name}" for notebook in notebooks}
    found |= {f"notebooks/{notebook.name}.ipynb": f"notebooks/{notebook.name}" for notebook in notebooks}
    found |= {
        f"params/{profile}/{notebook.name}.yaml": f"params/{notebook.name}"
        for notebook in notebooks
        for profile in (source.profile, PAPER)
        if paths.params_file(notebook.name, profile).exists()
    }
    found |= {source.claims_file.relative_to(paths.ROOT).as_posix(): "params/claims"}
    for path in modules():
        page, relative = f"code/{module(path)}", path.relative_to(paths.ROOT).as_posix()
        found |= {relative: page, relative.removeprefix("opd_lib/"): page, module(path): page}
    return found


def relinked(text: str, known: Mapping[str, str], to_root: str = "") -> str:
    """Markdown whose links into the repository lead to the site's pages; without a page, their text alone stays."""

    def link(match: re.Match[str]) -> str:
        page = known.get(match[2].removeprefix("../"))
        if page is None:
            return match[1]
        return f"[{match[1]}]({to_root}{page}.{'ipynb' if page.startswith('notebooks/') else 'md'})"

    return LINK.sub(link, text)


def modules() -> tuple[Path, ...]:
    """Every module that says something."""
    return tuple(path for path in sorted(LIBRARY.rglob("*.py")) if path.stat().st_size > 200)


def module(path: Path) -> str:
    """maths/stats for opd_lib/maths/stats.py, maths for its __init__."""
    relative = path.relative_to(LIBRARY).with_suffix("")
    return (relative.parent if relative.name == "__init__" else relative).as_posix()


def _params(notebook: Notebook, source: Source) -> str:
    parts = [f"# {notebook.short_title}: params\n"]
    for profile in dict.fromkeys((source.profile, PAPER)):
        path = paths.params_file(notebook.name, profile)
        if path.exists():
            parts.append(f"## `params/{profile}/{notebook.name}.yaml`\n\n{_code(path)}")
    return "\n".join(parts)


def _code(path: Path) -> str:
    return f"`````{{code-block}} yaml\n{path.read_text(encoding='utf-8').rstrip()}\n`````\n"


def _list(title: str, text: str, names: Sequence[str]) -> str:
    return f"# {title}\n\n{text}\n\n```{{toctree}}\n:maxdepth: 1\n\n" + "\n".join(names) + "\n```\n"


def _records(notebook: Notebook, source: Source) -> str:
    parts = [f"# {notebook.short_title}: records\n\nArms that are runs of another notebook stand there.\n"]
    for arm in source.arms_of(notebook.name):
        rows = "".join(_seed(folder) for folder in records.of_arm(notebook.results / arm))
        head = "".join(f"<th>{name}</th>" for name in ("seed", "identity", "steps", "files"))
        table = f'<div class="scroll" tabindex="0"><table class="records"><tr>{head}</tr>{rows}</table></div>'
        parts.append(f"({slug(f'run-{notebook.name}/{arm}')})=\n## {arm}\n\n{raw(table)}")
    return "\n".join(parts)


def _seed(folder: Path) -> str:
    run = record.read(folder)
    if run is None:
        reading.refuse(folder / "run.json", "not there", reading.RESTORE)
    here = "/".join(folder.parts[-3:])
    links = " · ".join(f'<a href="{here}/{name}">{name}</a>' for name in RECORD_FILES if records.exists(folder, name))
    steps = parameters.flatten(run.params).get("train.steps", "")
    return f"<tr><td>{run.seed}</td><td><code>{run.identity}</code></td><td>{steps}</td><td>{links}</td></tr>"


def _module(path: Path) -> str:
    form = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, cssclass="highlight numbered")
    text = highlight(path.read_text(encoding="utf-8"), PythonLexer(), form)
    return f"{ALONE}# `{path.relative_to(paths.ROOT).as_posix()}`\n\n{raw(text)}"


def _code_index() -> str:
    parts, folder = ["# Code\n\nThe library, module by module.\n"], None
    for path in modules():
        if path.parent != folder:
            folder = path.parent
            parts.append(f"\n## `{folder.relative_to(paths.ROOT).as_posix()}/`\n")
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        line = escape(docstring.partition("\n\n")[0].replace("\n", " "), quote=False)
        parts.append(f"- [`{path.name}`]({module(path)}.md) {line}")
    return "\n".join(parts)
