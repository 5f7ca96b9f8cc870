"""The pages beside the notebooks: the first one, figures, differences from the paper, adding a method."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from html import escape

from opd_lib import methods, paths
from opd_lib.judge import claims as verdicts
from opd_lib.report import badges
from opd_lib.site import claims
from opd_lib.site.claims import raw
from opd_lib.site.files import relinked
from opd_lib.site.notebooks import DIFFERENCES, Figure, Notebook
from opd_lib.site.source import Source

SHOWN_FIRST = ("04_success_and_failure", "success_and_failure")
"""The figure of the first page: notebook and name."""
OWN_METHOD = "92_your_own_method"
FINDINGS = "<!-- findings -->"
DIFFERS = re.compile(r"(?:^|(?<=[.\s]))Differs\b(.*?)(?=\n\s*\n|\Z)", re.DOTALL)


def own_index(source: Source) -> str:
    """The first page of results of one's own: verdicts, and a way into each notebook."""
    judged = source.verdicts
    counts = raw(claims.bar(judged["verdict"])) if len(judged) else ""
    summary = verdicts.summary(judged) if len(judged) else "None of these notebooks has claims."
    told = (notebook.parameters().get("overrides") for notebook in source.notebooks)
    changed = dict.fromkeys(json.dumps(overrides, indent=1) for overrides in told if overrides)
    with_these = "".join(f"With these overrides:\n\n`````{{code-block}} json\n{text}\n`````\n\n" for text in changed)
    return (
        f"# Results of your own\n\n{with_these}{counts}{summary} [The claims with their evidence](claims.md).\n\n"
        f"## The notebooks\n\n{_cards(source)}\n{_contents(source)}"
    )


def index(source: Source, known: Mapping[str, str]) -> str:
    """The first page: what holds, one figure, a way into each notebook, how to compute it all again."""
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    judged = source.verdicts
    drawn = (figure for notebook in source.notebooks for figure in notebook.figures)
    figure = next((figure for figure in drawn if (figure.notebook, figure.name) == SHOWN_FIRST), None)
    if figure is None:
        raise ValueError(
            f"{source.root / '/figures/'.join(SHOWN_FIRST)}.svg: not there; the first page shows this figure"
        )
    slogan, _, rest = _between(readme, "\n\n**", "\n\n").partition("**: ")
    about = f"{rest[:1].upper()}{rest[1:]}\n\n{_between(readme, '## What it shows', FINDINGS).strip()}"
    found = _between(readme, FINDINGS, "<!--").strip()
    commands = _between(readme, "## Look first, then compute\n", "\n## ").strip()
    return (
        f"# On-policy distillation, replicated\n\n{{.slogan}}\n{slogan}.\n\n{relinked(about, known)}\n\n"
        "## What holds\n\n"
        + raw(claims.bar(judged["verdict"]))
        + f"{verdicts.summary(judged)} [All claims with their evidence](claims.md).\n\n"
        + f"{relinked(found, known)}\n\n## One figure\n\n"
        + raw(f"<figure>{figure.link('')}<figcaption>{_caption(figure)}</figcaption></figure>")
        + f"\n## The notebooks\n\n{_cards(source)}\n## Compute it again\n\n"
        + relinked(commands, known)
        + "\n\n"
        + _contents(source)
    )


def _cards(source: Source) -> str:
    return raw('<ul class="cards">' + "".join(_card(notebook, source) for notebook in source.notebooks) + "</ul>")


def _card(notebook: Notebook, source: Source) -> str:
    counts = claims.tally(source.verdicts.loc[[claim.id for claim in source.register.of(notebook.name)], "verdict"])
    chips = " ".join(f'<span class="verdict {badges.kind(v)}">{n} {v}</span>' for v, n in counts.items())
    picture = f'<img src="figures/{notebook.name}/{notebook.figures[0].name}.svg" alt="">' if notebook.figures else ""
    name, _, rest = notebook.title.partition(":")
    return (
        f'<li><a href="notebooks/{notebook.name}.html"><span class="thumb">{picture}</span>'
        f"<strong>{escape(name)}</strong> <span>{escape(rest.strip())}</span></a><p>{chips}</p></li>"
    )


