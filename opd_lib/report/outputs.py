"""What a notebook leaves behind: tables as text and CSV, figures as picture, SVG and the numbers that it shows."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from opd_lib.judge import preconditions
from opd_lib.records.record import write_atomically
from opd_lib.report import html_tables, tables
from opd_lib.report.verdicts import JudgedInterval, Verdicts

if TYPE_CHECKING:
    from opd_lib.report import figures

LINE = 118
"""Characters in a line of text under a figure or a table."""
WIDE = 100
"""A table with longer lines of text is shown as HTML in a notebook: JupyterLab wraps them on small screens."""


def _no_claims() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Outputs:
    """The figures/ and tables/ of one executed notebook.

    `judge` gives the verdicts of the notebook's claims, None if it has none; it is asked when they are first shown, for
    then the runs are there. `presupposed` gives the preconditions likewise (`preconditions.judge`). `repeats`: what
    means and intervals are over. `shown`: the figures shown so far, by name.
    """

    folder: Path
    judge: Callable[[], Verdicts | None] = _no_claims
    presupposed: Callable[[], pd.DataFrame | None] = _no_claims
    repeats: str = "seeds"
    shown: list[str] = field(default_factory=list)

    def table(self, name: str, frame: pd.DataFrame, digits: int = 3) -> None:
        """Write tables/NAME.csv and show the table with fixed digits: as text, in a notebook as HTML if it is wide."""
        self._write(name, frame)
        text = tables.show(frame, digits)
        tell(text, html_tables.plain(frame, digits) if width(text) > WIDE else None)

    def figure(self, name: str, chart: figures.Chart, claims: Sequence[str] | None = None) -> None:
        """Write figures/NAME.svg and its numbers, figures/NAME.json; show the figure and, below it, what it says.

        Below: its numbers, how many seeds they are of, and the verdicts of its `claims`; unless these are given, they
        are those about the paper's figure of that name. Below the first figure also how figures are read. Raises
        ValueError for a claim that the notebook does not have.
        """
        from opd_lib.report import figures  # matplotlib: not for whoever writes tables alone
        from opd_lib.report.figures import captions

        verdicts = self.judge()
        if verdicts is None and claims:
            raise ValueError(f"figure {name}: claims {', '.join(claims)}, but no claims file has any of this notebook")
        found = "" if verdicts is None else verdicts.under(name, claims)
        figures.save(chart, self.folder / "figures" / f"{name}.svg")
        write_atomically(self.folder / "figures" / f"{name}.json", figures.plotted(chart))
        show(chart)
        print(wrapped(f"{chart.caption.text(self.repeats)} {found}"))
        self.shown.append(name)
        if name == self.shown[0]:
            of_verdicts = "" if verdicts is None else verdicts.legend()
            legend = wrapped(f"{captions.legend(self.repeats)} {of_verdicts}")
            tell(f"\n{legend}\n", html_tables.legend(legend))

    def intervals(self, claims: Mapping[str, str]) -> dict[str, JudgedInterval]:
        """What is drawn (an arm or a label) → the interval of the claim about it, for `bars` and `forest`.

        `claims`: the same → the claim's id. Raises ValueError for one that the notebook does not have.
        """
        verdicts = self.judge()
        if verdicts is None:
            raise ValueError(f"no claims file has claims {', '.join(claims.values())} of this notebook")
        return verdicts.intervals(claims)

    def verdicts(self) -> None:
        """The notebook's claims with their verdicts as a table (tables/verdicts.csv), and how they were judged.

        Raises ValueError if it has none.
        """
        verdicts = self.judge()
        if verdicts is None:
            raise ValueError("no claims file has claims of this notebook; leave its verdicts out")
        table = tables.verdict_table(verdicts.judged)
        self._write("verdicts", table)
        tell(tables.show(table), html_tables.verdicts(verdicts))
        print(f"\n{wrapped(verdicts.method())}")

    def preconditions(self) -> None:
        """What the claims presuppose, and whether it is there, as a table (tables/preconditions.csv) and a sentence.

        Raises ValueError if no claims file of the profile names preconditions.
        """
        states = self.presupposed()
        if states is None:
            raise ValueError("no claims file names preconditions; leave their table out")
        self.table("preconditions", tables.precondition_table(states))
        print(f"\n{wrapped(preconditions.summary(states))}")

    def _write(self, name: str, frame: pd.DataFrame) -> None:
        folder = self.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))


def show(chart: figures.Chart) -> None:
    """Show a figure in a notebook, in its place among what a cell prints; elsewhere nothing is shown."""
    if in_notebook():
        from IPython.display import display

        display(chart)  # type: ignore[no-untyped-call]


def tell(text: str, html: str | None = None) -> None:
    """Print text; in a notebook show it in one bundle with its HTML, if there is any."""
    if html is None or not in_notebook():
        print(text)
        return
    from IPython.display import publish_display_data

    publish_display_data({"text/plain": text, "text/html": html})  # type: ignore[no-untyped-call]


def in_notebook() -> bool:
    """Whether IPython runs this code."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def width(text: str) -> int:
    """The characters of the longest line."""
    return max(map(len, text.splitlines()), default=0)


def wrapped(text: str) -> str:
    """Text in lines of a width that is read easily; numbers and names stay whole."""
    return textwrap.fill(text.strip(), LINE, break_long_words=False, break_on_hyphens=False)


def put_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name -->. Raises ValueError if these lines are not there."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, has_begin, rest = (path.read_text(encoding="utf-8") if path.exists() else "").partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise ValueError(f"{path}: no lines {begin} and {end} to put the table between; add them")
    write_atomically(path, f"{before}{begin}\n\n{text}\n\n{end}{after}")
