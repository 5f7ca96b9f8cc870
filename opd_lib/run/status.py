"""How far every run is, how long the rest takes, and on what code and machine the finished ones were made."""

from __future__ import annotations

import fcntl
import functools
import json
import reprlib
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

from opd_lib import paths
from opd_lib.params import RunSpec
from opd_lib.records import files, record, sealing
from opd_lib.records.record import RunRecord
from opd_lib.run import plan, timeleft

Read = Callable[[Path], RunRecord | None]
"""How a record is read: as it is, or once for several who ask."""
LOCK = ".lock"
TURN = ".turn.lock"
"""The lock, in a run's folder, of the process that trains it or starts those that do; others wait, and then read."""
BATCH = ".reproduce.lock"
"""The lock, in a results folder or that of a try, of the `opd reproduce` that works there."""
DONE, STALE, FAILED, RUNNING, INTERRUPTED, MISSING = "done", "stale", "failed", "running", "interrupted", "missing"
CORRUPT = "corrupt"
UNSEALED = "no digests (a record from before there were any)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far a run said it was: steps done and to do, and wall seconds of the process that does them."""

    step: int
    steps: int
    seconds: float


def snapshot(folder: Path) -> Snapshot | None:
    """What a run last wrote about its progress; None if it has not, or no longer, written any.

    Raises ValueError for what no run has written.
    """
    path = folder / record.PROGRESS
    try:
        raw = json.loads(path.read_bytes())
        step, steps, seconds = raw["step"], raw["steps"], plan.total_seconds(raw["seconds"])
        if not (isinstance(step, int) and isinstance(steps, int) and 0 <= step <= steps and 0 <= seconds < record.MOST):
            raise ValueError(f"step {reprlib.repr(step)} of {reprlib.repr(steps)} after {seconds!r} seconds")
        return Snapshot(step=step, steps=steps, seconds=seconds)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
        raise ValueError(f"{path}: corrupt ({type(error).__name__}: {error}); delete it: no run needs it") from None


def status(specs: Iterable[RunSpec], verify: bool = False) -> pd.DataFrame:
    """One row per run: state, step, steps, seconds spent, estimated seconds to go (nan if unknown), and a note.

    What is to go is what such runs take by their records, times what the runs here took of that.

    States: done, stale (its folder holds other parameters), failed, running, interrupted (will resume), missing, and
    corrupt: a record that cannot be read, or a finished one whose tables have not the sizes that their run left (with
    `verify`: not the content). The note names what differs: parameters, error, or commit and versions.
    """
    chosen = tuple(specs)
    read = functools.cache(lambda folder: record.read(folder))
    expected = pace(chosen, read)
    slow = slowness(chosen, expected, read)
    expected = {name: slow * seconds for name, seconds in expected.items()}
    rows = [_row(spec, expected, verify) for spec in chosen]
    return pd.DataFrame(rows, columns=["run", "state", "step", "steps", "seconds", "remaining", "note"])


def pace(specs: Iterable[RunSpec], read: Read = record.read) -> dict[str, float]:
    """Expected seconds of a whole run: of the same arm at other seeds, else from the mean pace of all that is known.

    An evaluation alone counts as one step, whose pace says nothing of runs that train, nor theirs of it.
    """
    chosen = tuple(specs)
    by_arm = {_arm(spec): spec for spec in chosen}
    known = {name: seconds for name, spec in by_arm.items() if (seconds := _seconds_of_arm(spec, read)) is not None}
    paces: dict[bool, list[float]] = {True: [], False: []}
    for name, seconds in known.items():
        paces[by_arm[name].params.only_evaluates].append(seconds / plan.steps(by_arm[name]))
    alike = {name: paces[spec.params.only_evaluates] for name, spec in by_arm.items()}
    guess = {name: mean(found) * plan.steps(by_arm[name]) for name, found in alike.items() if found}
    return {spec.name: value for spec in chosen if (value := (guess | known).get(_arm(spec))) is not None}


def is_locked(folder: Path, name: str = LOCK) -> bool:
    """True while a process writes this run, or has its TURN (it holds the folder's lock, which dies with it)."""
    try:
        with (folder / name).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def _row(spec: RunSpec, expected: Mapping[str, float], verify: bool) -> dict[str, Any]:
    state, present, note = _state(spec, verify)
    total, seen = plan.steps(spec), None
    if state not in (DONE, STALE, CORRUPT):
        try:
            seen = snapshot(spec.folder)
        except ValueError as error:
            state, note = CORRUPT, str(error)
    spent, step, left = 0.0, 0, expected.get(spec.name, float("nan"))
    if state == DONE and present is not None:
        spent, step, left = plan.total_seconds(present.seconds), total, 0.0
    elif seen is not None:
        spent, step = seen.seconds, seen.step
        left = left * (1 - step / total) if left == left else spent / max(step, 1) * (total - step)
    return {
        "run": spec.name, "state": state, "step": step, "steps": total,
        "seconds": round(spent, 1), "remaining": round(left, 1), "note": note,
    }  # fmt: skip


