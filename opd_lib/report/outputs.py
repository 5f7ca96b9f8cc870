"""What a notebook leaves behind: tables as text and CSV, figures as picture, SVG and the numbers that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from opd_lib.records.record import write_atomically
from opd_lib.report import tables

if TYPE_CHECKING:
    from opd_lib.report import figures


@dataclass(frozen=True, slots=True)
class Outputs:
    """The figures/ and tables/ of one executed notebook."""

    folder: Path

    def table(self, name: str, frame: pd.DataFrame, digits: int = 3) -> None:
        """Write tables/NAME.csv and print the table with fixed digits."""
        folder = self.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
        print(tables.show(frame, digits))

    def figure(self, name: str, chart: figures.Chart) -> figures.Chart:
        """Write figures/NAME.svg and its numbers, figures/NAME.json; return the figure, which a notebook then shows."""
        from opd_lib.report import figures  # matplotlib: not for whoever writes tables alone

        figures.save(chart, self.folder / "figures" / f"{name}.svg")
        write_atomically(self.folder / "figures" / f"{name}.json", figures.plotted(chart))
        return chart


def put_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name -->. Raises ValueError if these lines are not there."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, has_begin, rest = (path.read_text(encoding="utf-8") if path.exists() else "").partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise ValueError(f"{path}: no lines {begin} and {end} to put the table between; add them")
    write_atomically(path, f"{before}{begin}\n\n{text}\n\n{end}{after}")
