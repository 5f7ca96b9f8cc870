"""The tables of a run as they grow: an append is one write whatever stands there, a resumed run goes on behind it.

What is written is hashed on its way, so at any moment it is known what each table must be. A checkpoint keeps that, and
so does a finished record. A resumed run reads its tables once, a piece at a time, and refuses those that are not whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from opd_lib.records import damage, durable, sealing
from opd_lib.records.sealing import FILES, Hasher, Seal

PIECE = 1 << 20
"""Bytes that are read at a time."""
STEP = re.compile(rb'(?:\{"step": )?(\d+)[,}\n]')
"""How a row begins, in a table and in a file of responses."""


class Ledger:
    """What one process has written into a folder's tables. It alone writes there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[str, Hasher] = {}
        self._columns: dict[str, list[str]] = {}
        self._unsaved: set[str] = set()

    def columns(self, file: str) -> list[str] | None:
        """Those of a table's header; None if it is not there yet."""
        if file not in self._columns and (self.folder / file).exists():
            with (self.folder / file).open("rb") as opened:
                self._columns[file] = opened.readline().decode().rstrip("\n").split(",")
        return self._columns.get(file)

    def append(self, file: str, text: str) -> None:
        """Add whole lines. Raises ValueError if somebody else has changed the file."""
        path, content = self.folder / file, text.encode()
        if file not in self._written:
            self._written[file] = _read(path, None) if path.exists() else _hasher(file)
        with path.open("ab") as opened:
            if opened.tell() != self._written[file].bytes:
                raise sealing.damaged(path, f"was changed while its run went on ({opened.tell():,} bytes)")
            opened.write(content)
        self._written[file].feed(content)
        self._unsaved.add(file)

    def save(self) -> dict[str, Seal]:
        """Every table as it is now, when all of it is on the disk."""
        for file in sorted(self._unsaved):
            durable.flush(self.folder / file)
        self._unsaved.clear()
        return {file: self._written[file].seal for file in FILES if file in self._written}

    def restore(self, seals: Mapping[str, Seal]) -> None:
        """Go back to this state: drop what was written since.

        Raises ValueError, and changes nothing, if a table is not whole up to there.
        """
        written = {file: self._whole(file, known) for file, known in seals.items()}
        self._begin(written)

    def cut(self, step: int, counted: str = "") -> None:
        """Drop every row after `step`, and any torn last line; a table without rows goes.

        Raises ValueError, and changes nothing, if a row cannot be read, or if the rows of the table `counted` are not
        one for each step until then.
        """
        written = {file: self._until(file, step, counted) for file in FILES if (self.folder / file).exists()}
        if counted and step > 0 and counted not in written:
            raise sealing.damaged(self.folder / counted, f"is missing: the run has come to step {step}")
        self._begin({file: hasher for file, hasher in written.items() if hasher.seal["rows"]})

    def _begin(self, written: dict[str, Hasher]) -> None:
        for file in FILES:
            path = self.folder / file
            if file in written:
                os.truncate(path, written[file].bytes)
            else:
                path.unlink(missing_ok=True)
        self._written, self._columns, self._unsaved = written, {}, set(written)

    def _whole(self, file: str, known: Seal) -> Hasher:
        path = self.folder / file
        if not path.exists():
            raise sealing.damaged(path, f"is missing: the last checkpoint goes with {known['rows']:,} rows of it")
        found = _read(path, known["bytes"])
        if found.seal != known:
            seen = "" if found.bytes == known["bytes"] else f" of {found.bytes:,} bytes,"
            with path.open("rb") as opened:
                reason = damage.foreign(opened.read(PIECE))
            reason = reason or (
                f"is{seen} not what it was at the last checkpoint ({known['rows']:,} rows, {known['bytes']:,} bytes)"
            )
            raise sealing.damaged(path, reason)
        return found

    def _until(self, file: str, step: int, counted: str) -> Hasher:
        path, hasher, last = self.folder / file, _hasher(file), 0
        with path.open("rb") as opened:
            if file.endswith(".csv"):
                hasher.feed(opened.readline())
            for number, line in enumerate(opened, 1):
                found = STEP.match(line)
                if not line.endswith(b"\n") or (found and int(found[1]) > step):
                    break
                if found is None or (file == counted and int(found[1]) != last + 1):
                    raise sealing.damaged(path, f"has another row {number} than belongs there: {line[:40]!r}")
                last = int(found[1])
                hasher.feed(line)
        if file == counted and last < step:
            raise sealing.damaged(path, f"ends with step {last}, and the run has come to step {step}")
        return hasher


def _hasher(file: str) -> Hasher:
    return Hasher(header=file.endswith(".csv"))


def _read(path: Path, size: int | None) -> Hasher:
    """The beginning of a file (None: all of it), read in pieces."""
    hasher, left = _hasher(path.name), path.stat().st_size if size is None else size
    with path.open("rb") as opened:
        while left and (piece := opened.read(min(PIECE, left))):
            hasher.feed(piece)
            left -= len(piece)
    return hasher
