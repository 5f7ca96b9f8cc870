"""What each arm changes: as its params file says, and on top of it what overrides say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARMS = "arms."  # what an override of one arm, or a new one, begins with
SAME_AS = "same_as"  # the only key of an arm that is another notebook's run

Changes = Mapping[str, Any]
"""Dotted path → value."""


def written(raw: Mapping[str, Any]) -> dict[str, Changes]:
    """arm → what it changes, as the file says."""
    return {str(arm): dict(changes) for arm, changes in raw["arms"].items()}


def asked(raw: Mapping[str, Any], overrides: Changes, source: Path) -> dict[str, Changes]:
    """arm → what it changes, as file and overrides say together: the file's arms first, then new ones.

    Raises ValueError for an override that is no mapping, and for one of an arm that is another notebook's run.
    """
    arms = written(raw)
    for path, changes in overrides.items():
        if not path.startswith(ARMS):
            continue
        arm = path.removeprefix(ARMS)
        if not arm or not isinstance(changes, dict):
            raise ValueError(f"{source}: overrides: {path}: {changes!r}: write a mapping of dotted keys to values")
        present = arms.get(arm, {})
        if SAME_AS in present:
            raise ValueError(
                f"{source}: overrides: {path}: this arm is the run {present[SAME_AS]} and cannot be changed under its "
                f"name; choose a new one, such as {path}-mine"
            )
        arms[arm] = merged(present, changes)
    return arms


def merged(changes: Changes, others: Changes) -> dict[str, Any]:
    """Both, path by path: what `others` say replaces what `changes` say of the same path and of all below it."""

    def replaced(path: str) -> bool:
        return any(path == other or path.startswith(f"{other}.") for other in others)

    return {path: value for path, value in changes.items() if not replaced(path)} | dict(others)