def _state(spec: RunSpec, verify: bool) -> tuple[str, RunRecord | None, str]:
    """(state, record, note) of a run."""
    try:
        present = next(plan.standing(spec), None)
    except ValueError as error:
        return CORRUPT, None, str(error)
    if present is None:
        return MISSING, None, ""
    if present.identity != spec.identity:
        return STALE, present, "; ".join(plan.changes(present, spec)) or "seed"
    if present.status == plan.FINISHED:
        if fault := sealing.fault(present.folder, present.tables, verify):
            return CORRUPT, present, fault
        unsealed = [UNSEALED] if verify and present.tables is None else []
        return DONE, present, "; ".join([*unsealed, *provenance_differences(present)])
    if present.status == FAILED:
        return FAILED, present, present.error
    return (RUNNING if is_locked(present.folder) else INTERRUPTED), present, ""


def provenance_differences(present: RunRecord) -> list[str]:
    """Commit and package versions of a record that are not those here, as `name recorded → here`."""
    found = []
    commit, here = present.provenance.get("commit"), current_commit()
    if commit and here and commit.removesuffix("+changes") != here:
        found.append(f"commit {commit} → {here}")
    for package, recorded in present.provenance.get("versions", {}).items():
        installed = installed_version(package)
        if installed != recorded:
            found.append(f"{package} {recorded} → {installed}")
    return found


@functools.cache
def installed_version(package: str) -> str:
    """The version of a package here; "none" without it. Finding out takes milliseconds, and every record asks."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@functools.cache
def current_commit() -> str:
    """The commit of the code, empty outside a repository."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _arm(spec: RunSpec) -> str:
    return f"{spec.experiment}/{spec.arm}"


def _of_arm(arm: Path) -> tuple[Path, ...]:
    try:
        return files.of_arm(arm)
    except ValueError:
        return ()


def _seconds_of_arm(spec: RunSpec, read: Read) -> float | None:
    """Seconds of an arm's finished record that took least, whatever its seed: others had less of their machine.

    Committed records of these parameters come first, wherever this run's own folder is: what runs take here is measured
    by them (`slowness`).
    """
    committed = paths.run_folder(spec.profile, spec.experiment, spec.arm, spec.seed)
    own = [folder for folder in spec.folders if folder != committed]
    return next(
        (seconds for place in (committed, *own) if (seconds := _seconds_in(place.parent, spec, read)) is not None), None
    )


def _seconds_in(arm: Path, spec: RunSpec, read: Read) -> float | None:
    found, wanted = [], spec.params.said()
    for folder in _of_arm(arm):
        try:
            present = read(folder)
        except ValueError:
            continue
        if present is None or present.status != plan.FINISHED or not present.seconds:
            continue
        if not record.differences(present, wanted, present.parents):
            found.append(plan.total_seconds(present.seconds))
    return min(found, default=None)


def slowness(specs: Iterable[RunSpec], expected: Mapping[str, float], read: Read = record.read) -> float:
    """Seconds here per expected second: of runs that are finished where they write, others by the share of their steps.

    What was committed was made elsewhere and says nothing of here.
    """
    took = known = 0.0
    for spec in specs:
        committed = paths.run_folder(spec.profile, spec.experiment, spec.arm, spec.seed)
        if spec.name in expected and spec.folder != committed:
            share, seconds = _share_done(spec, read)
            took, known = took + seconds, known + share * expected[spec.name]
    return timeleft.stretch(took, known)


def _share_done(spec: RunSpec, read: Read) -> tuple[float, float]:
    """(share of its steps, seconds) of what a run has done where it writes; nothing where that cannot be read."""
    try:
        present = read(spec.folder)
        if present is None or present.identity != spec.identity:
            return 0.0, 0.0
        if present.status == plan.FINISHED:
            seconds = plan.total_seconds(present.seconds)
            return (1.0, seconds) if seconds else (0.0, 0.0)
        seen = snapshot(spec.folder)
    except ValueError:
        return 0.0, 0.0
    return (0.0, 0.0) if seen is None or not seen.step else (seen.step / max(seen.steps, 1), seen.seconds)
