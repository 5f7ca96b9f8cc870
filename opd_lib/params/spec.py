"""One run: what determines it, where its record stands, where its models come from and where its own can be loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from opd_lib.records import record
from opd_lib.records.parameters import PLACES
from opd_lib.records.record import FINISHED as FINISHED

if TYPE_CHECKING:
    from opd_lib.params.schema import RunParams

MODEL = "model"
"""The folder of a run's final checkpoint, beside its record."""
ROLLOUTS = "rollouts"
"""The folder of the responses that a probe of this kind stores, beside its record."""


class Origin(Protocol):
    """What is read of the experiment that a run was loaded from."""

    @property
    def source(self) -> Path:
        """The file of its parameters."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """What was changed of the file."""

    @property
    def results(self) -> Path | None:
        """The folder of records that was asked for."""

    @property
    def arms(self) -> Mapping[str, RunParams]:
        """Its arms, as the file and the overrides have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run to be found or computed: an arm of an experiment at a seed.

    `identity` is what a record must carry to be this run's. `folders` are the places a finished record may stand, the
    last one being where it is written. `parents` maps roles (`RunParams.references`) to the runs that make
    them (absent for new, local or hub models). `origin` is the experiment as loaded: what a process of its own needs
    to find this run again. `shown_as` is the experiment and arm under which it was asked for: not its own where another
    notebook shares it.
    """

    experiment: str
    profile: str
    arm: str
    seed: int
    params: RunParams
    identity: str
    parents: dict[str, RunSpec]
    folders: tuple[Path, ...]
    shown_as: tuple[str, str]
    origin: Origin = field(repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where this run writes its record."""
        return self.folders[-1]

    @property
    def model_folder(self) -> Path:
        """Where this run writes its final checkpoint, in hub format."""
        return self.folder / MODEL

    @property
    def weights(self) -> Path | None:
        """Where its final checkpoint can be loaded from: beside its finished record, committed or made here; or None.

        Committed checkpoints come first. Raises ValueError for a corrupt record.
        """
        return self.made(MODEL)

    def made(self, name: str) -> Path | None:
        """A folder that stands beside a finished record of this run, the first one found; None if there is none.

        Raises ValueError for a corrupt record.
        """
        for folder in self.folders:
            present = record.read(folder)
            if present is None or (present.status, present.identity) != (FINISHED, self.identity):
                continue
            if (folder / name).is_dir():
                return folder / name
        return None

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.arm}/seed{self.seed}"

    def checkpoint(self, role: str) -> str | None:
        """Where the model of a role (`RunParams.references`) is loaded from: folder or hub name; None for a new one."""
        if role in self.parents:
            parent = self.parents[role]
            return str(parent.weights or parent.model_folder)
        return self.params.references.get(role)


def determining(params: RunParams) -> dict[str, Any]:
    """What is said of a run, without the machine and where a task's data lies on it (a file's digest stays)."""
    content = params.said()
    del content["machine"]
    for key in PLACES:
        content["task"].pop(key, None)
    return content


def overrides_digest(overrides: Mapping[str, Any]) -> str:
    """8 hex digits: the name of the folder in which runs with these overrides have their records."""
    return hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:8]


def identity(params: RunParams, seed: int, parents: Mapping[str, str]) -> str:
    """16 hex digits: the hash of everything that determines the run."""
    content = {"params": determining(params), "seed": seed, "parents": dict(parents)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
