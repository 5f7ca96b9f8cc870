"""`opd figures`: the notebooks' own cells on finished records, without torch, without a kernel, without training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import micro
import nbformat
import pytest
from test_cli import opd
from typer.testing import Result

from opd_lib import params, paths
from opd_lib.batch import redraw

FIGURE = """
from opd_lib.report import figures, tables
from opd_lib.report.outputs import Outputs
outputs = Outputs(experiment.output)
models = launch.parents(experiment)
steps = runs.frame("steps")
outputs.table("losses", tables.end_table(steps, ["loss"]))
outputs.figure("losses", figures.curves(steps, "loss", "nats/token"))
"""
WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "ipykernel", "papermill", "nbclient"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Refuse())
from opd_lib.command.cli import app
app()
"""


@pytest.fixture
def drawn(world: Path) -> Path:
    """The world with finished records and two notebooks that draw."""
    for name in (micro.MODELS, micro.OPD):
        micro.write_notebook(world, name, FIGURE)
        for spec in micro.load(world, name, seeds=(0, 1)).runs():
            micro.write_record(spec)
    return world


def figures(world: Path, *words: str) -> Result:
    places = ("--notebooks", str(world / "notebooks"), "--output", str(world / "out"))
    return opd(world, "figures", *places, *words)


def test_a_place_for_figures_that_is_a_file_is_refused_before_anything_is_drawn(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redraw, "draw", lambda *args, **options: pytest.fail("something was drawn"))
    (drawn / "file").write_text("mine")
    for place in ("file", "file/below/it"):
        said = figures(drawn, "--output", str(drawn / place))
        assert said.exit_code == 1 and f"--output {drawn / place}: {drawn / 'file'} is a file" in said.stderr
    assert (drawn / "file").read_text() == "mine"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_the_usual_way(world: Path, name: str) -> dict[str, bytes]:
    """What the notebook's cells leave when they are executed on the records themselves, as a kernel would."""
    notebook = nbformat.read(world / "notebooks" / f"{name}.ipynb", as_version=4)
    namespace: dict[str, Any] = {}
    for cell in notebook.cells:
        exec(cell.source, namespace)
        if "parameters" in cell.metadata.get("tags", []):
            namespace["results"] = world / "results"
    output = params.load(name, results=world / "results", root=world / "params").output
    return {f"{k}/{file}": data for k in ("figures", "tables") for file, data in contents(output / k).items()}


@pytest.mark.process
def test_without_torch_or_kernel_the_same_bytes_as_by_the_notebook(drawn: Path) -> None:
    before = contents(drawn / "results")
    words = ["figures", "--params", str(drawn / "params"), "--results", str(drawn / "results")]
    words += ["--notebooks", str(drawn / "notebooks"), "--output", str(drawn / "out"), "--jobs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        f"{micro.MODELS}: 1 figure",
        f"{micro.OPD}: 1 figure",
    ]
    assert contents(drawn / "results") == before
    for name in (micro.MODELS, micro.OPD):
        ours = contents(drawn / "out" / "tiny" / name)
        assert set(ours) == {"figures/losses.json", "figures/losses.svg", "tables/losses.csv"}
        assert ours == in_the_usual_way(drawn, name)


def test_side_by_side_is_as_one_after_the_other(drawn: Path) -> None:
    assert figures(drawn, "--jobs", "1").exit_code == 0
    alone = contents(drawn / "out")
    result = figures(drawn, "--jobs", "2", "--output", str(drawn / "out2"))
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [micro.MODELS, micro.OPD]
    assert contents(drawn / "out2") == alone and alone


def test_one_notebook_with_other_seeds_and_nothing_of_what_cells_print(drawn: Path) -> None:
    (spec,) = (spec for spec in micro.load(drawn, micro.OPD, seeds=(1,)).runs() if spec.arm == "plain")
    (spec.folder / "steps.csv").write_text("step,loss\n1,0.9\n2,0.7\n")
    result = figures(drawn, "--only", micro.OPD, "--seeds", "1,")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1 and "runs" not in result.stdout
    table = (drawn / "out" / "tiny" / micro.OPD / "tables" / "losses.csv").read_text()
    assert "loss,plain,0.900,0.700,1" in table


