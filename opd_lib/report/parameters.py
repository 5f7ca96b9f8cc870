"""The parameters of an experiment for reading: what tells its arms apart first, then what all of them share."""

from __future__ import annotations

import pandas as pd

from opd_lib.report import html_tables, tables

ALL = "all arms"
"""The column of what every arm has."""


def text(frame: pd.DataFrame) -> str:
    """Two tables as text: what differs, then the rest. `frame`: as `Experiment.table` gives it."""
    differ, shared = _apart(frame)
    parts = [tables.show(differ)] if len(differ) else []
    parts += [_heading(differ, shared), tables.show(shared)] if len(shared) else []
    return "\n\n".join(parts)


def html(frame: pd.DataFrame) -> str:
    """What differs as a table; the rest is folded below it, open where nothing differs."""
    differ, shared = _apart(frame)
    first = html_tables.rows(differ) if len(differ) else ""
    if not len(shared):
        return html_tables.block(first)
    fold = "<details>" if len(differ) else "<details open>"
    heading = f"<summary>{_heading(differ, shared)}</summary>"
    return html_tables.block(f"{first}{fold}{heading}{html_tables.rows(shared)}</details>")


def _heading(differ: pd.DataFrame, shared: pd.DataFrame) -> str:
    return f"{len(shared)} parameters that all arms share" if len(differ) else f"All {len(shared)} parameters"


def _apart(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What differs, a line for each arm or for each parameter, whichever are fewer columns; what is shared."""
    of_all = frame[ALL] if ALL in frame else pd.Series("", index=frame.index)
    differ = frame[of_all == ""].drop(columns=ALL, errors="ignore")
    shared = of_all[of_all != ""].rename("value").reset_index()
    if 0 < len(differ) < differ.shape[1]:
        return differ.T.rename_axis(columns=None).rename_axis("arm").reset_index(), shared
    return differ.reset_index(), shared
