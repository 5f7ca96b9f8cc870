"""Files that may have been damaged on their way here: each is read whole, or refused in one line that names it.

Copying, merging and full disks leave half lines, conflict markers and, in the place of large files, pointers to them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from opd_lib.records import damage

RESTORE = "bring it back from where it came (a committed one: `git checkout -- FILE`)"


def text(path: Path, remedy: str = RESTORE) -> str:
    """What a file of UTF-8 text says.

    Raises ValueError for one that is not there or no text, for a pointer of Git LFS and for an unmerged conflict.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})", remedy, error)
    return decoded(found, path, remedy)


def decoded(found: bytes, where: object, remedy: str = RESTORE) -> str:
    """What bytes say that were read from a file of UTF-8 text. Raises ValueError as `text` does."""
    if reason := damage.foreign(found):
        refuse(where, f"it {reason}", remedy)
    try:
        return found.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        refuse(where, f"no UTF-8 text (byte {error.start + 1})", remedy, error)


def frame(path: Path, columns: Collection[str] = (), remedy: str = RESTORE, **options: Any) -> pd.DataFrame:
    """A table with at least these columns; `options` are those of `pandas.read_csv`.

    Raises ValueError as `text` does, for lines of several lengths or one cut off, and naming a column that is missing.
    """
    content = text(path, remedy)
    if reason := damage.unended(content.encode()):
        refuse(path, f"it {reason}", remedy)
    rows = csv.reader(io.StringIO(content))
    header = next(rows, [])
    for row in rows:
        if row and len(row) != len(header):
            refuse(f"{path}, line {rows.line_num}", f"{len(row)} cells for {len(header)} columns", remedy)
    try:
        found = pd.read_csv(io.StringIO(content), **options)
    except (ValueError, pd.errors.ParserError) as error:  # EmptyDataError is a ValueError
        refuse(path, f"no table ({str(error).strip()})", remedy, error)
    missing = [name for name in columns if name not in found]
    if missing:
        refuse(path, f"no column {', '.join(missing)}; it has {', '.join(map(str, found.columns))}", remedy)
    return found


def numbers(path: Path, found: pd.DataFrame, columns: Collection[str], remedy: str = RESTORE) -> pd.DataFrame:
    """A table read from `path` with these columns as numbers. Raises ValueError naming the first that is none."""
    for name in columns:
        values = pd.to_numeric(found[name], errors="coerce")
        wrong = found.index[values.isna() & found[name].notna()]
        if len(wrong):
            value = found[name][wrong[0]]
            refuse(f"{path}, line {int(wrong[0]) + 2}", f"{name}: {value!r} is no number", remedy)
        found = found.assign(**{name: values})
    return found


def content(path: Path, remedy: str = RESTORE) -> Any:
    """What a JSON file says. Raises ValueError as `text` does, and for anything else."""
    return _parsed(text(path, remedy), path, remedy)


def mapping(path: Path, keys: Collection[str] = (), remedy: str = RESTORE) -> dict[str, Any]:
    """A JSON object with at least these keys. Raises ValueError as `text` does, for anything else, and for a key."""
    return _object(text(path, remedy), path, keys, remedy)


def rows(found: bytes, where: object, keys: Collection[str] = (), remedy: str = RESTORE) -> list[dict[str, Any]]:
    """A JSON object per line, each with at least these keys; lines end in line feeds alone, whatever strings hold.

    Raises ValueError as `text` does, naming the line that is none, lacks a key, or is cut off.
    """
    lines = decoded(found, where, remedy)
    if reason := damage.unended(lines.encode()):
        refuse(where, f"it {reason}", remedy)
    numbered = enumerate(lines.split("\n")[:-1], start=1)
    return [_object(line, f"{where}, line {number}", keys, remedy) for number, line in numbered]


def refuse(where: object, what: str, remedy: str, error: BaseException | None = None) -> NoReturn:
    """Raise the ValueError of a damaged place: what is wrong there, and what to do."""
    raise ValueError(f"{where}: {what}; {remedy}") from error


def _parsed(text: str, where: object, remedy: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        refuse(where, f"no JSON ({error})", remedy, error)


def _object(text: str, where: object, keys: Collection[str], remedy: str) -> dict[str, Any]:
    found = _parsed(text, where, remedy)
    if not isinstance(found, dict):
        refuse(where, f"a JSON object is expected, not {type(found).__name__}", remedy)
    missing = [key for key in keys if key not in found]
    if missing:
        refuse(where, f"no {', '.join(missing)}; it has {', '.join(found) or 'nothing'}", remedy)
    return found
