"""Every entrant at every size in turn, each in a process of its own (`timed_step`), into one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from opd_lib.bench import child, speed
from opd_lib.bench.case import Case

COLUMNS = (
    *speed.SAME, "step", *speed.SHAPE_STAGES, "written", "floor_s",
    "peak_gib", "reserved_gib", "planned_gib", "recompute", "graphs_skipped", "loss", "norm",
)  # fmt: skip


def carry_out(cases: Sequence[Case], path: Path) -> None:
    """Time every case and add its rows to the table at `path`, a line of text for each; what was timed before stays.

    Raises ValueError, when all others are done, for those that failed; steps that they had made before are kept.
    """
    failed: list[str] = []
    for case in cases:
        started, name = perf_counter(), f"{case.entrant}, {case.student} from {case.teacher}, {case.response} tokens"
        rows, complaint = child.run("opd_lib.bench.timed_step", asdict(case), one_device())
        how = "failed after" if complaint else "done in"
        print(f"{name}: {how} {perf_counter() - started:.0f} s", flush=True)
        if rows:
            child.append(path, rows, COLUMNS)
        if complaint:
            failed.append(f"{name}: {complaint}")
    if failed:
        raise ValueError("; ".join(failed))


def one_device() -> dict[str, str]:
    """The first of the accelerators that are to be seen; with several, trainers share a batch among them."""
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}
