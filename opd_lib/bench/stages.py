"""Where the time of a whole experiment goes, from the records of its runs."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from opd_lib.bench import child
from opd_lib.records import files, record


def write(results: Path, seed: int, path: Path) -> None:
    """Seconds by notebook and stage of all runs of a seed under RESULTS/PROFILE, which one machine made by itself.

    Raises ValueError if there are none, or for one that is corrupt.
    """
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for run in (run for run in files.runs(results) if run.name == f"seed{seed}"):
        present = record.read(run)
        for stage, seconds in present.seconds.items() if present else ():
            found[run.parents[1].name, stage] += seconds
    if not found:
        raise ValueError(f"{results}: no record of seed {seed}; train it first: make reproduce SEEDS={seed},")
    child.require_writable(path)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("notebook", "stage", "seconds"))
        writer.writerows((*key, round(seconds, 1)) for key, seconds in sorted(found.items()))
