"""YAML → frozen records, strictly: what an experiment is, and the identity of each of its runs.

One file per notebook and profile, the same keys in every profile. Every key is required; an unknown or mistyped key is
an error that names the file, the line and the nearest valid key. `arms` override a few keys, written as dotted paths;
an override replaces what stands at its path. A run's identity is the hash of its resolved parameters, its seed and the
identities of the models it starts from; code, versions and machine are provenance (see `report.record`).

An arm may be a run of an earlier notebook: `failure: {same_as: 02_new_knowledge/distill-large}`. It is computed once,
whichever notebook asks first, stands under the notebook it belongs to, and is shown in this one under this one's name.

`run:NOTEBOOK/ARM` is a checkpoint that a run of the same seed has made; with `@SEED` behind it, the one of that seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from opd_lib import inputs, names, paths
from opd_lib.names import NAME, RUN_PREFIX
from opd_lib.params import arms as per_arm
from opd_lib.params.arms import ARMS, SAME_AS
from opd_lib.params.mistakes import check_file, check_seeds, read
from opd_lib.params.schema import RunParams
from opd_lib.params.spec import RunSpec as RunSpec
from opd_lib.params.spec import determining, identity, overrides_digest
from opd_lib.records.parameters import flatten, made_by_run

DATA = "task.data"  # where a task's data lies: an override of it holds for the runs that make the models, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A notebook's experiment at a profile: its arms and seeds, validated.

    `shared` maps the arms that are runs of another notebook to that notebook's experiment and arm. `varied` are the
    arms that overrides have changed or added: their records have a folder of their own.
    """

    name: str
    profile: str
    title: str
    seeds: tuple[int, ...]
    overrides: dict[str, Any]
    results: Path | None
    arms: dict[str, RunParams]
    shared: dict[str, tuple[Experiment, str]]
    varied: frozenset[str]
    source: Path
    _made: dict[tuple[str, int], RunSpec] = field(default_factory=dict, init=False, repr=False, compare=False)

    def runs(self) -> tuple[RunSpec, ...]:
        """Every arm at every seed, arms first."""
        return tuple(self.spec(arm, seed) for arm in self.arms for seed in self.seeds)

    def only(self, arms: Sequence[str]) -> Experiment:
        """This experiment with these of its arms alone, in this order. Raises ValueError for one that it lacks."""
        chosen = dict.fromkeys(arms)
        for arm in chosen:
            self._require(arm)
        return replace(
            self,
            arms={arm: self.arms[arm] for arm in chosen},
            shared={arm: owner for arm, owner in self.shared.items() if arm in chosen},
            varied=self.varied & frozenset(chosen),
        )

    def spec(self, arm: str, seed: int, ancestors: tuple[str, ...] = ()) -> RunSpec:
        """The run of one arm at one seed, with the runs that make its models."""
        self._require(arm)
        check_seeds([seed], None)
        if arm in self.shared:
            owner, name = self.shared[arm]
            return replace(owner.spec(name, seed, ancestors), shown_as=(self.name, arm))
        if f"{self.name}/{arm}" in ancestors:
            raise ValueError(f"{self.source}: {' ← '.join((*ancestors, arm))} is a circle of run: references")
        if (arm, seed) in self._made:  # runs share their parents, and each would be described again for each of them
            return self._made[arm, seed]
        params = self.arms[arm]
        parents = {
            role: self._parent(reference, seed, (*ancestors, f"{self.name}/{arm}"))
            for role, reference in params.references.items()
            if reference.startswith(RUN_PREFIX)
        }
        self._made[arm, seed] = made = RunSpec(
            experiment=self.name,
            profile=self.profile,
            arm=arm,
            seed=seed,
            params=params,
            identity=identity(params, seed, {role: spec.identity for role, spec in parents.items()}),
            parents=parents,
            folders=tuple(
                paths.run_folder(self.profile, self.name, arm, seed, root) for root in self._roots(arm in self.varied)
            ),
            shown_as=(self.name, arm),
            origin=self,
        )
        return made

    @property
    def output(self) -> Path:
        """Where this experiment's figures and tables go: never among the committed results."""
        separate = self.results is not None or self.varied
        return (self._roots(True)[-1] if separate else paths.LOCAL) / self.profile / self.name

    @property
    def teachers(self) -> dict[str, str]:
        """arm → the name of the checkpoint that teaches it, for teachers made by a run."""
        named = {arm: made_by_run(params.teacher) for arm, params in self.arms.items()}
        return {arm: name for arm, name in named.items() if name}

    def table(self) -> pd.DataFrame:
        """Every parameter that determines a run with its value; a column per arm where arms differ."""
        flat = {arm: flatten(determining(params)) for arm, params in self.arms.items()}
        keys = list(dict.fromkeys(key for row in flat.values() for key in row))
        rows = []
        for key in keys:
            values = [json.dumps(row.get(key)) for row in flat.values()]
            shown = {"all arms": values[0]} if len(set(values)) == 1 else dict(zip(flat, values, strict=True))
            rows.append({"parameter": key} | shown)
        return pd.DataFrame(rows).fillna("").set_index("parameter")

    def _roots(self, varied: bool) -> tuple[Path, ...]:
        """Where records are looked for, in this order; the last is where they are written."""
        if self.results is not None:
            return (self.results,)
        if varied:
            return (paths.VARIANTS / overrides_digest(self.overrides),)
        return (paths.RESULTS, paths.LOCAL, paths.LAB)

    def _require(self, arm: str) -> None:
        if arm not in self.arms:
            raise ValueError(f"{self.source}: no arm {arm!r}; its arms are {', '.join(self.arms)}")

    def _parent(self, reference: str, seed: int, ancestors: tuple[str, ...]) -> RunSpec:
        made = names.run_reference(reference)
        seed = seed if made.seed is None else made.seed
        if made.notebook == self.name:
            return self.spec(made.arm, seed, ancestors)
        source = self.source.with_name(f"{made.notebook}.yaml")
        sibling = _sibling(source, self.profile, self.results, self.overrides.get(DATA))
        if made.arm not in sibling.arms:
            known = ", ".join(sibling.arms)
            raise ValueError(
                f"{self.source}: {reference}: {sibling.name} has no arm {made.arm!r}; its arms are {known}"
            )
        return sibling.spec(made.arm, seed, ancestors)


