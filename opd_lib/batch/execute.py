"""One notebook through papermill, with its traps closed.

papermill takes unknown parameters with a warning, and after a dead kernel or a time-out it writes a notebook whose
cells all say "completed". Here unknown parameters are refused, the executed notebook appears under its name only after
success, and notebook.done.json says which runs and which source it was made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opd_lib import inputs, names, params, paths
from opd_lib.params import Experiment
from opd_lib.records.record import write_json
from opd_lib.run import guard, room, tries

FAILED, DONE = "notebook.failed.ipynb", "notebook.done.json"
TIMING = ("papermill", "execution", "ExecuteTime")
"""Metadata that says when and where a notebook ran."""
CELL_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a notebook is executed with; `folder` holds the sources, `params_root` the params files.

    `results` is None for a try: overrides without a folder of records, which have one of their own.
    """

    name: str
    profile: str = "tiny"
    results: Path | None = paths.LOCAL
    seeds: tuple[int, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = paths.NOTEBOOKS
    params_root: Path = paths.PARAMS
    cell_seconds: int = CELL_SECONDS

    @classmethod
    def of(cls, experiment: Experiment, folder: Path, params_root: Path) -> Request:
        """What the notebook of an experiment that is loaded already is executed with."""
        return cls(
            name=experiment.name, profile=experiment.profile, results=experiment.results, seeds=experiment.seeds,
            overrides=experiment.overrides, folder=folder, params_root=params_root,
        )  # fmt: skip

    @property
    def source(self) -> Path:
        """The notebook as written."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def target(self) -> Path:
        """The folder of what comes out."""
        root = tries.place(self.overrides) if self.results is None else self.results.resolve()
        return root / self.profile / self.name

    def experiment(self) -> Experiment:
        """The experiment that the notebook will load. Raises ValueError if there is none such, or for no try."""
        names.require(self.name, "notebook", "notebook")
        if not self.source.exists():
            known = ", ".join(sorted(path.stem for path in self.folder.glob("*.ipynb"))) or "none"
            raise ValueError(f"{self.source}: no such notebook; choose from {known}")
        results = None if self.results is None else self.results.resolve()
        found = params.load(self.name, self.profile, self.overrides, self.seeds, results, root=self.params_root)
        if results is None and not found.varied:
            raise ValueError(f"overrides {inputs.shown(dict(self.overrides))}: change nothing of {self.name}")
        return found

    def parameters(self) -> dict[str, Any]:
        """What papermill puts into the notebook."""
        return {
            "profile": self.profile,
            "overrides": dict(self.overrides),
            "seeds": None if self.seeds is None else list(self.seeds),
            "results": None if self.results is None else str(self.results.resolve()),
        }


def execute(request: Request) -> Path:
    """Execute a notebook into RESULTS/PROFILE/NN_name/notebook.ipynb and write its sentinel. Returns the path.

    Raises ValueError for wrong parameters, and naming the cell if one fails, takes too long or loses its kernel; the
    notebook as far as it came is then notebook.failed.ipynb, and an earlier success stays.
    """
    experiment = request.experiment()
    target = request.target
    room.prepare(target)
    (target / DONE).unlink(missing_ok=True)
    run_notebook(request.source, target / paths.EXECUTED, request.parameters(), target / FAILED, request.cell_seconds)
    write_json(target / DONE, expected(request, experiment))
    return target / paths.EXECUTED


def expected(request: Request, experiment: Experiment) -> dict[str, Any]:
    """What notebook.done.json holds when the executed notebook is up to date."""
    return {
        "status": "done",
        "runs": {spec.name: spec.identity for spec in experiment.runs()},
        "source": _digest([request.source]),
        "library": _digest([*sorted((paths.ROOT / "opd_lib").rglob("*.py")), *sorted(paths.CLAIMS.rglob("*.yaml"))]),
    }


def is_done(request: Request, experiment: Experiment) -> bool:
    """True if the executed notebook is there and was made from this source, these runs and this library."""
    try:
        found = json.loads((request.target / DONE).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    return bool((request.target / paths.EXECUTED).exists() and found == expected(request, experiment))


def run_notebook(source: Path, output: Path, parameters: Mapping[str, Any], failed: Path, cell_seconds: int) -> None:
    """Execute a notebook file with the kernel of this interpreter; `output` is replaced on success only."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillException, PapermillExecutionError

    refuse_unknown(source, parameters)
    room.prepare(output.parent)
    temporary = output.with_name(f".{output.stem}.{os.getpid()}.ipynb")
    try:
        with guard.termination_as_interrupt():
            papermill.execute_notebook(
                literal(source), literal(temporary), dict(parameters), kernel_name="python3", language="python",
                cwd=source.parent, progress_bar=False, execution_timeout=cell_seconds,
                kernel_manager_class=own_kernel(),
            )  # fmt: skip
        strip(temporary)
        os.replace(temporary, output)
        failed.unlink(missing_ok=True)
    except PapermillExecutionError as error:
        place, reason = f"cell [{error.exec_count}]", f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        place, reason = f"at cell [{_last_cell(temporary)}] or the next", "the kernel died (killed, or out of memory?)"
    except CellTimeoutError:
        place, reason = f"cell [{_last_cell(temporary)}]", f"took more than {cell_seconds} s"
    except (PapermillException, OSError, RuntimeError) as error:
        place, reason = "as a whole", f"{type(error).__name__}: {error}"
    else:
        return
    finally:
        guard.end(guard.descendants())
        if temporary.exists():
            os.replace(temporary, failed)
    came = f"\n  as far as it came: {failed}" if failed.exists() else ""
    raise ValueError(f"{source}, {place}: {reason}{came}")


def refuse_unknown(source: Path, parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for a parameter that the notebook's parameters cell does not have."""
    import papermill

    known = set(papermill.inspect_notebook(literal(source)))
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise ValueError(
            f"{source}: no parameter {', '.join(unknown)}; its parameters cell has {', '.join(sorted(known)) or 'none'}"
        )


def literal(path: Path) -> str:
    """A path for papermill, which fills in parameters where it finds braces.

    >>> literal(Path("runs{1}/x.ipynb"))
    'runs{{1}}/x.ipynb'
    """
    return str(path).replace("{", "{{").replace("}", "}}")


def own_kernel() -> type:
    """A kernel manager that starts the kernel with this interpreter, whatever kernels are registered on the machine."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                display_name="Python 3",
                language="python",
            )

    return OwnKernel


def strip(path: Path) -> None:
    """Remove from an executed notebook when, where and by what it ran, so that equal results are equal files.

    What a cell prints in a row may have come in several parts, as time would have it: it becomes one.
    """
    import nbformat

    notebook = _read(path)
    for holder in (notebook, *notebook.cells):
        for key in TIMING:
            holder.metadata.pop(key, None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # papermill gives the injected cell a random one
        if cell.cell_type == "code":
            cell.outputs = _in_one(cell.outputs)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def _in_one(outputs: Sequence[Any]) -> list[Any]:
    """Outputs with neighbours of one stream joined."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == "stream" and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _last_cell(path: Path) -> str:
    """The execution count of the last cell that began, as far as the notebook knows."""
    if not path.exists():
        return "?"
    counts = [cell.get("execution_count") for cell in _read(path).cells]
    return str(max((count for count in counts if count is not None), default="?"))


def _read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
