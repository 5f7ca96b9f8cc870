"""How Sphinx renders the pages: formulas as MathML, names of files, notebooks and claims as links, settings.

A formula becomes MathML when the site is built, which browsers draw themselves: pages need no script and no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml import converter
from sphinx.application import Sphinx

STATIC = Path(__file__).with_name("static")
CLAIM = re.compile(r"\b[CH]\d+[a-z]?\b")

SETTINGS: dict[str, Any] = {
    "project": "opd-replication",
    "html_title": "On-policy distillation, replicated",
    "extensions": ["myst_nb"],
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},  # no page needs a widget manager, which would come from another origin
    "myst_enable_extensions": ["dollarmath", "attrs_block", "colon_fence"],
    "myst_heading_anchors": 3,
    "myst_links_external_new_tab": False,
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "use_download_button": False,
        "use_fullscreen_button": False,
        "use_issues_button": False,
        "use_repository_button": False,
        "show_navbar_depth": 1,
        "show_toc_level": 2,
        "home_page_in_toc": True,
        "toc_title": "On this page",
        "footer_content_items": [],
        "pygments_light_style": "a11y-high-contrast-light",
        "pygments_dark_style": "a11y-high-contrast-dark",
    },
    "html_context": {"default_mode": "auto"},
    "html_static_path": [str(STATIC)],
    "html_favicon": str(STATIC / "icon.svg"),
    "html_css_files": ["site.css"],
    "html_js_files": [("site.js", {"defer": "defer"})],
    "html_copy_source": False,
    "html_show_search_summary": False,  # a summary is fetched, which pages read from disk may not do
    "html_use_index": False,
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "html_math_renderer": "mathml",
    "html_last_updated_fmt": None,
    "highlight_language": "none",
    "exclude_patterns": ["jupyter_execute"],
}


def settings(notice: str) -> dict[str, Any]:
    """What Sphinx is told, with this line at the top of every page if it says something."""
    theme = {**SETTINGS["html_theme_options"], **({"announcement": escape(notice)} if notice else {})}
    return SETTINGS | {"html_theme_options": theme}


def visit_math(self: Any, node: nodes.Element) -> None:
    """A formula within a line."""
    self.body.append(converter.convert(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.Element) -> None:
    """A formula of its own."""
    self.body.append(f'<div class="math">{converter.convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let the name of a file or notebook in the text lead to its page, and a claim's id to its row."""
    names: Mapping[str, str] = app.config.opd_names
    claims: frozenset[str] = app.config.opd_claims
    for literal in list(doctree.findall(nodes.literal)):
        if (page := names.get(literal.astext())) not in (None, docname) and not _in_link(literal):
            literal.replace_self(_reference(app, docname, f"{page}", "", literal.deepcopy()))
    for text in list(doctree.findall(nodes.Text)):
        if CLAIM.search(text.astext()) and isinstance(text.parent, nodes.paragraph | nodes.emphasis | nodes.strong):
            _link_claims(app, docname, text, claims)


def _link_claims(app: Sphinx, docname: str, text: nodes.Text, claims: frozenset[str]) -> None:
    parts: list[nodes.Node] = []
    rest, end = text.astext(), 0
    for match in CLAIM.finditer(rest):
        if match[0] in claims and not _in_link(text):
            parts.append(nodes.Text(rest[end : match.start()]))
            parts.append(_reference(app, docname, "claims", f"#{match[0]}", nodes.Text(match[0])))
            end = match.end()
    if parts:
        text.parent.replace(text, [*parts, nodes.Text(rest[end:])])


def _in_link(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, nodes.reference):
            return True
    return False


def _reference(app: Sphinx, docname: str, page: str, anchor: str, shown: nodes.Node) -> nodes.reference:
    target = app.builder.get_relative_uri(docname, page) if page != docname else ""
    return nodes.reference("", "", shown, internal=True, refuri=f"{target}{anchor}")


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_config_value("opd_names", {}, "env", types=frozenset({dict}))
    app.add_config_value("opd_claims", frozenset(), "env", types=frozenset({frozenset}))
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
