"""Run folders as they are written: row by row while a run trains, never half-written.

run.json is always replaced as a whole. Tables grow by whole rows; whatever stands after the last checkpoint is dropped
when a killed run resumes (records/ledger). One process owns a folder at a time (a lock that the kernel frees when its
owner dies).
Numbers keep seven significant digits, which is what single precision knows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from opd_lib.records import files, leftovers
from opd_lib.records.durable import write_json
from opd_lib.records.ledger import Ledger
from opd_lib.records.record import RunRecord, differences, read
from opd_lib.records.sealing import Seal

DIGITS = 7


class RunWriter:
    """Owns a run folder while the run goes on; use as a context manager.

    Entering takes the lock and creates or re-opens the record; leaving releases it. Raises ValueError if the folder
    belongs to other parameters (naming the differing keys), is being written by another process, or cannot be written.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.folder = record.folder
        self._lock = FileLock(self.folder / leftovers.LOCK)
        self._tables = Ledger(self.folder)

    def __enter__(self) -> RunWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{self.folder}: another process is writing this run; wait for it or stop it") from None
        except OSError as error:
            raise ValueError(f"{self.folder}: cannot be written ({error}); choose another results folder") from error
        try:
            self._open()
        except ValueError:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            raise ValueError(
                f"{self.folder}: cannot be written ({error}); make room, or choose another results folder"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception):
                self.update(status="failed", error=f"{type(error).__name__}: {error}")
        finally:
            self._lock.release()

    def _open(self) -> None:
        if files.is_packed(self.folder):
            raise ValueError(f"{self.folder}: this run is packed, and a pack is written once; `opd unpack` it first")
        present = read(self.folder)
        if present is not None and present.identity != self.record.identity:
            changed = "; ".join(differences(present, self.record.params, self.record.parents)) or "the seed"
            raise ValueError(
                f"{self.folder}: holds a run of other parameters ({changed}). Delete it, rename the arm, "
                "or choose another results folder"
            )
        leftovers.half_written(self.folder)
        self.update(status="running", error="")

    def update(self, **changes: Any) -> None:
        """Replace fields of the record and write run.json as a whole."""
        values = {name: getattr(self.record, name) for name in RunRecord.__dataclass_fields__} | changes
        self.record = RunRecord(**values)
        del values["folder"]
        if values["tables"] is None:
            del values["tables"]
        write_json(self.folder / "run.json", values)

    def finish(self, seconds: Mapping[str, float]) -> None:
        """Say that the run is finished, in so many seconds by stage, and what its tables are."""
        self.update(status="finished", seconds=dict(seconds), tables=self._tables.save())

    def append(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to a table; the first rows fix the columns, later ones may lack some."""
        if not rows:
            return
        file, text = f"{table}.csv", io.StringIO()
        columns = self._tables.columns(file)
        writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
        if columns is None:
            writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        self._tables.append(file, text.getvalue())

    def append_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to one of LINES."""
        if rows:
            self._tables.append(f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def save(self) -> dict[str, Seal]:
        """What the tables are now, once that is on the disk: for a checkpoint, which means nothing without them."""
        return self._tables.save()

    def restore(self, tables: Mapping[str, Seal]) -> None:
        """Drop what was written since `save`. Raises ValueError if something of what was there then is lost."""
        self._tables.restore(tables)

    def truncate(self, step: int, counted: str = "") -> None:
        """Drop every row after `step`, and any torn last line: what a resumed run will write again.

        Raises ValueError if the table `counted` has not one row for each step until then.
        """
        self._tables.cut(step, f"{counted}.csv" if counted else "")


def _cell(value: Any) -> Any:
    if value is None or value != value:
        return ""  # NaN is written as an empty cell
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
