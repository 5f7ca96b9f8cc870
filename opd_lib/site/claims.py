"""The claims page: each statement of the paper with its verdict and interval, and the way to all that it rests on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from opd_lib import params
from opd_lib.judge import vocabulary
from opd_lib.judge.quantities import MODELS
from opd_lib.judge.register import Claim
from opd_lib.params import Experiment
from opd_lib.report import badges, tables
from opd_lib.report.verdicts import draws
from opd_lib.site.notebooks import Figure
from opd_lib.site.source import Source

WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---\n"
"""Before a page whose table needs the room."""
FUNCTION = re.compile(r"\b([a-z_]+)(?=\()")


def figures_of(claim: Claim, figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """The drawings of the paper's figures that a claim names, in its own notebook or another."""
    named = [figure for figure in figures if draws(figure.name, claim.figure)]
    own = [figure for figure in named if figure.notebook == claim.notebook]
    return tuple(own or named)


def runs_of(claim: Claim, experiment: Experiment) -> tuple[str, ...]:
    """NOTEBOOK/ARM of the runs that a claim's quantity names; all of its notebook's if it names none."""
    words = {word for _, words in vocabulary.calls(claim.quantity) for word in words}
    mine = [arm for arm in experiment.arms if arm in words]
    models = params.load(MODELS, experiment.profile).arms
    made = [f"{MODELS}/{model}" for model in models if model in words and model not in mine]
    found = [experiment.spec(arm, 0).name.rsplit("/", 1)[0] for arm in mine or ([] if made else experiment.arms)]
    return tuple(dict.fromkeys([*found, *made]))


def page(source: Source) -> str:
    """The whole page as Markdown with HTML in it."""
    register, judged = source.register, source.verdicts
    if not source.claims:
        return "# The claims\n\nNone of the notebooks that are shown has claims.\n"
    experiments = {name: params.load(name, source.profile) for name in {claim.notebook for claim in source.claims}}
    bodies = []
    for notebook in source.notebooks:
        of_it = register.of(notebook.name)
        rows = "".join(_row(claim, judged.loc[claim.id], experiments[claim.notebook], source) for claim in of_it)
        if rows:
            bodies.append(
                f'<tbody><tr class="group"><th colspan="5" scope="rowgroup"><a href="notebooks/{notebook.name}.html">'
                f"{escape(notebook.title)}</a></th></tr>{rows}</tbody>"
            )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Statement", "Paper", "Ours", "Verdict"))
    return (
        f"{WIDE}# The claims\n\n{len(source.claims)} statements of {register.paper} (C) and hypotheses that its "
        "authors left open (H), each a predicate with a bound that was written before the runs. Intervals are at a "
        f"level that keeps all of them right together with {register.confidence:.0%} confidence. In the drawings the "
        "shaded side is the claimed one: a claim holds when its whole interval lies there.\n\n"
        + raw(
            f"{bar(judged['verdict'])}{_filters(judged['verdict'])}"
            '<div class="scroll" tabindex="0" role="region" aria-label="Table of claims"><table class="claims">'
            f"<thead><tr>{head}</tr></thead>{''.join(bodies)}</table></div>"
        )
    )


def raw(text: str) -> str:
    """HTML as a block of Markdown."""
    return f"`````{{raw}} html\n{text}\n`````\n"


def tally(verdicts: pd.Series) -> Mapping[str, int]:
    """How many there are of each verdict, the best first."""
    counts = verdicts.value_counts()
    return {name: int(counts[name]) for name in badges.KINDS if name in counts}


def bar(verdicts: pd.Series) -> str:
    """The share of each verdict as one coloured bar."""
    parts = "".join(
        f'<span class="{badges.kind(name)}" style="flex:{count}" title="{count} {name}"><b>{count}</b> {name}</span>'
        for name, count in tally(verdicts).items()
    )
    return f'<div class="verdict-bar" role="img" aria-label="{_spoken(verdicts)}">{parts}</div>'


def _spoken(verdicts: pd.Series) -> str:
    return ", ".join(f"{count} {name}" for name, count in tally(verdicts).items())


