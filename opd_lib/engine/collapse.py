"""The signatures of a collapse, watched while a run goes on: two of them together are said, once, as a warning.

    overlap of the top-k lists, the student's mass on its own list    down to 95 % of what they were at the start
    response length                                                   up to 125 %
    share of hedges                                                   up to 150 % and .01 more
    share of responses that are cut, of those that end in a loop      up by .25, by .1

Start and present are means over STEPS steps with diagnostics. Only runs that name `diagnose.hedges` are watched.

Source: arXiv 2605.11182 (the signatures; bounds are ours) and 2604.08527 (truncation and loops).
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

STEPS, TOGETHER = 5, 2
HEDGES = "hedge_share"
BOUNDS = {
    "overlap": (0.95, 0.0),
    "student_support_mass": (0.95, 0.0),
    "response_length": (1.25, 0.0),
    HEDGES: (1.5, 0.01),
    "truncated_share": (1.0, 0.25),
    "looping_share": (1.0, 0.1),
}
"""Column (without _k8) → what its start is multiplied by, and what is added; with a factor below 1 it is to fall."""


class Watch:
    """The rows of a run so far, as far as they are needed."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.first: list[Mapping[str, Any]] = []
        self.last: deque[Mapping[str, Any]] = deque(maxlen=STEPS)
        self.has_warned = False
        for row in rows:
            self.see(row)

    def see(self, row: Mapping[str, Any]) -> str:
        """What the rows up to this one show, when two signatures have first crossed; else nothing.

        Rows without diagnostics (machine.diagnose_every) are passed over.
        """
        if HEDGES not in row:
            return ""
        self.last.append(row)
        if len(self.first) < STEPS:
            self.first.append(row)
            return ""
        crossed = [] if self.has_warned else list(self.crossed())
        if len(crossed) < TOGETHER:
            return ""
        self.has_warned = True
        return f"step {row['step']}: signs of a collapse: {'; '.join(crossed)}"

    def crossed(self) -> Iterable[str]:
        """Each signature that has crossed, with its start and where it stands."""
        for column in self.last[-1]:
            factor, more = BOUNDS.get(re.sub(r"_k\d+$", "", column), (math.nan, 0.0))
            start, now = mean(self.first, column), mean(self.last, column)
            beyond = now - (factor * start + more)
            if beyond < 0 if factor < 1 else beyond > 0:
                yield f"{column} {start:.3g} → {now:.3g}"


def mean(rows: Collection[Mapping[str, Any]], column: str) -> float:
    """Of a column over rows; nan where one lacks it."""
    return sum(float(row.get(column, math.nan)) for row in rows) / len(rows)
