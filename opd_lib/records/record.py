"""Run folders as they are read: records, their tables as frames, and what tells two records apart.

    results/PROFILE/NN_name/ARM/seedS/
      run.json         identity, parameters, parents, provenance, gates, status, seconds, digests of the tables
      steps.csv        one row per optimiser step          evals.csv      one row per (step, test set)
      depth.csv        one row per (step, depth bucket)    problems.csv   one row per (step, test set, problem)
      caps.csv         one row per (step, test set, response limit)
      probe.csv        what a run that measures and trains nothing has found (columns: engine/probes)
      rollouts.jsonl   a few responses with per-token scores
      tokens.jsonl     answers to the same few problems at every evaluation, with both models' lists (engine/tokens)

How they are written: records/writer. What a finished one knows of its tables: records/sealing. Committed records are
packed, many runs in one file, and read as if they were not: records/packed.
"""

from __future__ import annotations

import io
import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from opd_lib.records import damage, files, responses, sealing
from opd_lib.records.durable import write_atomically as write_atomically
from opd_lib.records.durable import write_json as write_json
from opd_lib.records.leftovers import PROGRESS as PROGRESS
from opd_lib.records.packed import RUN
from opd_lib.records.parameters import NOT_DETERMINING, PLACES, flatten, made_by_run
from opd_lib.records.sealing import LINES as LINES
from opd_lib.records.sealing import TABLES as TABLES
from opd_lib.records.sealing import Seal


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as read. `folder`: where it was written, even if its files are packed now (records/files); `status`:
    running, finished or failed; `seconds`: wall seconds per stage of the loop.

    `tables`: file → its seal; None while the run goes on, and for a record from before there were any.
    """

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
    tables: dict[str, Seal] | None = None

    @property
    def name(self) -> str:
        """NN_name/ARM/seedS."""
        return f"{self.experiment}/{self.arm}/seed{self.seed}"

    @property
    def teacher(self) -> str:
        """The name of the checkpoint that teaches, empty unless a run made it."""
        return made_by_run(self.params.get("teacher"))

    def renamed(self, experiment: str, arm: str) -> RunRecord:
        """This record under the names that another notebook has for the run, which it shares."""
        return replace(self, experiment=experiment, arm=arm)

    def content(self, file: str) -> bytes:
        """The bytes of a table, such as `steps.csv`, empty if the run wrote none.

        Raises ValueError, saying what happened to it, if they are not those that the run left.
        """
        return sealing.content(self.folder, file, self.tables)

    def frame(self, table: str) -> pd.DataFrame:
        """One of TABLES as a frame, empty if the run wrote none. Raises ValueError if the file is corrupt."""
        found = self.content(f"{table}.csv")
        try:
            return pd.read_csv(io.BytesIO(found)) if found else pd.DataFrame()
        except (pd.errors.ParserError, UnicodeDecodeError, pd.errors.EmptyDataError) as error:
            raise sealing.damaged(files.place(self.folder, f"{table}.csv"), f"cannot be read ({error})") from error

    def examples(self) -> list[dict[str, Any]]:
        """Responses of training, with their tokens and per-token scores. Raises ValueError for a damaged line."""
        return self._lines("rollouts.jsonl", responses.EVERY)

    def tokens(self) -> list[dict[str, Any]]:
        """Answers to the kept problems by step, with per-token scores and lists; none if the run kept none.

        Raises ValueError naming the file and the line that is damaged.
        """
        return self._lines("tokens.jsonl", responses.KEPT)

    def kept(self, file: str) -> bool:
        """Whether the run left this file, wherever it is now."""
        return file in (self.tables or ()) or files.exists(self.folder, file)

    def _lines(self, file: str, fields: Mapping[str, responses.Kinds]) -> list[responses.Row]:
        content, place = self.content(file), files.place(self.folder, file)
        return responses.parse(content, fields, str(place), place.remedy)


KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("experiment", "profile", "arm", "status", "identity", "error"), (str,)),
    **dict.fromkeys(("params", "parents", "provenance", "gates", "seconds", "tables"), (dict,)),
    "seed": (int,),
    "params.task": (dict,),
    "params.train": (dict,),
    "params.teacher": (type(None), dict, str),
    "provenance.versions": (dict,),
    "provenance.commit": (str,),
    "parents.*": (str,),
    "seconds.*": (int, float),
    "tables.*": (dict,),
}
"""What a key of run.json is, those of a section, and all values of one (*)."""
FINISHED = "finished"
"""The status of a record whose run has come to its end."""
STATES = ("running", FINISHED, "failed")
MOST = 1e12
"""Above every seed, and every number of seconds."""
SEAL = {"bytes": int, "rows": int, "blake2b": str}


def read(folder: Path) -> RunRecord | None:
    """The record of the run of a folder, None if there is none.

    Raises ValueError if run.json is not a record, and for a row of a pack that is the record of another run.
    """
    try:
        found = files.read(folder, RUN)
    except OSError as error:
        raise ValueError(f"{folder / RUN}: cannot be read ({error})") from None
    if found is None:
        return None
    try:
        content = json.loads(found)
        require_kinds(content)
        present = RunRecord(folder=folder, **content)
        named = (present.arm, f"seed{present.seed}")
        if named != (folder.parent.name, folder.name) and files.is_packed(folder):
            raise ValueError(f"it is the record of {'/'.join(named)}")
        return present
    except (ValueError, TypeError, RecursionError) as error:
        reason = f"it {mistake}" if (mistake := damage.foreign(found)) else str(error)
        place = files.place(folder, RUN)
        raise ValueError(f"{place}: corrupt record ({reason}); {place.remedy}") from None


def require_kinds(content: Any) -> None:
    """Raise TypeError or ValueError naming the first key of a record whose value is of another kind."""
    if not isinstance(content, dict):
        raise TypeError(f"a record is a mapping, this is a {type(content).__name__}")
    for key, kinds in KINDS.items():
        section, _, name = key.partition(".")
        holder = content.get(section, {}) if name else content
        for value in holder.values() if name == "*" else [holder[name or key]] if (name or key) in holder else []:
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise TypeError(f"{key}: {reprlib.repr(value)} is no {kinds[-1].__name__}")
            if isinstance(value, int | float) and not 0 <= value < MOST:
                raise ValueError(f"{key}: {reprlib.repr(value)} is out of range")
    for file, seal in content.get("tables", {}).items():
        if {key: type(value) for key, value in seal.items()} != SEAL:
            raise TypeError(f"tables.{file}: {reprlib.repr(seal)} is no seal")
    if content.get("status") not in STATES:
        raise ValueError(f"status: {reprlib.repr(content.get('status'))} is none of {', '.join(STATES)}")


def frame(records: Iterable[RunRecord], table: str) -> pd.DataFrame:
    """A table of many runs as one tidy frame: arm, seed, then the table's columns.

    Neighbours with the same columns are read as one text, which takes a tenth of the time.
    """
    found = [(record, content) for record in records if (content := record.content(f"{table}.csv"))]
    frames = []
    for _, alike in groupby(found, key=lambda each: each[1].partition(b"\n")[0]):
        frames += _read_together(list(alike), table)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["arm", "seed"])


def _read_together(found: list[tuple[RunRecord, bytes]], table: str) -> list[pd.DataFrame]:
    """Tables of the same columns as one frame; as one each where one of them is not as it looks."""
    header = found[0][1].partition(b"\n")[0]
    counts = [content.count(b"\n") - 1 for _, content in found]
    text = b"".join([header, b"\n", *(content[len(header) + 1 :] for _, content in found)])
    try:
        rows = pd.read_csv(io.BytesIO(text))
    except (pd.errors.ParserError, UnicodeDecodeError, pd.errors.EmptyDataError):
        rows = pd.DataFrame()
    if len(rows) != sum(counts):
        if len(found) > 1:
            return [one for each in found for one in _read_together([each], table)]
        rows = found[0][0].frame(table)  # raises what is wrong with it
        counts = [len(rows)]
    rows.insert(0, "seed", np.repeat([record.seed for record, _ in found], counts))
    rows.insert(0, "arm", pd.Series([record.arm for record, _ in found]).repeat(counts).to_numpy())
    return [rows] if len(rows) else []


def differences(record: RunRecord, params: Mapping[str, Any], parents: Mapping[str, str]) -> list[str]:
    """Which parameters or parents of a record differ from those asked for, as `key: recorded → asked`."""
    if parents == record.parents and _without_machine(params) == _without_machine(record.params):
        return []  # the quick way, which most go
    recorded = flatten(record.params) | {f"parent {role}": digest for role, digest in record.parents.items()}
    wanted = flatten(params) | {f"parent {role}": digest for role, digest in parents.items()}
    keys = [key for key in sorted({*recorded, *wanted}) if not key.startswith(NOT_DETERMINING)]
    return [f"{k}: {recorded.get(k)!r} → {wanted.get(k)!r}" for k in keys if recorded.get(k) != wanted.get(k)]


def _without_machine(params: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in params.items() if key != "machine"}
    return kept | {"task": {key: value for key, value in (kept.get("task") or {}).items() if key not in PLACES}}