def _contents(source: Source) -> str:
    parts = {
        "Results": ["claims", "figures", "differences"],
        "Notebooks": [f"{notebook.short_title} <notebooks/{notebook.name}>" for notebook in source.notebooks],
        "Reference": ["glossary", "add_a_method", "params/index", "records/index", "code/index"],
    }
    lists = (f":caption: {caption}\n:hidden:\n\n" + "\n".join(names) for caption, names in parts.items())
    return "\n\n".join(f"```{{toctree}}\n{names}\n```" for names in lists)


def figures(source: Source) -> str:
    """All figures as a gallery, each with what to look for and its numbers."""
    records = "the committed records" if source.is_committed else "these records"
    parts = [f"# Figures\n\nChoose one to enlarge it. Each is drawn from {records}.\n"]
    for notebook in source.notebooks:
        shown = "".join(
            f"<figure>{f.link('')}<figcaption>{_caption(f)}</figcaption></figure>" for f in notebook.figures
        )
        if shown:
            parts.append(f"## [{notebook.short_title}](notebooks/{notebook.name}.ipynb)\n")
            parts.append(raw(f'<div class="gallery">{shown}</div>'))
    return "\n".join(parts)


def _caption(figure: Figure) -> str:
    caption = f" <em>What to look for:</em> {_html(figure.caption)}" if figure.caption else ""
    kinds = {"table": f"tables/{figure.name}.csv", "plotted numbers": f"figures/{figure.name}.json"}
    numbers = "".join(
        f' · <a href="{path.partition("/")[0]}/{figure.notebook}/{path.partition("/")[2]}">{kind}</a>'
        for kind, path in kinds.items()
        if (figure.root / figure.notebook / path).exists()
    )
    notebook = f'<a href="notebooks/{figure.notebook}.html">{figure.notebook}</a>'
    return f"<strong>{_html(figure.heading)}.</strong>{caption}<small>{notebook}{numbers}</small>"


def _html(text: str) -> str:
    """A line of Markdown as HTML, as far as captions use it: `code` and formulas of one letter."""
    plain = re.sub(r"\$([^$]+)\$", r"<i>\1</i>", escape(text, quote=False))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", plain)


def differences(notebooks: Sequence[Notebook]) -> str:
    """What notebooks and docstrings say under "Differences from the paper" and "Differs:"."""
    head = "Collected from the last sections of notebooks, and from what docstrings say after the word Differs."
    parts = [f"# How we differ from the paper\n\n{head}\n"]
    parts += [
        f"## [{notebook.short_title}](notebooks/{notebook.name}.ipynb)\n\n{text}\n"
        for notebook in notebooks
        if (text := notebook.section(DIFFERENCES))
    ]
    lines = [f"- `{name}`: {text}" for name, text in differing().items()]
    return "\n".join([*parts, "## In the code\n", *lines])


def differing() -> dict[str, str]:
    """Path of a module → what its docstring says after "Differs", as one line."""
    found = {}
    for path in sorted((paths.ROOT / "opd_lib").rglob("*.py")):
        if told := DIFFERS.search(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""):
            found[path.relative_to(paths.ROOT).as_posix()] = " ".join(f"Differs{told[1]}".split())
    return found


def add_a_method(known: Mapping[str, str]) -> str:
    """How to add a method, a task, a probe: CONTRIBUTING.md, the contract of methods, and the methods there are."""
    text = (paths.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## Adding .+?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    there = "\n".join(f"| `opd_lib/methods/{name}.py` | {_first_sentence(name)} |" for name in methods.names())
    contract = (methods.__doc__ or "").strip()
    own = "" if f"notebooks/{OWN_METHOD}.ipynb" not in known else (
        f"The quickest way is to try it in a cell first: [](notebooks/{OWN_METHOD}.ipynb).\n\n"
    )  # fmt: skip
    return (
        f"# Add a method\n\n{own}" + relinked("".join(sections), known) + "\n\n## The contract of a method\n\n"
        f"```text\n{contract}\n```\n\n## The methods there are\n\n| file | what it is |\n|---|---|\n{there}\n"
    )


def _first_sentence(method: str) -> str:
    path = paths.ROOT / "opd_lib" / "methods" / f"{method}.py"
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except SyntaxError as error:  # a broken file is an error of the runs that ask for it
        return f"cannot be read (line {error.lineno}: {error.msg})"
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _between(text: str, begin: str, end: str) -> str:
    return text.partition(begin)[2].partition(end)[0]
