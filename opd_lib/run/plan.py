"""What is done and what is missing: the folders of records are the only memory.

A run is done when one of its folders holds a finished record of its identity. A run that another one starts from also
needs its weights; few are committed (`refresh.SHIPPED`), and without them it is trained again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from opd_lib import names, paths
from opd_lib.params import Experiment, RunSpec, load
from opd_lib.params.mistakes import profiles
from opd_lib.params.spec import FINISHED as FINISHED
from opd_lib.params.spec import MODEL, ROLLOUTS
from opd_lib.records import files, leftovers, packed, record
from opd_lib.records.record import RunRecord


def standing(spec: RunSpec) -> Iterator[RunRecord]:
    """The records in a run's folders: finished ones, and whatever stands where it writes, which comes last.

    They may be of another identity. Raises ValueError for a corrupt one.
    """
    for folder in spec.folders:
        present = record.read(folder)
        if present is not None and (present.status == FINISHED or folder == spec.folder):
            yield present


def finished(spec: RunSpec) -> RunRecord | None:
    """The finished record of a run, None if there is none.

    Raises ValueError naming the differing keys if a folder where it belongs holds a run of other parameters.
    """
    present = next(standing(spec), None)
    if present is None:
        return None
    require_same(present, spec)
    return present if present.status == FINISHED else None


def exact(spec: RunSpec) -> RunRecord | None:
    """The finished record of a run, None if there is none; those of other parameters are passed over.

    Raises ValueError for a corrupt one.
    """
    return next((one for one in standing(spec) if (one.status, one.identity) == (FINISHED, spec.identity)), None)


def trained(spec: RunSpec) -> bool:
    """True if a finished record has what it makes beside it, ready to be loaded: weights, or stored responses.

    Other probes make nothing but their record. Raises ValueError as `finished` does.
    """
    probe = spec.params.probe
    if probe is not None and probe.kind != ROLLOUTS:
        return finished(spec) is not None
    if spec.made(MODEL if probe is None else ROLLOUTS) is not None:
        return True
    present = record.read(spec.folder)
    if present is not None:
        require_same(present, spec)
    return False


def require_same(present: RunRecord, spec: RunSpec) -> None:
    """Raise ValueError unless a record is of this run's identity."""
    if present.identity == spec.identity:
        return
    changed = "; ".join(changes(present, spec)) or "the seed"
    place = files.place(present.folder, packed.RUN)
    where, delete = (
        (place, "`opd unpack` it and delete its folder") if place.arm else (present.folder, "Delete this folder")
    )
    raise ValueError(
        f"{where}: holds a run of other parameters ({changed}). Nothing was overwritten. "
        f"{delete}, take back the change of {spec.origin.source}, or keep both: choose another results "
        "folder (--results, or results=… in the notebook) or use overrides={…}, which have folders of their own"
    )


def changes(present: RunRecord, spec: RunSpec) -> list[str]:
    """Which parameters or parents of a record are not those of the run, as `key: recorded → asked`."""
    parents = {role: parent.identity for role, parent in spec.parents.items()}
    return record.differences(present, spec.params.said(), parents)


