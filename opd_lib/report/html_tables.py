"""Tables as HTML for notebooks, beside their text: readable on a phone, in light and dark, without scripts.

Every table carries its style, for a notebook shows each output alone. JupyterLab drops style and drawings until a
notebook is trusted; what is left is a plain table whose verdicts have their colour still. What the HTML shows is made
of what the text says, so that equal text has equal HTML on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import pandas as pd

from opd_lib.report import badges, tables
from opd_lib.report.verdicts import Verdicts

Colours = tuple[str, str]
PALETTE: Mapping[str, tuple[Colours, Colours]] = {
    "holds": (("#17693f", "#dcf2e5"), ("#6fd3a0", "#17402b")),
    "fails": (("#b3341f", "#fbe3dd"), ("#f2937f", "#4a2119")),
    "open": (("#585c68", "#eceef2"), ("#b3b8c4", "#343842")),
    "none": (("#585c68", "#eceef2"), ("#b3b8c4", "#343842")),
}
"""class of a verdict's colour → the word and what is behind it, light and dark"""
NAME = "opd-table"
OURS = f".{NAME}.{NAME}"  # twice: stronger than what JupyterLab says of tables
LEFT = ' style="text-align: left"'  # said of each cell: JupyterLab keeps that, without the style sheet too
BORDER = "var(--jp-border-color2, light-dark(#c9ccd3, #4a4f5a))"
TEXT = "var(--jp-content-font-color1, inherit)"


def _both(kind: str, place: int) -> str:
    light, dark = PALETTE[kind]
    return f"light-dark({light[place]}, {dark[place]})"


_COLOURS = "\n".join(
    f".{NAME} .{kind} {{ color: {_both(kind, 0)} !important; background: {_both(kind, 1)} !important; }}"
    for kind in PALETTE
)
STYLE = f"""<style>
.{NAME} {{ color-scheme: light; color: {TEXT}; container-type: inline-size; overflow-x: auto; }}
@media (prefers-color-scheme: dark) {{ .{NAME} {{ color-scheme: dark; }} }}
[data-jp-theme-light="true"] .{NAME}, [data-theme="light"] .{NAME}, .vscode-light .{NAME} {{ color-scheme: light; }}
[data-jp-theme-light="false"] .{NAME}, [data-theme="dark"] .{NAME}, .vscode-dark .{NAME} {{ color-scheme: dark; }}
{OURS} table {{ border-collapse: collapse; margin: 0; font-size: .9em; line-height: 1.4; table-layout: auto; }}
{OURS} table tr, {OURS} table tbody tr:nth-child(n) {{ background: none; border-bottom: 1px solid {BORDER}; }}
{OURS} table th, {OURS} table td {{ padding: .45em .6em; vertical-align: top; text-align: left; white-space: normal;
  overflow-wrap: break-word; border: 0; }}
{OURS} table .right {{ text-align: right; font-variant-numeric: tabular-nums; }}
.{NAME} .verdict {{ display: inline-block; padding: .05em .6em; border-radius: 1em; font-weight: 600; }}
{_COLOURS}
.{NAME} .mark, .{NAME} .bounds, .{NAME} .note {{ display: block; font-size: .88em; }}
.{NAME} .ours {{ min-width: 158px; font-variant-numeric: tabular-nums; }}
.{NAME} summary {{ cursor: pointer; padding: .4em 0; }}
.opd-interval {{ display: block; max-width: 100%; }}
.{NAME} .opd-interval .claimed {{ fill: {_both("holds", 1)}; }}
.{NAME} .opd-interval .bound {{ stroke: {_both("holds", 0)}; stroke-dasharray: 3 2; }}
.{NAME} .opd-interval .range {{ stroke: currentColor; stroke-width: 2; }}
.{NAME} .opd-interval circle {{ fill: currentColor; }}
@container (max-width: 600px) {{
  {OURS} table, {OURS} tbody, {OURS} table tr, {OURS} table td {{ display: block; }}
  {OURS} thead {{ display: none; }}
  {OURS} table tr {{ padding: .5em 0; }}
  {OURS} table td, {OURS} table .right {{ padding: .1em 0; text-align: left; }}
  {OURS} td[data-label]::before {{ content: attr(data-label) ": "; font-weight: 600; }}
}}
</style>"""
"""An element may show a page's dark side on a light screen: JupyterLab, the site and VS Code say what theirs is."""
TURNED = "filter: invert(.93) hue-rotate(180deg);"
"""What makes a light picture a dark one: lightness is turned over, hues stay."""
PICTURES = f"""<style>
[data-jp-theme-light="false"] .jp-RenderedImage img {{ {TURNED} }}
</style>"""
"""Dark pictures on JupyterLab's dark page."""


