"""What a finished record knows of each of its tables: bytes, rows and a digest, so that no number is read from another.

    "tables": {"steps.csv": {"bytes": 17012, "rows": 120, "blake2b": "…"}, …}

Records from before this was written have no such key. Their tables are held against what can be seen without it: whole
lines, as many cells in each as the header has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from opd_lib.records import damage, files
from opd_lib.records.files import Place

TABLES = ("steps", "evals", "depth", "problems", "caps", "probe")
LINES = ("rollouts", "tokens")
FILES = (*(f"{name}.csv" for name in TABLES), *(f"{name}.jsonl" for name in LINES))
"""Whatever a record may have beside run.json."""
DIGEST_BYTES = 16


class Seal(TypedDict):
    """A table as its run left it. `rows`: lines without a header."""

    bytes: int
    rows: int
    blake2b: str


class Hasher:
    """The seal of what was fed so far."""

    def __init__(self, header: bool) -> None:
        self._digest, self.bytes, self._lines, self._header = hashlib.blake2b(digest_size=DIGEST_BYTES), 0, 0, header

    def feed(self, content: bytes) -> None:
        """Take in what comes next."""
        self._digest.update(content)
        self.bytes += len(content)
        self._lines += content.count(b"\n")

    @property
    def seal(self) -> Seal:
        """Of everything fed."""
        rows = max(0, self._lines - self._header)
        return Seal(bytes=self.bytes, rows=rows, blake2b=self._digest.hexdigest())


def seal(name: str, content: bytes) -> Seal:
    """The seal of a table with this content."""
    hasher = Hasher(name.endswith(".csv"))
    hasher.feed(content)
    return hasher.seal


def sealed(folder: Path) -> dict[str, Seal]:
    """The seals of the tables that a run has. Raises ValueError for one that is not whole."""
    return {name: seal(name, content(folder, name, None)) for name in FILES if files.exists(folder, name)}


def content(folder: Path, name: str, seals: Mapping[str, Seal] | None) -> bytes:
    """A table's bytes, empty if its run wrote none.

    Raises ValueError, saying what happened to it and what to do, unless they are those that the run left; of a record
    without seals (None), unless they are whole lines of the table's columns.
    """
    known = None if seals is None else seals.get(name)
    try:
        found = files.read(folder, name)
    except OSError as error:
        raise damaged(folder / name, f"cannot be read ({error})") from None
    if found is None:
        reason = "is missing: its run left it" if known else ""
    elif known is not None:
        reason = "" if seal(name, found) == known else changed(found, known)
    else:
        reason = torn(name, found) if seals is None else "was not there when its run finished"
    if reason:
        raise damaged(files.place(folder, name), reason)
    return found or b""


def fault(folder: Path, seals: Mapping[str, Seal] | None, verify: bool) -> str:
    """What is wrong with the tables of a record: sizes alone, or their content; empty if nothing is."""
    try:
        for name in FILES if verify else ():
            content(folder, name, seals)
        if seals and not verify:
            for name in files.of_other_size(folder, {name: known["bytes"] for name, known in seals.items()}):
                content(folder, name, seals)  # says what it is
    except ValueError as error:
        return str(error)
    return ""


def damaged(where: Path | Place, reason: str) -> ValueError:
    """What is said of a table that is not what it was."""
    place = where if isinstance(where, Place) else Place(path=where)
    return ValueError(f"{place}: corrupt table: it {reason}; {place.remedy}")


def changed(found: bytes, known: Seal) -> str:
    """How bytes that are not those of a seal differ from them."""
    if reason := damage.foreign(found):
        return reason
    if seal("", found.replace(b"\r\n", b"\n"))["blake2b"] == known["blake2b"]:
        return "has other line ends than its run wrote (CRLF)"
    if len(found) != known["bytes"]:
        return f"has {len(found):,} bytes of the {known['bytes']:,} ({known['rows']:,} rows) that its run left"
    return "has other content than its run left"


def torn(name: str, found: bytes) -> str:
    """Why these bytes cannot be a whole table, as far as can be seen; empty if they can."""
    if reason := damage.foreign(found):
        return reason
    if not found:
        return "is empty"
    if reason := damage.unended(found):
        return reason
    header = found.partition(b"\n")[0]
    if name.endswith(".csv") and b'"' not in found and found.count(b",") != header.count(b",") * found.count(b"\n"):
        return "has rows with more or fewer cells than its header"
    return ""
