"""Run folders as they are read: records, their tables as frames, and what tells two records apart.

    results/PROFILE/NN_name/ARM/seedS/
      run.json         identity, parameters, parents, provenance, gates, status, seconds
      steps.csv        one row per optimiser step          evals.csv      one row per (step, test set)
      depth.csv        one row per (step, depth bucket)    problems.csv   one row per (step, test set, problem)
      caps.csv         one row per (step, test set, response limit)
      probe.csv        what a run that measures and trains nothing has found (columns: engine/probes)
      rollouts.jsonl   a few responses with per-token scores
      tokens.jsonl     answers to the same few problems at every evaluation, with both models' lists (engine/tokens)

How they are written: report/writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

TABLES = ("steps", "evals", "depth", "problems", "caps", "probe")
LINES = ("rollouts", "tokens")
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
        """Responses of training, with their tokens and per-token scores."""
        return self._lines("rollouts")

    def tokens(self) -> list[dict[str, Any]]:
        """Answers to the kept problems by step, with per-token scores and lists; none if the run kept none."""
        return self._lines("tokens")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / f"{name}.jsonl"
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


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def made_by_run(reference: str | Mapping[str, str] | None) -> str:
    """The name of the checkpoint that a `run:NOTEBOOK/ARM` reference means; empty for any other checkpoint, or none.

    Several that have names are named one after the other.

    >>> made_by_run("run:00_models/justrl-small"), made_by_run("a/hub-name"), made_by_run(None)
    ('justrl-small', '', '')
    """
    if isinstance(reference, Mapping):
        return " + ".join(filter(None, map(made_by_run, reference.values())))
    return reference.partition("/")[2].partition("@")[0] if reference and reference.startswith(RUN_PREFIX) else ""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys.

    >>> flatten({"train": {"lr": 0.1}, "teacher": None})
    {'train.lr': 0.1, 'teacher': None}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