def plain(frame: pd.DataFrame, digits: int = 3) -> str:
    """A frame as HTML with the texts of `tables.show`; line breaks inside a cell become spaces."""
    return block(rows(frame, digits))


def rows(frame: pd.DataFrame, digits: int = 3) -> str:
    """The table alone, without style."""
    right = {name: pd.api.types.is_numeric_dtype(column) for name, column in frame.items()}
    lines = zip(*([tables.cell(value, digits) for value in column] for _, column in frame.items()), strict=True)
    body = (
        "".join(
            _cell(escape(" ".join(text.split())), str(name), "right" if right[name] else "")
            for name, text in zip(frame.columns, line, strict=True)
        )
        for line in lines
    )
    return _table([(str(name), "right" if right[name] else "") for name in frame.columns], body)


def legend(text: str) -> str:
    """How the figures of a notebook are read, and on a dark page their colours."""
    return f"{PICTURES}\n<p>{escape(text)}</p>"


def verdicts(found: Verdicts) -> str:
    """A notebook's claims: the verdict first, then statement, the paper's value and ours with its interval drawn."""
    claims = {claim.id: claim for claim in found.register.claims}
    body = []
    for _, row in found.judged.iterrows():
        drawn = badges.interval(row, claims[row["id"]], found.profile)
        about = f'<div class="note">{escape(_about(row))}</div>'
        figure = f'<div class="note">{escape(_figure(row))}</div>'
        statement = f"<b>{escape(row['id'])}</b> {escape(row['statement'])}{figure}"
        body.append(
            _cell(_verdict(row))
            + _cell(statement)
            + _cell(escape(row["paper"]), "paper")
            + _cell(f"{_number(row['estimate'])}{drawn}{about}", "ours", "ours")
        )
    return block(_table([(name, "") for name in ("verdict", "statement", "paper", "ours")], body))


def block(content: str) -> str:
    """Content with the style of tables."""
    return f'{STYLE}\n<div class="{NAME}">{content}</div>'


def _verdict(row: pd.Series) -> str:
    """The coloured word; below it the reason, if it has one, and the preconditions that are not there."""
    word, _, reason = str(row["verdict"]).partition(": ")
    (colour, behind), _ = PALETTE[badges.kind(word)]
    mark = "" if pd.isna(row["precondition"]) else str(row["precondition"])
    below = "".join(f'<div class="mark">{escape(text)}</div>' for text in (reason, mark) if text)
    return badges.badge(word, f"color: {colour}; background: {behind}") + below


def _about(row: pd.Series) -> str:
    """What is claimed of the quantity, of how many seeds it is, and which effect they would have decided."""
    detectable = "" if pd.isna(row["detectable"]) else f", detectable {_number(row['detectable'])}"
    return f"claimed {row['threshold']}; seeds {row['n_seeds']}{detectable}"


def _figure(row: pd.Series) -> str:
    figure = str(row["figure"])
    return f"Figure {figure}" if figure[:1].isdigit() else figure


def _number(value: float) -> str:
    return tables.number(value, tables.places(value))


def _cell(content: str, label: str = "", name: str = "") -> str:
    when_narrow = f' data-label="{escape(label)}"' if label else ""
    side = "" if name == "right" else LEFT
    return f"<td{_class(name)}{when_narrow}{side}>{content}</td>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _table(head: Sequence[tuple[str, str]], body: Iterable[str]) -> str:
    names = "".join(f'<th scope="col"{_class(side) or LEFT}>{escape(name)}</th>' for name, side in head)
    lines = "\n".join(f"<tr>{line}</tr>" for line in body)
    return f"<table><thead><tr>{names}</tr></thead><tbody>\n{lines}\n</tbody></table>"