def test_a_second_drawing_replaces_the_first_as_a_whole(drawn: Path) -> None:
    stray = drawn / "out" / "tiny" / micro.MODELS / "figures" / "stray.svg"
    stray.parent.mkdir(parents=True)
    stray.write_text("old")
    assert figures(drawn, "--only", micro.MODELS).exit_code == 0
    assert sorted(path.name for path in stray.parent.iterdir()) == ["losses.json", "losses.svg"]


def remove(world: Path, name: str) -> None:
    for spec in micro.load(world, name).runs():
        (spec.folder / "run.json").unlink()


def put(world: Path, text: str, tags: tuple[str, ...] = ()) -> None:
    """Make `text` the first cell of the second notebook."""
    path = world / "notebooks" / f"{micro.OPD}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(text, metadata={"tags": list(tags)}))
    nbformat.write(notebook, path)


BAD = [
    (lambda w: remove(w, micro.OPD), ["01_opd/plain/seed0", "01_opd/sampled/seed0", "--only 01_opd"]),
    (lambda w: remove(w, micro.MODELS), ["00_models/student/seed0", "--only 00_models"]),
    (lambda w: micro.change_arm(w, micro.OPD, "plain", {"train.steps": 7}), ["train.steps: 6 → 7"]),
    (lambda w: put(w, "%matplotlib inline"), ["01_opd.ipynb, cell [1], line 1", "%matplotlib inline", "Python"]),
    (lambda w: put(w, "x = 1\n!ls"), ["cell [1], line 2", "!ls"]),
    (lambda w: put(w, "a = 1", ("parameters",)), ["01_opd.ipynb", "2 cells have the tag `parameters`"]),
    (lambda w: put(w, "raise ValueError('no such thing')"), ["01_opd.ipynb, cell [1]", "no such thing"]),
]


@pytest.mark.parametrize(("prepare", "said"), BAD)
def test_what_cannot_be_drawn_is_one_message(drawn: Path, prepare: Any, said: list[str]) -> None:
    prepare(drawn)
    result = figures(drawn)
    assert result.exit_code == 1
    assert all(word in result.stderr for word in said), result.stderr
    assert "Traceback" not in result.output


def test_an_error_names_the_cell_as_the_notebook_counts_it_also_after_one_that_is_left_out(drawn: Path) -> None:
    put(drawn, "raise ValueError('no such thing')")
    put(drawn, "raise RuntimeError('a checkpoint was loaded')", (redraw.MEASURES,))
    result = figures(drawn, "--only", micro.OPD)
    assert result.exit_code == 1 and "01_opd.ipynb, cell [2]: ValueError: no such thing" in result.stderr


def test_nothing_is_drawn_while_any_record_is_missing(drawn: Path) -> None:
    remove(drawn, micro.OPD)
    assert figures(drawn).exit_code == 1
    assert not (drawn / "out").exists()


def test_a_parameters_cell_without_a_parameter_is_refused(drawn: Path) -> None:
    path = drawn / "notebooks" / f"{micro.OPD}.ipynb"
    path.write_text(path.read_text().replace("seeds = None", "pass"))
    result = figures(drawn, "--only", micro.OPD)
    assert result.exit_code == 1 and "no parameter seeds" in result.stderr


@pytest.mark.parametrize("output", [paths.RESULTS, paths.RESULTS / "tiny", paths.LOCAL / ".." / "tiny"])
def test_committed_results_are_never_the_output(output: Path) -> None:
    with pytest.raises(ValueError, match="committed results"):
        next(redraw.redraw([], output))
    redraw.refuse_committed(paths.LOCAL / "figures")
