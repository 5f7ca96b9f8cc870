"""Copies of the notebooks to change and run: git does not see them, and nothing that was changed in one is overwritten.

JupyterLab saves what it shows by itself; the committed notebooks would no longer be what tests and git expect. Whether
a copy was changed is decided by what its cells say and show, not by when or how the file was written: starting a kernel
is enough for JupyterLab to write it anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from opd_lib import paths
from opd_lib.records import durable, reading
from opd_lib.run import room

MANIFEST = ".copies.json"
"""Beside the copies: of each notebook the newest original that was copied, and everything that copying has written."""
SETTINGS = ".jupyter"
"""Beside the copies: JupyterLab's defaults here."""
OVERRIDES = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
"""No pop-up that asks for news, and no page that is asked for them; a user's own setting counts more."""
KEPT, NEW, MADE, REFRESHED = "kept", "new", "made", "refreshed"
"""What may happen to a copy: it stays as it is, a newer original is put beside it, it is written, written again."""
NOTE = (
    "**This is a copy** of `notebooks/{name}`, made by `make lab`: change it and run it, git does not see it, nothing "
    "overwrites it. When the original is newer, an unchanged copy is made again, and beside a changed one comes "
    "`{stem}.new.ipynb`. Delete a copy to begin with a fresh one."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What became of one notebook's copy: one of KEPT, NEW, MADE, REFRESHED, and the file."""

    what: str
    path: Path


def copy_all(originals: Path = paths.NOTEBOOKS, lab: Path = paths.COPIES) -> tuple[Copied, ...]:
    """Bring the copies of every notebook up to date; see `NOTE` for what happens to which.

    Raises ValueError if the manifest or an original is damaged, or if the folder cannot be written.
    """
    room.prepare(lab)
    known = _manifest(lab / MANIFEST)
    done = []
    with room.writing(lab):
        for original in sorted(originals.glob("*.ipynb")):
            entry = known.setdefault(original.name, {"original": "", "written": []})
            done.append(_copy(original, lab / original.name, entry))
        durable.write_json(lab / MANIFEST, known)
        (lab / SETTINGS).mkdir(exist_ok=True)
        durable.write_json(lab / SETTINGS / "overrides.json", OVERRIDES)
    return tuple(done)


def _copy(original: Path, target: Path, entry: dict[str, Any]) -> Copied:
    """Bring the copy of one notebook up to date, and its entry of the manifest with it."""
    text = _with_note(original)
    fresh, source = content_digest(text), content_digest(reading.text(original))
    there = content_digest(_bytes(target)) if target.exists() else ""
    what, path = KEPT, target
    if not there:
        what = MADE
    elif there in entry["written"] and there != fresh:
        what = REFRESHED
    elif there != fresh and entry["original"] != source:
        what, path = NEW, _free(target, entry["written"])
    if what != KEPT:
        durable.write_atomically(path, text)
    entry["original"] = source
    entry["written"] = list(dict.fromkeys([*entry["written"], fresh]))
    return Copied(what=what, path=path)


def _free(target: Path, written: Sequence[str]) -> Path:
    """Where a newer original goes beside a changed copy: nothing, or an unchanged copy, is there."""
    names = chain([f"{target.stem}.new.ipynb"], (f"{target.stem}.new-{number}.ipynb" for number in count(2)))
    found = (target.with_name(name) for name in names)
    return next(path for path in found if not path.exists() or content_digest(_bytes(path)) in written)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reading.refuse(path, f"cannot be read ({error.strerror})", "move it away: `make lab` makes a fresh one", error)


def _with_note(original: Path) -> str:
    """A notebook as JSON, with a cell on top that says that it is a copy."""
    notebook = reading.mapping(original, ["cells", "nbformat", "metadata"])
    text = NOTE.format(name=original.name, stem=original.stem)
    note = {"cell_type": "markdown", "id": "this-is-a-copy", "metadata": {}, "source": text}
    return json.dumps(notebook | {"cells": [note, *notebook["cells"]]}, indent=1, ensure_ascii=False) + "\n"


def content_digest(found: str | bytes) -> str:
    """16 hex digits of what a notebook's cells say and show; of the bytes, if it is no notebook."""
    raw = found.encode() if isinstance(found, str) else found
    try:
        cells = [_said(cell) for cell in json.loads(raw)["cells"]]
        raw = json.dumps(cells, sort_keys=True).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # whatever it is, somebody has made it so
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def _said(cell: dict[str, Any]) -> list[Any]:
    shown = [_joined({**output, "execution_count": None, "metadata": {}}) for output in cell.get("outputs", [])]
    return [cell["cell_type"], _joined(cell["source"]), cell.get("metadata", {}).get("tags", []), shown]


def _joined(value: Any) -> Any:
    """Texts that are written as lists of lines, as one."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    if isinstance(value, list):
        return [_joined(inner) for inner in value]
    return {key: _joined(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    """notebook → {original: digest of the newest that was copied, written: digests of what copying has written}."""
    if not path.exists():
        return {}
    remedy = "delete it: every copy that is not as `make lab` would write it now then counts as changed, and is kept"
    found = reading.mapping(path, remedy=remedy)
    for name, entry in found.items():
        is_entry = isinstance(entry, dict) and {key: type(value) for key, value in entry.items()} == {
            "original": str,
            "written": list,
        }
        if not is_entry or not all(isinstance(digest, str) for digest in entry["written"]):
            reading.refuse(path, f"{name}: {str(entry)[:80]} says nothing of a copy", remedy)
    return found


def command(lab: Path = paths.COPIES, extra: Sequence[str] = (), is_root: bool | None = None) -> list[str]:
    """The command that opens the copies in JupyterLab; `extra` are options of JupyterLab.

    As root, for whom it would not start (containers, rented machines), it is told to. Raises ValueError without it.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError(f"{sys.executable}: JupyterLab is not in its environment; `make lab` sets up one that has it")
    root = os.geteuid() == 0 if is_root is None else is_root
    words = [sys.executable, "-m", "jupyterlab", str(lab), f"--LabApp.app_settings_dir={lab / SETTINGS}"]
    return [*words, "--LabApp.news_url=None", *(["--allow-root"] if root else []), *extra]
