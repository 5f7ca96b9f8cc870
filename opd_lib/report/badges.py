"""A verdict as a coloured word and its interval as a drawing: the same in notebooks and on the site."""

from __future__ import annotations

import math
from html import escape

import pandas as pd

from opd_lib.judge.claims import DOES_NOT_HOLD, HOLDS, INCONCLUSIVE, NOT_RUN
from opd_lib.judge.statement import Claim
from opd_lib.report import tables

KINDS = {HOLDS: "holds", DOES_NOT_HOLD: "fails", INCONCLUSIVE: "open", NOT_RUN: "none"}
"""verdict → class of its colour"""
WIDTH, HEIGHT, MARGIN = 150, 26, 8  # of a drawing
ENDS = ("estimate", "low", "high")


def kind(verdict: str) -> str:
    """The class of a verdict's colour."""
    return KINDS.get(verdict, "none")


def badge(verdict: str, style: str = "") -> str:
    """A verdict as a coloured word. `style`: its colours where a page may drop the style sheet."""
    inline = f' style="{escape(style)}"' if style else ""
    return f'<span class="verdict {kind(verdict)}"{inline}>{escape(verdict)}</span>'


def interval(found: pd.Series, claim: Claim, profile: str) -> str:
    """The interval of a row of `claims.judge` as text and drawing: bar and dot, the bound dashed, its side shaded.

    A claim of two equal runs has a bound on either side of zero, and what lies between them is shaded. Nothing where an
    end is not known. Drawn are the numbers as they are written, so that equal text has an equal drawing on any machine.
    """
    exact = [float(found[name]) for name in ENDS]
    if any(math.isnan(number) for number in exact):
        return ""
    digits = tables.places(exact[0])
    estimate, low, high = (round(number, digits) for number in exact)
    bounds = claim.bounds(profile)
    left, right = min(low, *bounds), max(high, *bounds)
    scale = (WIDTH - 2 * MARGIN) / ((right - left) or 1.0)

    def at(value: float) -> str:
        return f"{MARGIN + (value - left) * scale:.1f}"

    ends = {">": (at(bounds[0]), f"{WIDTH}"), "<": ("0", at(bounds[0])), "within": (at(bounds[0]), at(bounds[-1]))}
    from_, to = map(float, ends[claim.comparison])
    dashed = (f'<line class="bound" x1="{at(x)}" x2="{at(x)}" y1="2" y2="{HEIGHT - 2}"/>' for x in bounds)
    text = f"[{tables.number(low, digits)}, {tables.number(high, digits)}]"
    return (
        f'<div class="bounds">{text}</div><svg class="opd-interval" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="interval {text}, claimed {escape(found["threshold"])}">'
        f'<rect class="claimed" x="{from_:.1f}" y="2" width="{to - from_:.1f}" height="{HEIGHT - 4}"/>'
        f"{''.join(dashed)}"
        f'<line class="range" x1="{at(low)}" x2="{at(high)}" y1="{HEIGHT / 2}" y2="{HEIGHT / 2}"/>'
        f'<circle cx="{at(estimate)}" cy="{HEIGHT / 2}" r="4"/></svg>'
    )
