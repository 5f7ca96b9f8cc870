"""What the finished records say, in the form in which claims are judged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from opd_lib import names, params, paths
from opd_lib.judge.quantities import Evidence
from opd_lib.params import Experiment, RunSpec
from opd_lib.params.spec import FINISHED
from opd_lib.records import files, record
from opd_lib.records.record import RunRecord
from opd_lib.run import plan

JUDGED_SEEDS = range(100)
"""Seeds from 100 on are for calibration and never evidence."""


def records(profile: str, results: Path) -> dict[str, RunRecord]:
    """Every finished record of a judged seed of a results folder, by name.

    Raises ValueError for a corrupt one, and for a profile that is no name.
    """
    names.require(profile, "profile", "profile")
    return {present.name: present for present in finished(results / profile) if present.seed in JUDGED_SEEDS}


def finished(folder: Path) -> list[RunRecord]:
    """Every finished record below RESULTS/PROFILE. Raises ValueError for a corrupt one."""
    found = [record.read(run) for run in files.runs(folder)]
    return [each for each in found if each is not None and each.status == FINISHED]


def read(profile: str, results: Path, params_root: Path = paths.PARAMS) -> Evidence:
    """What a results folder says about the params files as they stand: records of other parameters are left out."""
    found = records(profile, results)
    seeds = sorted({present.seed for present in found.values()})
    present = sorted(path.stem for path in (params_root / profile).glob("*.yaml"))
    experiments = [params.load(name, profile, root=params_root) for name in present]
    specs = [experiment.spec(arm, seed) for experiment in experiments for arm in experiment.arms for seed in seeds]
    return of((found[s.name].renamed(*s.shown_as) for s in specs if _is_in(found, s)), profile)


def around(experiment: Experiment, others: Iterable[str]) -> Evidence:
    """What the finished runs of an experiment's seeds say: its own as it stands, with its overrides and its models,
    and those of the other experiments named, as their params files have them. Raises ValueError for a corrupt one."""
    own = [*experiment.runs(), *(parent for spec in experiment.runs() for parent in spec.parents.values())]
    seeds, results, root = experiment.seeds, experiment.results, experiment.source.parents[1]
    more = [params.load(name, experiment.profile, seeds=seeds, results=results, root=root) for name in others]
    specs = [*own, *(spec for each in more if each.name != experiment.name for spec in each.runs())]
    first = {(*spec.shown_as, spec.seed): spec for spec in reversed(specs)}
    found = ((spec, plan.exact(spec)) for spec in first.values())
    return of((present.renamed(*spec.shown_as) for spec, present in found if present), experiment.profile)


def _is_in(found: dict[str, RunRecord], spec: RunSpec) -> bool:
    return spec.name in found and found[spec.name].identity == spec.identity


def of(chosen: Iterable[RunRecord], profile: str) -> Evidence:
    """These records as evidence."""
    by_experiment: dict[str, list[RunRecord]] = {}
    for present in chosen:
        by_experiment.setdefault(present.experiment, []).append(present)
    return Evidence(
        profile=profile,
        experiments={
            experiment: {table: record.frame(group, table) for table in record.TABLES}
            for experiment, group in by_experiment.items()
        },
        teachers={
            experiment: {present.arm: present.teacher for present in group if present.teacher}
            for experiment, group in by_experiment.items()
        },
    )