def load(
    name: str,
    profile: str = "tiny",
    overrides: Mapping[str, Any] | str | None = None,
    seeds: Sequence[int] | str | None = None,
    results: Path | str | None = None,
    root: Path = paths.PARAMS,
) -> Experiment:
    """The experiment of a notebook at a profile. Raises ValueError naming file, line, key, value and remedy.

    Names are checked before anything is looked for; see `inputs` for what overrides, seeds and results may be.

    `overrides` maps dotted paths to values, e.g. {"train.steps": 20}, for every arm; {"arms.mine": {"method.k": 4}}
    says what the one arm `mine` changes, a new arm or, beside what the file says of it, one of the file's own (but not
    one that is another notebook's run). `seeds` replaces the file's.
    `results` is the folder of records: nothing else is read. Without it, committed records are read, then those of
    results/local; what is missing may start from committed weights, so it is computed in results/local/lab, where
    `make reproduce` does not look (arms that overrides change: in results/local/variants, a folder for each change).
    """
    source = root / names.require(profile, "profile", "profile") / f"{names.require(name, 'notebook', 'notebook')}.yaml"
    changed, folder, chosen = inputs.overrides(overrides), inputs.results(results), inputs.seeds(seeds)
    raw = read(source)
    check_file(raw, source)
    numbers = check_seeds(raw["seeds"], source) if chosen is None else check_seeds(chosen, None)
    everywhere = {path: value for path, value in changed.items() if not path.startswith(ARMS)}
    earlier = lru_cache(lambda notebook: load(notebook, profile, everywhere, numbers, folder, root))
    changed_by_arm = per_arm.changed_by_arm(raw, changed)
    borrowed = {arm: per_arm.borrowed(own, mine) for arm, (own, mine) in changed_by_arm.items()}
    resolved = {
        arm: per_arm.resolved(raw, *changed_by_arm[arm], arm, source) for arm in changed_by_arm if borrowed[arm] is None
    }
    shared = {arm: _owner(changes, name, arm, source, earlier) for arm, changes in borrowed.items() if changes}
    arms = {arm: resolved[arm] if arm in resolved else shared[arm][0].arms[shared[arm][1]] for arm in changed_by_arm}
    return Experiment(
        name=name,
        profile=profile,
        title=str(raw["title"]),
        seeds=numbers,
        overrides=changed,
        results=folder,
        arms=arms,
        shared=shared,
        varied=_varied(raw, arms, shared, source) if changed else frozenset(),
        source=source,
    )


def _varied(
    raw: Mapping[str, Any],
    arms: Mapping[str, RunParams],
    shared: Mapping[str, tuple[Experiment, str]],
    source: Path,
) -> frozenset[str]:
    """The arms whose parameters are not those that the file gives them."""
    written = {arm: changes for arm, changes in per_arm.written(raw).items() if SAME_AS not in changes}
    plain = {arm: per_arm.resolved(raw, changes, {}, arm, source) for arm, changes in written.items()}
    owned = {arm for arm, (owner, name) in shared.items() if name in owner.varied}
    return frozenset(owned | {arm for arm, found in arms.items() if arm not in shared and plain.get(arm) != found})


def _owner(
    changes: Mapping[str, Any], name: str, arm: str, source: Path, earlier: Callable[[str], Experiment]
) -> tuple[Experiment, str]:
    """The experiment and the arm that `same_as` names. Raises ValueError unless it is an arm of an earlier notebook."""
    where = f"{source}: arms.{arm}"
    if len(changes) > 1:
        raise ValueError(f"{where}: {SAME_AS} stands alone: a shared run cannot be changed; give the arm its own keys")
    notebook, _, owned = str(changes[SAME_AS]).partition("/")
    if not NAME.fullmatch(notebook) or not notebook < name or not source.with_name(f"{notebook}.yaml").exists():
        raise ValueError(f"{where}: {SAME_AS}: {changes[SAME_AS]!r}: write EARLIER_NOTEBOOK/ARM, of this profile")
    owner = earlier(notebook)
    if owned not in owner.arms or owned in owner.shared:
        own = [present for present in owner.arms if present not in owner.shared]
        raise ValueError(f"{where}: {SAME_AS}: {owned!r} is not a run of {notebook} itself; it has {', '.join(own)}")
    return owner, owned


def _sibling(source: Path, profile: str, results: Path | None, data: str | None) -> Experiment:
    """Another notebook's experiment, its data read from the same place; read again only when its file has changed."""
    changed = source.stat().st_mtime_ns if source.exists() else 0
    return _cached(source.stem, profile, results, source.parents[1], data, changed)


@lru_cache(maxsize=64)
def _cached(name: str, profile: str, results: Path | None, root: Path, data: str | None, changed: int) -> Experiment:
    return load(name, profile, {DATA: data} if data else None, results=results, root=root)
