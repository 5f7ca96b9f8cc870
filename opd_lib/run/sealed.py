"""Records from before there were digests get theirs, once; that nothing else changes is compared, file by file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from opd_lib.records import files, leftovers, sealing
from opd_lib.records.durable import write_atomically
from opd_lib.records.record import RunRecord
from opd_lib.run import evidence

KEY = "tables"


def seal_all(folder: Path) -> str:
    """Seal every finished record below RESULTS/PROFILE that has no seals. Returns what was done and compared.

    Raises ValueError, before anything is written, for a record that is corrupt, has tables that are not those of its
    seals or are not whole, or is not written as we write; and if anything but the new key has changed.
    """
    finished = evidence.finished(folder)
    if not finished:
        raise ValueError(f"{folder}: no finished records")
    for each in finished:
        if each.tables is not None and (fault := sealing.fault(each.folder, each.tables, verify=True)):
            raise ValueError(fault)
    new = {each.folder / "run.json": sealed_text(each) for each in finished if each.tables is None}
    before = digests(folder)
    for path, text in new.items():
        _replace(path, text)
    after = digests(folder)
    require_only_the_key(before, after, new)
    tables = sum(len(json.loads(text)[KEY]) for text in new.values())
    return (
        f"{len(new)} records sealed ({tables} tables), {len(finished) - len(new)} had seals, which hold.\n"
        f"Compared before and after: {len(before)} files in {folder}. {len(new)} differ, all run.json, and each is "
        f"byte for byte as before without its new key `{KEY}`."
    )


def sealed_text(present: RunRecord) -> str:
    """The text of a record's run.json with the seals of its tables. Raises ValueError for tables that are not whole."""
    path = present.folder / "run.json"
    if files.is_packed(present.folder):
        raise ValueError(f"{path}: is packed without digests; `opd unpack` it, then seal, then pack again")
    text = path.read_text(encoding="utf-8")
    if written(json.loads(text)) != text:
        raise ValueError(f"{path}: is not as a run writes it (edited by hand?); bring it back before it is sealed")
    return written(json.loads(text) | {KEY: sealing.sealed(present.folder)})


def digests(folder: Path) -> dict[Path, str]:
    """The digest of every file below a folder, locks apart."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != leftovers.LOCK]
    return {path: hashlib.blake2b(path.read_bytes()).hexdigest() for path in files}


def require_only_the_key(before: dict[Path, str], after: dict[Path, str], new: dict[Path, str]) -> None:
    """Raise ValueError naming a file that differs by more than the new key, or that came or went."""
    for path in sorted({*before, *after}):
        if path in new:
            content = json.loads(path.read_bytes())
            del content[KEY]
            same = hashlib.blake2b(written(content).encode()).hexdigest() == before.get(path)
        else:
            same = before.get(path) == after.get(path)
        if not same:
            raise ValueError(f"{path}: has changed while records were sealed; bring it back and seal again")


def written(content: dict[str, Any]) -> str:
    """A record as it stands in run.json."""
    return json.dumps(content, indent=1) + "\n"


def _replace(path: Path, text: str) -> None:
    lock = path.with_name(leftovers.LOCK)
    known = lock.exists()
    try:
        with FileLock(lock, timeout=0):
            write_atomically(path, text)
    except Timeout:
        raise ValueError(f"{path}: a process is writing this run; wait for it or stop it") from None
    finally:
        if not known:
            lock.unlink(missing_ok=True)