def missing(specs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """The runs to be trained so that all of `specs` are done: parents first, each once.

    Raises ValueError if a folder holds a corrupt record or a run of other parameters.
    """
    order: dict[Path, RunSpec] = {}
    for spec in specs:
        _need(spec, order, weights=False)
    return tuple(order.values())


def untrained(spec: RunSpec) -> tuple[RunSpec, ...]:
    """The runs that must be trained before this one can be, in order: parents without weights, and theirs."""
    order: dict[Path, RunSpec] = {}
    for parent in spec.parents.values():
        _need(parent, order, weights=True)
    return tuple(order.values())


def _need(spec: RunSpec, order: dict[Path, RunSpec], weights: bool) -> None:
    """Put a run that is not done, or whose `weights` are not there, into the order, behind those it starts from."""
    if spec.folder in order or (trained(spec) if weights else finished(spec) is not None):
        return
    for parent in spec.parents.values():
        _need(parent, order, weights=True)
    order[spec.folder] = spec


def swept(specs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """These runs, when what killed processes have left in the folders of the finished ones is removed."""
    chosen = tuple(specs)
    for spec in chosen:
        present = record.read(spec.folder)
        if present is not None and (present.status, present.identity) == (FINISHED, spec.identity):
            leftovers.sweep(spec.folder)
    return chosen


def with_parents(specs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """The runs and all they start from, parents first, each once.

    Raises ValueError where one starts from a run of which another has changed parameters, and both have one folder.
    """
    order: dict[Path, RunSpec] = {}

    def add(spec: RunSpec) -> None:
        for parent in spec.parents.values():
            add(parent)
        if order.setdefault(spec.folder, spec).identity != spec.identity:
            raise ValueError(
                f"{spec.folder}: is asked for as overrides change it and as its params file has it, which others start "
                "from; leave the results folder out, for overrides have folders of their own, or choose the notebooks "
                f"without {spec.experiment} (--only)"
            )

    for spec in specs:
        add(spec)
    return tuple(order.values())


def notebooks(profile: str, params_root: Path = paths.PARAMS, folder: Path = paths.NOTEBOOKS) -> tuple[str, ...]:
    """The experiments that have both a notebook and params at this profile, in order.

    Raises ValueError for a profile without params, naming those there are, and for one of no notebook in the folder.
    """
    require_profile(profile, params_root)
    listed = [source.stem for source in sorted((params_root / profile).glob("*.yaml"))]
    found = tuple(name for name in listed if (folder / f"{name}.ipynb").exists())
    if not found:
        raise ValueError(f"{folder}: no notebook of {params_root / profile}, which has params of {', '.join(listed)}")
    names.require_distinct(found, "notebook", str(params_root / profile))
    return found


def require_profile(profile: str, params_root: Path = paths.PARAMS) -> str:
    """The profile, if it is a name and there are params of it. Raises ValueError naming those there are."""
    known = profiles(params_root)
    there = ", ".join(known) or "none: name the folder that holds them"
    try:
        names.require(profile, "profile", "--profile")
    except ValueError as error:
        raise ValueError(f"{error}; {params_root} has params files of {there}") from None
    if profile not in known:
        raise ValueError(f"--profile {profile}: {params_root} has no params files of it; choose from {there}")
    return profile


def choose(
    only: Iterable[str] | None, known: tuple[str, ...], profile: str, params_root: Path = paths.PARAMS
) -> tuple[str, ...]:
    """The named notebooks in their order, all when none is named. Raises ValueError for one that is not known."""
    wanted = known if only is None else tuple(only)
    for name in wanted:
        if name not in known:
            others = [other for other in profiles(params_root, name) if other != profile]
            elsewhere = f"; {name} is at {', '.join(others)}" if others else ""
            if profile in profiles(params_root, name):
                elsewhere = f"; {name} has params but no notebook: `opd run {name} ARM SEED` trains one arm of it"
            raise ValueError(
                f"--only {name}: no such notebook of this profile; choose from {', '.join(known)}{elsewhere}"
            )
    return tuple(name for name in known if name in wanted)


def experiments(
    chosen: Iterable[str],
    profile: str,
    results: Path | None,
    seeds: tuple[int, ...] | None = None,
    params_root: Path = paths.PARAMS,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Experiment, ...]:
    """These experiments with the same seeds, results folder and overrides.

    Raises ValueError for results in a file, and for overrides that an arm of one of them cannot have.
    """
    if results is not None and results.is_file():
        raise ValueError(f"--results {results}: is a file, so records cannot be written or read there; name a folder")
    plain = tuple(load(name, profile, seeds=seeds, results=results, root=params_root) for name in chosen)
    if not overrides:
        return plain
    fewer = "name the notebooks that it is for with --only" if len(plain) > 1 else ""
    return tuple(_changed(each, overrides, params_root, fewer) for each in plain)


def _changed(plain: Experiment, overrides: Mapping[str, Any], params_root: Path, remedy: str) -> Experiment:
    """An experiment with overrides, which are to blame for what is wrong now; `remedy`: what else may be done."""
    try:
        return load(plain.name, plain.profile, overrides, plain.seeds, plain.results, params_root)
    except ValueError as error:
        said = str(error) if plain.name in str(error) else f"{plain.name}: {error}"
        mark = " Or" if said.endswith("?") else "; or"
        raise ValueError(f"{said}{mark} {remedy}" if remedy else said) from None


def all_runs(chosen: Iterable[Experiment]) -> tuple[RunSpec, ...]:
    """Every run of every experiment."""
    return tuple(spec for experiment in chosen for spec in experiment.runs())


def steps(spec: RunSpec) -> int:
    """How many steps lead to the end of a run: optimiser steps, a probe's batches, one for an evaluation alone."""
    return int(spec.params.probe.batches if spec.params.probe else max(1, spec.params.train.steps))


def total_seconds(seconds: Mapping[str, float]) -> float:
    """Wall seconds of all stages together."""
    return float(sum(seconds.values()))
