"""The verdicts of a notebook's claims: which stand under which figure, which intervals are drawn, how they were found.

A claim belongs to the figures that draw the paper's figure it is about (`fig06_dynamics` draws Figure 6), or to those
whose notebook names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from opd_lib.judge.claims import DOES_NOT_HOLD, HOLDS, NOT_PART
from opd_lib.judge.register import Register

NUMBERED = re.compile(r"(\d+)([a-z]?)(?: (left|middle|right))?")
SEVERAL = {HOLDS: "hold", DOES_NOT_HOLD: "do not hold"}
"""verdict → what is said of several claims"""
SAME = 1e-9
"""How far, relatively, a drawn mean may lie from a claim's estimate: both are made of the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedInterval:
    """The interval that decides a claim, at its `confidence`, and the `bounds` it is held against, in one unit.

    An end that is not known (one seed, no runs) is nan.
    """

    claim: str
    estimate: float
    low: float
    high: float
    bounds: tuple[float, ...]
    confidence: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval to draw."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def require_same(self, mean: float, name: str) -> None:
        """Raise ValueError unless `mean`, drawn as `name`, is the claim's own quantity: else its interval misleads."""
        if self.is_known and not math.isclose(mean, self.estimate, rel_tol=SAME, abs_tol=SAME):
            raise ValueError(
                f"claim {self.claim} is not about what is drawn as {name!r}: its estimate is {self.estimate:.6g}, the "
                f"mean that is drawn {mean:.6g}; leave its interval out, or draw the claim's quantity"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """`judged`: what `claims.judge` found for the claims that `register` has of a notebook."""

    register: Register
    judged: pd.DataFrame
    profile: str

    def under(self, figure: str, named: Sequence[str] | None = None) -> str:
        """The verdicts to say under a figure, equal ones together; nothing where no claim belongs to it.

        `named`: the claims' ids, instead of those that the paper's figure number tells. Raises ValueError for an id
        that the notebook does not have.
        """
        known = {claim.id: claim for claim in self.register.claims if claim.id in set(self.judged["id"])}
        self._require(named or (), f"figure {figure}")
        ids = [name for name, claim in known.items() if draws(figure, claim.figure)] if named is None else list(named)
        if not ids:
            return ""
        found = self.judged.set_index("id")["verdict"].loc[ids].map(_short)
        groups = [f"{', '.join(names)} {_verb(verdict, len(names))}" for verdict, names in _grouped(found).items()]
        return f"Verdict: {'; '.join(groups)}." if len(ids) == 1 else f"Verdicts: {'; '.join(groups)}."

    def intervals(self, claims: Mapping[str, str]) -> dict[str, JudgedInterval]:
        """What is drawn (an arm or a label) → the interval of the claim about it. `claims`: the same → the claim's id.

        Raises ValueError for an id that the notebook does not have.
        """
        self._require(list(claims.values()), "an interval to draw")
        rows = self.judged.set_index("id")[["estimate", "low", "high"]]
        bounds = {claim.id: claim.bounds(self.profile) for claim in self.register.claims}
        return {
            name: JudgedInterval(
                claim=claim, **rows.loc[claim].to_dict(), bounds=bounds[claim], confidence=self.register.simultaneous
            )
            for name, claim in claims.items()
        }

    def legend(self) -> str:
        """Which line of a figure is a verdict's interval."""
        level, n_claims = percent(self.register.simultaneous), len(self.register.claims)
        return (
            "Thin black line beside a bar or row, where drawn: the interval on which a claim's verdict rests "
            f"({level}, so that all {n_claims} claims are right together with {percent(self.register.confidence)}), "
            "with a tick at the claimed bound."
        )

    def method(self) -> str:
        """How the verdicts came about, in sentences."""
        over_problems = list(self.judged["id"][self.judged["statistic"] == "problems"])
        also = f" ({', '.join(over_problems)}: paired bootstrap over test problems)" if over_problems else ""
        return (
            "The claims were written down before the runs that judge them "
            f"(params/claims/{Path(self.register.source).name}). Intervals are Student-t over seeds{also}, each at "
            f"{percent(self.register.simultaneous)}, so that all {len(self.register.claims)} claims of the file are "
            f"right together with {percent(self.register.confidence)}. One seed decides nothing. Detectable: how far "
            "beyond the bound an effect has to lie for these seeds to decide it with a probability of 80 %."
        )

    def _require(self, ids: Sequence[str], where: str) -> None:
        unknown = sorted(set(ids) - set(self.judged["id"]))
        if unknown:
            raise ValueError(
                f"{where}: no claim {', '.join(unknown)} in this notebook; {self.register.source} gives it "
                f"{', '.join(self.judged['id'])}"
            )


def draws(figure: str, of_paper: str) -> bool:
    """Whether our figure, by its name, draws one of the paper's, as a claim names them.

    >>> draws("fig06_dynamics", "1 right, 6"), draws("fig11a", "11b"), draws("fig01_right", "1 left")
    (True, False, False)
    """
    stems = []
    for part in of_paper.split(","):
        if numbered := NUMBERED.fullmatch(part.strip()):
            number, letter, side = numbered.groups()
            stems.append(f"fig{int(number):02d}{letter}" + (f"_{side}" if side else ""))
    return any(re.match(rf"{stem}(?![0-9a-z])", figure) for stem in stems)


def percent(share: float) -> str:
    """A share in percent, with the two decimals that a level of many claims needs and no more than it has.

    >>> percent(0.95), percent(1 - 0.05 / 75)
    ('95 %', '99.93 %')
    """
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def _short(verdict: str) -> str:
    """A verdict without its reason, which the table has."""
    return verdict.partition(":")[0] if verdict.startswith(NOT_PART) else verdict


def _verb(verdict: str, n_claims: int) -> str:
    return SEVERAL.get(verdict, verdict) if n_claims > 1 else verdict


def _grouped(found: pd.Series) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, verdict in found.items():
        groups.setdefault(str(verdict), []).append(str(name))
    return groups
