"""What tests of opd_lib.run need beside the `world` of conftest: experiments, records and notebooks in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import psutil
from ruamel.yaml import YAML

from opd_lib import params, paths
from opd_lib.params import Experiment, RunSpec
from opd_lib.records.record import write_json

MODELS, OPD = "00_models", "01_opd"


def command_of(process: psutil.Process) -> list[str]:
    """The words a process was started with; none if it has just ended, as children of others do at any moment."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def load(world: Path, name: str = MODELS, results: str = "results", **options: Any) -> Experiment:
    """An experiment of the world."""
    return params.load(name, results=world / results, root=world / "params", **options)


def write_record(spec: RunSpec, status: str = "finished", identity: str | None = None, error: str = "") -> None:
    """A record as a run would have left it, with two rows of steps."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    content = {
        "experiment": spec.experiment,
        "profile": spec.profile,
        "arm": spec.arm,
        "seed": spec.seed,
        "status": status,
        "identity": identity or spec.identity,
        "params": spec.params.said(),
        "parents": {role: parent.identity for role, parent in spec.parents.items()},
        "seconds": {"score": 3.0},
        "error": error,
    }
    write_json(spec.folder / "run.json", content)
    (spec.folder / "steps.csv").write_text("step,loss\n1,0.5\n2,0.25\n")


def write_notebook(world: Path, name: str, extra: str = "pass") -> Path:
    """A notebook with the usual parameters that launches its experiment; `extra` is its last cell."""
    cell = nbformat.v4.new_code_cell
    inputs = cell('profile = "tiny"\noverrides = {}\nseeds = None\nresults = None')
    inputs.metadata["tags"] = ["parameters"]
    body = (
        f"import sys; sys.path.insert(0, {str(paths.ROOT)!r})\nfrom pathlib import Path\n"
        "from opd_lib import params\nfrom opd_lib.run import launch\n"
        f"root = Path({str(world / 'params')!r})\n"
        f"experiment = params.load({name!r}, profile, overrides, seeds, results, root=root)\n"
        "runs = launch.run(experiment)\nprint(len(runs.records), 'runs')"
    )
    path = world / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[inputs, cell(body), cell(extra)])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, path)
    return path


def change_arm(world: Path, name: str, arm: str, changes: dict[str, Any]) -> None:
    """Override keys in an arm of a params file, or add the arm."""
    path = world / "params" / "tiny" / f"{name}.yaml"
    content = YAML().load(path)
    content["arms"].setdefault(arm, {}).update(changes)
    with path.open("w") as file:
        YAML().dump(content, file)


def teach(world: Path) -> None:
    """Let the teacher learn enough to pass the gate that refuses an empty one."""
    change_arm(world, MODELS, "teacher", {"train.steps": 60})


def long(world: Path, results: str) -> tuple[RunSpec, ...]:
    """Two runs that take a few seconds, to be interrupted."""
    return load(world, results=results, overrides={"train.steps": 600}).runs()[:2]


def progress_of(folder: Path) -> int:
    """The step a run has reached, 0 if it has not said."""
    try:
        return int(json.loads((folder / ".progress.json").read_text())["step"])
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
