"""Every entrant at every size in turn, each in a process of its own (`timed_step`), into one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import pandas as pd

from opd_lib.bench.case import Case


def carry_out(cases: Sequence[Case], path: Path) -> None:
    """Time every case and add its rows to the table at `path`, a line of text for each; what was timed before stays.

    Raises ValueError, when all others are done, for those that failed; steps that they had made before are kept.
    """
    failed: list[str] = []
    for case in cases:
        words = [sys.executable, "-m", "opd_lib.bench.timed_step", json.dumps(asdict(case))]
        started, name = perf_counter(), f"{case.entrant}, {case.student} from {case.teacher}, {case.response} tokens"
        ended = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | one_device())
        print(
            f"{name}: {'failed after' if ended.returncode else 'done in'} {perf_counter() - started:.0f} s", flush=True
        )
        if ended.returncode:
            failed.append(f"{name}: {(ended.stderr.strip() or str(ended.returncode)).splitlines()[-1]}")
        rows = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        if rows:
            before = [pd.read_csv(path)] if path.exists() else []
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.concat([*before, pd.DataFrame(rows)]).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    if failed:
        raise ValueError("; ".join(failed))


def one_device() -> dict[str, str]:
    """The first of the accelerators that are to be seen; with several, trainers share a batch among them."""
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}
