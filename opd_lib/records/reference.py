"""The paper's own numbers, transcribed in results/reference (its README says how each was read)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from opd_lib import paths
from opd_lib.records import reading

FIGURE_COLUMNS = ("figure", "run", "quantity", "step", "value", "unit", "source", "confidence")
TABLE_COLUMNS = ("item", "value", "source")
FILE = "file"
"""The attribute of a frame that says where it was read."""


def read(name: str, folder: Path = paths.REFERENCE) -> pd.DataFrame:
    """One transcribed figure (FIGURE_COLUMNS, `value` a number) or table (TABLE_COLUMNS, `value` a text).

    Raises ValueError naming the file when it is not there, is damaged, has other columns, or a value is no number.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.csv")))
        raise ValueError(f"{path}: no such reference; use one of {known}")
    frame = reading.frame(path, dtype=str, keep_default_na=False)
    frame.attrs[FILE] = str(path)
    if tuple(frame.columns) == TABLE_COLUMNS:
        return frame
    if tuple(frame.columns) != FIGURE_COLUMNS:
        raise ValueError(f"{path}: columns are {', '.join(frame.columns)}; expected {', '.join(FIGURE_COLUMNS)}")
    return reading.numbers(path, frame, ["value"]).astype({"value": float})


def curve(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The points of one quantity as columns arm, step (int), value, in the order of the file.

    Raises ValueError when the figure has no such curve.
    """
    rows = frame[(frame["quantity"] == quantity) & frame["step"].str.isdigit()]
    if rows.empty:
        where = frame.attrs.get(FILE, "this figure")
        raise ValueError(f"{where}: no curve of {quantity!r}; it has {', '.join(frame['quantity'].unique())}")
    return pd.DataFrame({"arm": rows["run"], "step": rows["step"].astype(int), "value": rows["value"]})
