"""Names are names: what an arm, a notebook and a profile may be called, and what `run:NOTEBOOK/ARM` refers to.

They become folders of results/PROFILE/NOTEBOOK/ARM/seedS, on whatever file system: nothing that leads elsewhere, hides,
breaks a line, or stands where results have something of their own. One file system tells capitals from small letters
and another does not, so names that differ in nothing else clash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["arm", "notebook", "profile"]

LONGEST = 64
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}")
RULE = f"write letters, digits, '.', '_' and '-', a letter or a digit first, at most {LONGEST} characters"
IGNORED = frozenset({"model", "checkpoint"})  # folders that .gitignore leaves out, whatever is in them
IGNORED_ENDINGS = (".lock", ".tmp")
OUTPUTS = frozenset(
    {"figures", "tables", "notebook.ipynb", "notebook.failed.ipynb", "notebook.done.json", "notebook.log"}
)
RESERVED: dict[Kind, frozenset[str]] = {
    "arm": IGNORED | OUTPUTS | {"packed"},
    "notebook": IGNORED | {"claims.csv"},
    "profile": IGNORED
    | {"claims", "data", "figures", "gguf", "lab", "local", "log.txt", "reference", "reproduce.log", "site", "variants"}
    | {"tensorboard", "trackio", "wandb"},
}
"""What stands in the same folder already: beside the arms of a notebook, the notebooks of a profile, the profiles."""

RUN_PREFIX, GGUF_PREFIX = "run:", "gguf:"
SEED_MARK = "@"
"""Between a run and the seed that it always has: run:NOTEBOOK/ARM@SEED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReference:
    """What `run:NOTEBOOK/ARM` or `run:NOTEBOOK/ARM@SEED` refers to; `seed` is None where it is the asking run's."""

    notebook: str
    arm: str
    seed: int | None


def require(name: object, kind: Kind, where: str = "") -> str:
    """The name, if an arm, a notebook or a profile may be called so. Raises ValueError naming what it should be."""
    place = f"{where}: " if where else ""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{place}{name!r} is no name of {_article(kind)}; {RULE}")
    if name.casefold() in RESERVED[kind] or name.casefold().endswith(IGNORED_ENDINGS):
        raise ValueError(
            f"{place}{name!r} cannot be the name of {_article(kind)}: a results folder uses it itself; choose another"
        )
    return name


def require_distinct(names: Iterable[str], kind: Kind, where: str) -> None:
    """Raise ValueError for two names that are one on a file system which does not tell capitals from small letters."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise ValueError(
                f"{where}: {other!r} and {name!r} are one folder on some machines; call one {kind} otherwise"
            )


def run_reference(text: str) -> RunReference:
    """What a text that begins with `run:` refers to. Raises ValueError if it is no reference to a run."""
    notebook, _, place = text.removeprefix(RUN_PREFIX).partition("/")
    arm, at, seed = place.partition(SEED_MARK)
    if not text.startswith(RUN_PREFIX) or not place:
        raise ValueError(f"{text!r} is no run; write {RUN_PREFIX}NOTEBOOK/ARM")
    if at and not re.fullmatch("[0-9]{1,9}", seed):
        raise ValueError(f"{text!r}: {seed!r} is no seed; write {RUN_PREFIX}NOTEBOOK/ARM{SEED_MARK}0")
    return RunReference(
        notebook=require(notebook, "notebook", repr(text)),
        arm=require(arm, "arm", repr(text)),
        seed=int(seed) if at else None,
    )


def _article(kind: Kind) -> str:
    return f"an {kind}" if kind == "arm" else f"a {kind}"
