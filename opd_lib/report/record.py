"""Run folders: written row by row while a run trains, read back as frames, never half-written.

    results/PROFILE/NN_name/ARM/seedS/
      run.json         identity, parameters, parents, provenance, gates, status, seconds
      steps.csv        one row per optimiser step          evals.csv      one row per (step, test set)
      depth.csv        one row per (step, depth bucket)    problems.csv   one row per (step, test set, problem)
      caps.csv         one row per (step, test set, response limit)
      probe.csv        what a run that measures and trains nothing has found (columns: engine/probes)
      rollouts.jsonl   a few responses with per-token scores

Numbers keep seven significant digits, which is what single precision knows.

run.json is always replaced as a whole. Tables grow by whole rows; whatever stands after the last checkpoint is dropped
when a killed run resumes. One process owns a folder at a time (a lock that the kernel frees when its owner dies).
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

TABLES = ("steps", "evals", "depth", "problems", "caps", "probe")
EXAMPLES = "rollouts"
DIGITS = 7
RUN_PREFIX = "run:"
PROGRESS = ".progress.json"  # how far a run is: step, steps, seconds; gone when it is finished


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run folder as read. `status`: running, finished or failed; `seconds`: wall seconds per stage of the loop."""

    folder: Path
    experiment: str
    profile: str
    arm: str
    seed: int
    status: str
    identity: str
    params: dict[str, Any]
    parents: dict[str, str]
    provenance: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def name(self) -> str:
        """NN_name/ARM/seedS."""
        return f"{self.experiment}/{self.arm}/seed{self.seed}"

    @property
    def teacher(self) -> str:
        """The name of the checkpoint that teaches, empty unless a run made it."""
        return made_by_run(self.params.get("teacher"))

    def renamed(self, experiment: str, arm: str) -> RunRecord:
        """The same run as it is called in another notebook that shares it."""
        return replace(self, experiment=experiment, arm=arm)

    def frame(self, table: str) -> pd.DataFrame:
        """One of TABLES as a frame, empty if the run wrote none. Raises ValueError if the file is corrupt."""
        path = self.folder / f"{table}.csv"
        if not path.exists():
            return pd.DataFrame()
        try:
            return pd.read_csv(path)
        except (pd.errors.ParserError, UnicodeDecodeError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{path}: corrupt table ({error}); delete {self.folder} and run again") from error

    def examples(self) -> list[dict[str, Any]]:
        """The responses kept, with their tokens and per-token scores."""
        path = self.folder / f"{EXAMPLES}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read(folder: Path) -> RunRecord | None:
    """The record in a folder, None if there is none. Raises ValueError if run.json is not a record."""
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        return RunRecord(folder=folder, **json.loads(path.read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{path}: corrupt record ({error}); delete {folder} and run again") from error


def frame(records: Iterable[RunRecord], table: str) -> pd.DataFrame:
    """A table of many runs as one tidy frame: arm, seed, then the table's columns."""
    frames = []
    for record in records:
        rows = record.frame(table)
        if rows.empty:
            continue
        rows.insert(0, "seed", record.seed)
        rows.insert(0, "arm", record.arm)
        frames.append(rows)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["arm", "seed"])


def differences(record: RunRecord, params: Mapping[str, Any], parents: Mapping[str, str]) -> list[str]:
    """Which parameters or parents of a record differ from those asked for, as `key: recorded → asked`."""
    recorded = flatten(record.params) | {f"parent {role}": digest for role, digest in record.parents.items()}
    asked = flatten(params) | {f"parent {role}": digest for role, digest in parents.items()}
    keys = [key for key in sorted({*recorded, *asked}) if not key.startswith(("machine.", "task.data"))]
    return [f"{k}: {recorded.get(k)!r} → {asked.get(k)!r}" for k in keys if recorded.get(k) != asked.get(k)]


class RunWriter:
    """Owns a run folder while the run goes on; use as a context manager.

    Entering takes the lock and creates or re-opens the record; leaving releases it. Raises ValueError if the folder
    belongs to other parameters (naming the differing keys), is being written by another process, or cannot be written.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.folder = record.folder
        self._lock = FileLock(self.folder / ".lock")

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
        except (ValueError, OSError):
            self._lock.release()
            raise
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
        present = read(self.folder)
        if present is not None and present.identity != self.record.identity:
            changed = "; ".join(differences(present, self.record.params, self.record.parents)) or "the seed"
            raise ValueError(
                f"{self.folder}: holds a run of other parameters ({changed}). Delete it, rename the arm, "
                "or choose another results folder"
            )
        self.update(status="running", error="")

    def update(self, **changes: Any) -> None:
        """Replace fields of the record and write run.json as a whole."""
        values = {name: getattr(self.record, name) for name in RunRecord.__dataclass_fields__} | changes
        self.record = RunRecord(**values)
        del values["folder"]
        write_json(self.folder / "run.json", values)

    def append(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Add rows to a table; the first rows fix the columns, later ones may lack some."""
        if not rows:
            return
        path = self.folder / f"{table}.csv"
        text, columns = io.StringIO(), list(rows[0])
        if path.exists():
            columns = path.read_text().partition("\n")[0].split(",")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        if not path.exists():
            writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        _append(path, text.getvalue())

    def append_examples(self, rows: list[dict[str, Any]]) -> None:
        """Keep some responses."""
        if rows:
            _append(self.folder / f"{EXAMPLES}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def truncate(self, step: int) -> None:
        """Drop every row after `step`, and any torn last line: what a resumed run will write again."""
        for table in TABLES:
            path = self.folder / f"{table}.csv"
            if not path.exists():
                continue
            header, *lines = path.read_text().splitlines(keepends=True) or [""]
            kept = [line for line in lines if line.endswith("\n") and int(line.split(",", 1)[0]) <= step]
            if kept:
                write_atomically(path, "".join([header, *kept]))
            else:
                path.unlink()
        path = self.folder / f"{EXAMPLES}.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            write_atomically(path, "".join(line for line in lines if json.loads(line)["step"] <= step))


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _cell(value: Any) -> Any:
    if value is None or value != value:
        return ""  # NaN is written as an empty cell
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def made_by_run(reference: str | None) -> str:
    """The name of the checkpoint that a `run:NOTEBOOK/ARM` reference means; empty for any other checkpoint, or none.

    >>> made_by_run("run:00_models/justrl-small"), made_by_run("a/hub-name"), made_by_run(None)
    ('justrl-small', '', '')
    """
    return reference.partition("/")[2] if reference and reference.startswith(RUN_PREFIX) else ""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys.

    >>> flatten({"train": {"lr": 0.1}, "teacher": None})
    {'train.lr': 0.1, 'teacher': None}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