def _filters(verdicts: pd.Series) -> str:
    buttons = "".join(
        f'<button type="button" data-verdict="{badges.kind(name)}" aria-pressed="false">{name} ({count})</button>'
        for name, count in tally(verdicts).items()
    )
    return f'<p class="filters" hidden>Show only: {buttons}</p>'


def _row(claim: Claim, found: pd.Series, experiment: Experiment, source: Source) -> str:
    ours = tables.number(found["estimate"], tables.places(found["estimate"]))
    cells = (
        f'<th scope="row"><a href="#{claim.id}">{claim.id}</a></th>'
        f"<td>{escape(claim.statement)}{_evidence(claim, found, experiment, source)}</td>"
        f'<td data-label="paper">{escape(claim.paper.text)}</td>'
        f'<td data-label="ours">{ours}{badges.interval(found, claim, source.profile)}</td>'
        f"<td>{badges.badge(found['verdict'])}{_mark(found)}</td>"
    )
    return f'<tr id="{claim.id}" class="claim" data-verdict="{badges.kind(found["verdict"])}">{cells}</tr>'


def _mark(found: pd.Series) -> str:
    """The preconditions that a claim rests on and that are not there, below its verdict."""
    return f'<span class="mark">{escape(found["precondition"])}</span>' if found["precondition"] else ""


def _decided(found: pd.Series) -> str:
    """How large an effect would have been found; nothing where too few seeds were run."""
    if math.isnan(found["detectable"]):
        return ""
    least = tables.number(found["detectable"], tables.places(found["detectable"]))
    return f"<dt>Decided four times in five</dt><dd>from {least} beyond the bound</dd>"


def _evidence(claim: Claim, found: pd.Series, experiment: Experiment, source: Source) -> str:
    drawn = figures_of(claim, [figure for notebook in source.notebooks for figure in notebook.figures])
    links = [
        f'<a href="notebooks/{claim.notebook}.html#verdicts">notebook</a>',
        *(f'<a class="zoom" href="figures/{f.notebook}/{f.name}.svg">{escape(f.name)}</a>' for f in drawn),
        f'<a href="params/{claim.notebook}.html">params</a>',
    ]
    if (source.root / claim.notebook / "tables" / "verdicts.csv").exists():
        links.append(f'<a href="tables/{claim.notebook}/verdicts.csv">table</a>')
    records = ", ".join(_record(run, source) for run in runs_of(claim, experiment))
    quantity = FUNCTION.sub(_explained, escape(claim.quantity, quote=False))
    bound = claim.asked(source.profile)
    return (
        f'<span class="links">{" · ".join(links)}</span><details><summary>How it is judged</summary><dl>'
        f"<dt>Quantity of one seed</dt><dd><code>{quantity}</code> {escape(bound)}</dd>"
        f"<dt>Interval</dt><dd>over {claim.statistic}; planned for {claim.seeds} seeds</dd>{_decided(found)}"
        f"<dt>Restated</dt><dd>{escape(claim.note)}</dd>"
        f"<dt>The paper's value</dt><dd>{escape(claim.paper.source)}</dd>"
        f"<dt>Records</dt><dd>{records}</dd>"
        '<dt>Code</dt><dd><a href="code/judge/claims.html">the verdict</a>, '
        '<a href="code/judge/vocabulary.html">the quantity</a>, <a href="params/claims.html">the claims file</a></dd>'
        "</dl></details>"
    )


def _record(run: str, source: Source) -> str:
    """NOTEBOOK/ARM as a link to its records, where they are shown."""
    if run not in source.arms:
        return escape(run)
    return f'<a href="records/{run.split("/")[0]}.html#{slug(f"run-{run}")}">{escape(run)}</a>'


def _explained(function: re.Match[str]) -> str:
    name = function[1]
    if name not in vocabulary.FUNCTIONS:
        return name
    return f'<a href="glossary.html#{slug(f"f-{name}")}">{name}</a>'


def slug(text: str) -> str:
    """A text as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
