"""Files that outlive a loss of power: what gets a name was written before, and so was the name.

A reader finds the old content or the new, never a part. What a killed process leaves of it, `.NAME.PID`, is swept by
the next one that owns the folder (records/leftovers).
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_json(path: Path, content: object, lasting: bool = True) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(content, indent=1) + "\n", lasting)


def write_atomically(path: Path, content: str | bytes, lasting: bool = True) -> None:
    """Write a file so that a reader finds the old content or the new, never a part.

    What is not `lasting` may be lost, whole, with the power: for what is written all the time and missed by nobody.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    if lasting:
        replace(temporary, path)
    else:
        os.replace(temporary, path)


def replace(new: Path, path: Path) -> None:
    """Give a file or folder its name, in place of what has it, once all of it is on the disk."""
    flush(new)
    os.replace(new, path)
    _sync(path.parent)


def flush(path: Path) -> None:
    """Return when a file, or a folder with all it holds, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            flush(inside)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
