"""The committed notebooks executed again, in place, on the committed records: figures, tables, verdicts, pages.

Nothing is trained: a missing or other record is refused before the first notebook. A notebook that fails stays as it
was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter

from opd_lib import lifetime, paths
from opd_lib.batch import execute, refresh
from opd_lib.bench import command
from opd_lib.params import Experiment
from opd_lib.records import record
from opd_lib.run import plan

SHOWN = 4
"""How many missing records an error names."""


def reexecute(profile: str, seeds: tuple[int, ...] | None, jobs: int) -> Iterator[str]:
    """Execute every notebook of a profile, `jobs` at a time, commit its outputs, judge; a line of text for each.

    Seeds other than those of the params files are for profiles whose notebooks lie beside their records. Raises
    ValueError for a record that is not committed, and naming the cell for a notebook that fails.
    """
    experiments = plan.experiments(plan.notebooks(profile), profile, None, seeds)
    require_committed(experiments)
    names = sources(profile, [experiment.name for experiment in experiments])
    one = partial(in_place, profile=profile, seeds=seeds)
    with ProcessPoolExecutor(jobs, initializer=lifetime.bind) as pool:
        for name, seconds in zip(names, pool.map(one, names), strict=True):
            commit_outputs(paths.LOCAL / profile / name, paths.RESULTS / profile / name)
            yield f"{name}: {seconds:.1f} s"
    judged = refresh.judge(profile, paths.RESULTS)
    yield f"written: {refresh.write_claims(judged, profile, paths.RESULTS)}"
    if profile == refresh.DEFAULT_PROFILE:
        refresh.write_readme(judged)
        command.bench(docs=True)


def sources(profile: str, experiments: Sequence[str], folder: Path = paths.NOTEBOOKS) -> tuple[str, ...]:
    """Which notebooks show committed results: of the default profile all, of another one its experiments."""
    if profile != refresh.DEFAULT_PROFILE:
        return tuple(experiments)
    return tuple(path.stem for path in sorted(folder.glob("[0-9]*.ipynb")))


def require_committed(experiments: Iterable[Experiment], committed: Path = paths.RESULTS) -> None:
    """Raise ValueError naming the runs, students' and teachers' included, that have no committed record."""
    specs = {parent.name: parent for e in experiments for spec in e.runs() for parent in (*spec.parents.values(), spec)}
    missing = []
    for name, spec in specs.items():
        folder = paths.run_folder(spec.profile, spec.experiment, spec.arm, spec.seed, committed)
        present = record.read(folder)
        if present is None or present.status != plan.FINISHED:
            missing.append(name)
        else:
            plan.require_same(present, spec)
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise ValueError(
            f"{committed}: no finished record of {', '.join(missing[:SHOWN])}{more}; "
            "`opd refresh` without --outputs-only trains and commits it"
        )


def in_place(
    name: str, profile: str, seeds: tuple[int, ...] | None, folder: Path = paths.NOTEBOOKS, local: Path = paths.LOCAL
) -> float:
    """Execute a notebook on the committed records, in `folder` at the default profile, else beside the records.

    What an earlier execution left in results/local goes first. Returns the wall seconds.
    """
    begin = perf_counter()
    source, place = folder / f"{name}.ipynb", local / profile / name
    for kind in refresh.OUTPUTS:
        shutil.rmtree(place / kind, ignore_errors=True)
    output, parameters = source, {}
    if profile != refresh.DEFAULT_PROFILE:
        output = paths.RESULTS / profile / name / paths.EXECUTED
        parameters = {"profile": profile} | ({} if seeds is None else {"seeds": list(seeds)})
    execute.run_notebook(source, output, parameters, place / execute.FAILED, execute.CELL_SECONDS)
    return perf_counter() - begin


def commit_outputs(made: Path, committed: Path) -> None:
    """Put the figures and tables that a notebook left in the place of the committed ones, each folder as a whole."""
    for kind in refresh.OUTPUTS:
        if (made / kind).is_dir():
            names = sorted(path.name for path in (made / kind).iterdir())
            refresh.replace_folder(made / kind, committed / kind, names)
        else:
            shutil.rmtree(committed / kind, ignore_errors=True)
