"""All figures and tables once more from finished records: no torch, no kernel, nothing trained.

What a figure shows is said in one place, the notebook. So its code cells are executed in order, in one plain namespace,
several notebooks at a time. They see a results folder that holds nothing but a link to every record they need; what
they leave there goes to the folder asked for. Records cannot be changed by this, and there is nothing to be trained.
Cells with the tag `measures` load checkpoints and draw nothing: they are left out.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import shlex
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import CodeType
from typing import Any

from opd_lib import lifetime, names, paths
from opd_lib.batch import refresh
from opd_lib.params import Experiment
from opd_lib.records import files, packed, packing, reading
from opd_lib.records.record import RunRecord
from opd_lib.run import plan

SHOWN = 4
"""How many missing runs an error names."""
MEASURES = "measures"
"""The tag of a cell that loads checkpoints, and so needs torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A notebook whose outputs were drawn: where they are, how many figures, and the wall seconds it took."""

    name: str
    folder: Path
    figures: int
    seconds: float


def redraw(
    experiments: Iterable[Experiment], output: Path, notebooks: Path = paths.NOTEBOOKS, jobs: int = 1
) -> Iterator[Drawn]:
    """Draw the figures and tables of each notebook into OUTPUT/PROFILE/NN_name, `jobs` notebooks at a time.

    Raises ValueError before anything is drawn if a record is missing or belongs to other parameters, or if `output`
    is a file or among the committed results; and while drawing if a cell is no plain Python or refuses its data.
    """
    chosen = tuple(experiments)
    refuse_committed(output)
    require_folder(output)
    records = [record for experiment in chosen for record in finished(experiment)]
    with TemporaryDirectory(prefix="opd-figures-") as folder:
        link(records, Path(folder))
        one = partial(draw, notebooks=notebooks, view=Path(folder), output=output)
        if jobs == 1:
            yield from map(one, chosen)
        else:
            with ProcessPoolExecutor(jobs, initializer=lifetime.bind) as pool:
                yield from pool.map(one, chosen)


def draw(experiment: Experiment, notebooks: Path, view: Path, output: Path) -> Drawn:
    """Execute one notebook on the records linked in `view` and put its outputs below `output`."""
    begin = perf_counter()
    parameters = {
        "profile": experiment.profile,
        "overrides": {},
        "seeds": list(experiment.seeds),
        "results": str(view),
    }
    execute(notebooks / f"{experiment.name}.ipynb", parameters)
    made, target = replace(experiment, results=view).output, output / experiment.profile / experiment.name
    for kind in refresh.OUTPUTS:
        if (made / kind).is_dir():
            refresh.replace_folder(made / kind, target / kind, sorted(path.name for path in (made / kind).iterdir()))
    n_figures = len(list((made / "figures").glob("*.svg")))
    return Drawn(name=experiment.name, folder=target, figures=n_figures, seconds=perf_counter() - begin)


def finished(experiment: Experiment) -> tuple[RunRecord, ...]:
    """The records of an experiment and of the runs that made its models, each once.

    Raises ValueError naming those that are missing, or what differs if one belongs to other parameters.
    """
    runs = experiment.runs()
    specs = {spec.name: spec for spec in (*runs, *(parent for run in runs for parent in run.parents.values()))}
    found = {name: plan.finished(spec) for name, spec in specs.items()}
    missing = [name for name, record in found.items() if record is None]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        words = ["opd", "reproduce", "--profile", experiment.profile, "--only", experiment.name]
        words += [] if experiment.results is None else ["--results", str(experiment.results)]
        words += ["--seeds", ",".join(map(str, experiment.seeds)) + ","]
        raise ValueError(
            f"{experiment.name}: no finished record of {', '.join(missing[:SHOWN])}{more}; "
            f"first do `{shlex.join(words)}`"
        )
    return tuple(record for record in found.values() if record is not None)


def link(records: Iterable[RunRecord], view: Path) -> None:
    """Make `view` a results folder of these records, each a link to where it stands; packed ones are unpacked there.

    Raises ValueError for a record whose names are none.
    """
    for record in records:
        source = str(files.place(record.folder, packed.RUN))
        names.require(record.profile, "profile", source)
        names.require(record.experiment, "notebook", source)
        names.require(record.arm, "arm", source)
        place = paths.run_folder(record.profile, record.experiment, record.arm, record.seed, view)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if files.is_packed(record.folder):
            packing.copy(record.folder, place)
        else:
            place.symlink_to(record.folder.resolve(), target_is_directory=True)


def execute(source: Path, parameters: Mapping[str, Any]) -> None:
    """Execute the code cells of a notebook with these parameters; what they print or show is not kept.

    Raises ValueError naming the cell that is no plain Python, does not take the parameters, or refuses its data; any
    other error of a cell comes with its traceback, in which the cell is named as the file.
    """
    numbered = enumerate((c for c in reading.mapping(source, ["cells"])["cells"] if c["cell_type"] == "code"), 1)
    cells = {number: cell for number, cell in numbered if MEASURES not in tags(cell)}
    codes = {n: plain_python("".join(cell["source"]), f"{source}, cell [{n}]") for n, cell in cells.items()}
    inputs = [number for number, cell in cells.items() if "parameters" in tags(cell)]
    if len(inputs) != 1:
        raise ValueError(f"{source}: {len(inputs)} cells have the tag `parameters`; give it to the one that sets them")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, code in codes.items():
        with contextlib.redirect_stdout(io.StringIO()):
            run_cell(code, namespace)
        if number in inputs:
            unknown = sorted(set(parameters) - set(namespace))
            if unknown:
                raise ValueError(f"{code.co_filename}: no parameter {', '.join(unknown)}; set it there")
            namespace.update(parameters)


def tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a notebook's cell."""
    return list(cell["metadata"].get("tags", []))


def plain_python(text: str, cell: str) -> CodeType:
    """A cell's code, compiled; tracebacks and `inspect` find its text under the cell's name, as in a kernel.

    Raises ValueError for what only a notebook's kernel understands.
    """
    linecache.cache[cell] = (len(text), None, text.splitlines(keepends=True), cell)
    try:
        return compile(text, cell, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise ValueError(
            f"{cell}, line {error.lineno}: {line!r} is no plain Python (a magic?); without a kernel only Python runs"
        ) from None


def run_cell(code: CodeType, namespace: dict[str, Any]) -> None:
    """Execute a cell; a refusal of the library comes as a ValueError that names the cell."""
    try:
        exec(code, namespace)
    except (ValueError, LookupError, OSError) as error:
        raise ValueError(f"{code.co_filename}: {type(error).__name__}: {error}") from error


def require_folder(output: Path) -> None:
    """Raise ValueError for a place that is a file, or lies in one."""
    for place in (output, *output.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--output {output}: {place} is a file; name a folder")


def refuse_committed(output: Path) -> None:
    """Raise ValueError for a folder among the committed results."""
    place = output.resolve()
    if place.is_relative_to(paths.RESULTS) and not place.is_relative_to(paths.LOCAL):
        raise ValueError(
            f"--output {output}: lies in the committed results, which only make refresh-outputs writes; "
            f"choose another folder, such as {paths.LOCAL / 'figures'}"
        )
