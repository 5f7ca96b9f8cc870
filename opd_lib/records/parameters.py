"""What records say of parameters: nested mappings, and the checkpoints they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opd_lib.names import RUN_PREFIX

PLACES = ("data", "file")
"""The keys of a task that say where its data lies on a machine."""
NOT_DETERMINING = ("machine.", *(f"task.{key}" for key in PLACES))
"""What keys begin with that do not determine a run: its machine, and where a task's data lies on it."""


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
