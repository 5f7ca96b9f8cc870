"""A measurement in a process of its own, and the table that its rows go to."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opd_lib import lifetime


def run(module: str, request: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
    """The rows that `python -m MODULE REQUEST` has printed, a JSON object a line each, and what it died of.

    That is the last line it complained with, or its exit code; empty if it came to its end.
    """
    words = lifetime.bound([sys.executable, "-m", module, json.dumps(request)])
    ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | dict(environment), check=False)
    rows = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    complaint = (ended.stderr.strip() or str(ended.returncode)).splitlines()[-1]
    return rows, complaint if ended.returncode else ""


def require_writable(path: Path) -> None:
    """Raise ValueError, before hours go by, for a table that no row could be added to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
        if path.stat().st_size == 0:
            path.unlink()
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); name another folder, --results") from error


def append(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Add rows to a table of these columns, all of a process or none; what a row has not stays empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
