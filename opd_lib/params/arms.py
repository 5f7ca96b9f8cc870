"""What each arm changes: as its params file says, and on top of it what overrides say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opd_lib import names
from opd_lib.params.dotted import replace_at
from opd_lib.params.mistakes import blamed, validate
from opd_lib.params.schema import FILE_KEYS, RunParams
from opd_lib.yaml_files import plain

ARMS = "arms."  # what an override of one arm, or a new one, begins with
SAME_AS = "same_as"  # the only key of an arm that is another notebook's run

Changes = Mapping[str, Any]
"""Dotted path → value."""


def written(raw: Mapping[str, Any]) -> dict[str, Changes]:
    """arm → what it changes, as the file says."""
    return {str(arm): dict(changes) for arm, changes in raw["arms"].items()}


def changed_by_arm(raw: Mapping[str, Any], overrides: Changes) -> dict[str, tuple[Changes | None, Changes]]:
    """arm → what the file says that it changes (None: a new arm), and what overrides say on top of it.

    The file's arms come first. Overrides of every arm are on top of those of one. Raises ValueError for an override
    that is no mapping, an arm that is no name, and an override of an arm that is another notebook's run.
    """
    everywhere = {path: value for path, value in overrides.items() if not path.startswith(ARMS)}
    arms: dict[str, tuple[Changes | None, Changes]] = {arm: (own, everywhere) for arm, own in written(raw).items()}
    for path, changes in overrides.items():
        if not path.startswith(ARMS):
            continue
        arm = names.require(path.removeprefix(ARMS), "arm", f"overrides: {path!r}")
        if not isinstance(changes, dict):
            raise ValueError(f"overrides: {path}: {changes!r}: write a mapping of dotted keys to values")
        own, _ = arms.get(arm, (None, {}))
        if own is not None and SAME_AS in own:
            raise ValueError(
                f"overrides: {path}: this arm is the run {own[SAME_AS]} and cannot be changed under its name; "
                f"choose a new one, such as {path}-mine"
            )
        arms[arm] = (own, changes if SAME_AS in changes else merged(changes, everywhere))
    names.require_distinct(arms, "arm", "overrides")
    return arms


def borrowed(own: Changes | None, mine: Changes) -> Changes | None:
    """What is said of an arm that is another notebook's run; None for one that is not."""
    changes = own if own is not None and SAME_AS in own else merged(own or {}, mine)
    return changes if SAME_AS in changes else None


def merged(changes: Changes, others: Changes) -> dict[str, Any]:
    """Both, path by path: what `others` say replaces what `changes` say of the same path and of all below it."""

    def replaced(path: str) -> bool:
        return any(path == other or path.startswith(f"{other}.") for other in others)

    return {path: value for path, value in changes.items() if not replaced(path)} | dict(others)


def resolved(raw: Mapping[str, Any], own: Changes | None, mine: Changes, arm: str, source: Path) -> RunParams:
    """The parameters of a file with an arm's own changes (None: a new arm) and overrides on top of them.

    What is wrong is the file's fault, unless its own arm is right without the overrides.
    """
    try:
        return _with(raw, merged(own or {}, mine), arm, source, is_overridden=False)
    except ValueError:
        if not mine or not _is_right(raw, own, arm, source):
            raise
    return _with(raw, merged(own or {}, mine), arm, source, is_overridden=True)


def _is_right(raw: Mapping[str, Any], own: Changes | None, arm: str, source: Path) -> bool:
    """Whether a file's own arm can be read; True for a new one."""
    try:
        return own is None or bool(_with(raw, own, arm, source, is_overridden=False))
    except ValueError:
        return False


def _with(raw: Mapping[str, Any], changes: Changes, arm: str, source: Path, is_overridden: bool) -> RunParams:
    """The common parameters of a file with these changes."""
    resolved = plain({key: value for key, value in raw.items() if key not in FILE_KEYS})
    for path, value in changes.items():
        replace_at(resolved, path, value, blamed(arm, source) if is_overridden else f"{source}, arm {arm}")
    return validate(resolved, raw, arm, source, is_overridden)
