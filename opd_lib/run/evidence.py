"""What the finished records say, in the form in which claims are judged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from opd_lib import params, paths
from opd_lib.report import record
from opd_lib.report.quantities import Evidence
from opd_lib.report.record import RunRecord

JUDGED_SEEDS = range(100)
"""Seeds from 100 on are for calibration and never evidence."""


def records(profile: str, results: Path) -> dict[str, RunRecord]:
    """Every finished record of a judged seed of a results folder, by name. Raises ValueError for a corrupt one."""
    found: dict[str, RunRecord] = {}
    for path in sorted((results / profile).glob("*/*/seed*/run.json")):
        present = record.read(path.parent)
        if present is not None and present.status == "finished" and present.seed in JUDGED_SEEDS:
            found[present.name] = present
    return found


def read(profile: str, results: Path, params_root: Path = paths.PARAMS) -> Evidence:
    """What a results folder says about the params files as they stand: records of other parameters are left out."""
    found = records(profile, results).values()
    experiments = {
        name: params.load(name, profile, root=params_root)
        for name in {present.experiment for present in found}
        if (params_root / profile / f"{name}.yaml").exists()
    }
    current = [
        present
        for present in found
        if present.experiment in experiments
        and present.arm in experiments[present.experiment].arms
        and experiments[present.experiment].spec(present.arm, present.seed).identity == present.identity
    ]
    return of(current, profile)


def of(chosen: Iterable[RunRecord], profile: str) -> Evidence:
    """These records as evidence."""
    by_experiment: dict[str, list[RunRecord]] = {}
    for present in chosen:
        by_experiment.setdefault(present.experiment, []).append(present)
    return Evidence(
        profile=profile,
        experiments={
            experiment: {table: record.frame(group, table) for table in ("steps", "evals")}
            for experiment, group in by_experiment.items()
        },
    )
