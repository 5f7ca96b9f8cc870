"""Tries: what overrides have made, a folder of results/local/variants for each set of them; named, found, deleted.

The folder is named by the digest of the overrides, which params files do not lead back to: `variant.json` holds the
overrides, from before its first run, and `name.json` the name that somebody has given it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_lib import inputs, names, paths
from opd_lib.params import RunSpec
from opd_lib.params.spec import overrides_digest
from opd_lib.records import durable, files, reading, record
from opd_lib.records.record import RunRecord
from opd_lib.run import room
from opd_lib.run.status import BATCH, LOCK, TURN, is_locked

VARIANT, NAME = "variant.json", "name.json"
GONE = ".gone"
"""The ending of a folder that is being deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One set of overrides and the folder of its runs; `overrides` is None for one from before they were kept."""

    folder: Path
    name: str
    overrides: dict[str, Any] | None

    def records(self) -> tuple[RunRecord, ...]:
        """The records of its runs, finished or not. Raises ValueError for a corrupt one."""
        found = (record.read(run) for profile in _profiles(self.folder) for run in files.runs(profile))
        return tuple(present for present in found if present is not None)


def place(overrides: Mapping[str, Any]) -> Path:
    """The folder of the try that these overrides make."""
    return paths.VARIANTS / overrides_digest(inputs.overrides(overrides))


def remember(spec: RunSpec) -> None:
    """Write down the overrides of a run that is about to begin, if they have a folder of their own."""
    root = spec.folder.parents[3]
    if spec.origin.results is None and root.parent == paths.VARIANTS:
        begin(root, spec.origin.overrides)


def begin(folder: Path, overrides: Mapping[str, Any], name: str | None = None) -> Try:
    """The try of these overrides, written down if it is new, and under this name if one is given.

    Raises ValueError for a name as `require_name` does, and for a folder that cannot be written.
    """
    if name is not None:
        require_name(name, folder)
    if not (folder / VARIANT).exists():
        with room.writing(folder):
            durable.write_json(folder / VARIANT, {"overrides": dict(overrides)})
    return read(folder) if name is None else rename(folder.name, name)


def folders() -> tuple[Path, ...]:
    """The folders of all tries, in the order in which something was last put into or taken out of them."""
    found = [folder for folder in paths.VARIANTS.glob("*") if folder.is_dir() and not folder.name.startswith(".")]
    return tuple(sorted(found, key=lambda folder: (folder.stat().st_mtime, folder.name)))


def every() -> tuple[Try, ...]:
    """All tries. Raises ValueError for a damaged file of one."""
    return tuple(map(read, folders()))


def read(folder: Path) -> Try:
    """The try of a folder. Raises ValueError for a damaged file, saying what goes on without it."""
    name, kept = folder.name, None
    if (path := folder / NAME).exists():
        remedy = "delete it: the try is then called by its hash"
        name = reading.mapping(path, ["name"], remedy)["name"]
        if not isinstance(name, str) or not names.NAME.fullmatch(name):
            reading.refuse(path, f"name: {str(name)[:80]!r} is no name", remedy)
    if (path := folder / VARIANT).exists():
        remedy = "delete it: what the try changes is then read from its records"
        kept = reading.mapping(path, ["overrides"], remedy)["overrides"]
        if not isinstance(kept, dict) or overrides_digest(kept) != folder.name:
            reading.refuse(path, "overrides: not those of which the folder's name is the digest", remedy)
    return Try(folder=folder, name=name, overrides=kept)


def find(word: str) -> Try:
    """The try of this name or hash. Raises ValueError naming those there are."""
    known = every()
    for each in known:
        if word in (each.name, each.folder.name):
            return each
    there = ", ".join(each.name for each in known) or "none: overrides in a notebook make one"
    raise ValueError(f"{word!r}: no such try in {paths.VARIANTS}; there are {there}")


def rename(word: str, name: str) -> Try:
    """Give a try a name; its own hash takes the name away again. The folder keeps its name, by which runs find it.

    Raises ValueError for what is no name, and for the name or hash of another try.
    """
    found = find(word)
    require_name(name, found.folder)
    if name == found.folder.name:
        (found.folder / NAME).unlink(missing_ok=True)
    else:
        durable.write_json(found.folder / NAME, {"name": name})
    return read(found.folder)


def require_name(name: str, folder: Path) -> None:
    """Raise ValueError for what is no name of a try, and for the name or hash of another one than that of `folder`."""
    if not names.NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a try; {names.RULE}")
    for other in every():
        if other.folder != folder and name.casefold() in (other.name.casefold(), other.folder.name):
            raise ValueError(f"{name!r} is the name of another try, {other.folder.name}; choose another")


def training(folder: Path) -> tuple[str, ...]:
    """The runs in a try's folder that a process trains right now, by name."""
    runs = sorted(run for profile in _profiles(folder) for run in profile.glob("*/*/seed*"))
    return tuple("/".join(run.parts[-3:]) for run in runs if is_locked(run, LOCK) or is_locked(run, TURN))


def delete(word: str) -> Path:
    """Delete a try with its records, checkpoints, figures and tables; the folder that is gone.

    Raises ValueError while one of its runs is going on, or `opd reproduce` at work there.
    """
    folder = locate(word)
    if is_locked(folder, BATCH):
        raise ValueError(f"{word}: `opd reproduce` is at work there; wait for it or stop it. Nothing was deleted")
    if runs := training(folder):
        raise ValueError(f"{word}: {', '.join(runs)} is training; wait for it or stop it. Nothing was deleted")
    gone = folder.with_name(f".{folder.name}.{os.getpid()}{GONE}")
    os.replace(folder, gone)  # at once: nobody finds half of it
    for left in paths.VARIANTS.glob(f".*{GONE}"):
        shutil.rmtree(left, ignore_errors=left != gone)
    return folder


def locate(word: str) -> Path:
    """The folder of a try: by its hash even where a file of it is damaged. Raises ValueError as `find` does."""
    return next((folder for folder in folders() if folder.name == word), None) or find(word).folder


def _profiles(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
