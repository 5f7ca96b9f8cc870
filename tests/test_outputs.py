"""What is committed is what the committed records say: figures by their numbers, tables, pictures by their bytes."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import drawing
import nbformat
import pandas as pd
import pytest

from opd_lib import params, paths
from opd_lib.batch import redraw
from opd_lib.bench import speed
from opd_lib.report.figures import Chart
from opd_lib.report.outputs import Outputs
from opd_lib.run import plan

PROFILE = "tiny"
EXPERIMENTS = plan.notebooks(PROFILE)
NOTEBOOKS = sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
TOLERANCE = 1e-5
"""Of numbers that machines may round in another way, relative; figures keep six digits."""
FIGURE = re.compile(r'outputs\.figure\(\s*"(\w+)"')
pytestmark = pytest.mark.notebook


@pytest.fixture(scope="module", params=NOTEBOOKS)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Any]]:
    """A notebook's name, the folder of what its cells leave on the committed records, and its pictures by name."""
    folder, pictures = tmp_path_factory.mktemp(request.param), {}
    write = Outputs.figure

    def figure(outputs: Outputs, name: str, chart: Chart, claims: Sequence[str] | None = None) -> None:
        write(outputs, name, chart, claims)
        pictures[name] = chart.png() if drawing.same_program() else b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outputs, "figure", figure)
        made = folder / request.param if request.param == speed.FOLDER else folder / PROFILE / request.param
        if request.param == speed.FOLDER:  # it has measurements instead of records
            shutil.copytree(paths.RESULTS / PROFILE / speed.FOLDER, made, ignore=shutil.ignore_patterns("figures"))
            asked = {"results": str(made)}
        else:
            for name in (request.param,) if request.param in EXPERIMENTS else EXPERIMENTS:
                redraw.link(redraw.finished(params.load(name, PROFILE)), folder)
            asked = {"results": str(folder)}
        redraw.execute(paths.NOTEBOOKS / f"{request.param}.ipynb", asked)
    yield request.param, made, pictures
    shutil.rmtree(folder)


def committed(name: str, kind: str, suffix: str) -> dict[str, Path]:
    return {path.stem: path for path in (paths.RESULTS / PROFILE / name / kind).glob(f"*{suffix}")}


def test_the_figures_show_the_same_numbers(drawn: tuple[str, Path, Any]) -> None:
    name, folder, _ = drawn
    made = {path.stem: path for path in (folder / "figures").glob("*.json")}
    shown = committed(name, "figures", ".json")
    assert made.keys() == shown.keys() == committed(name, "figures", ".svg").keys()
    for figure, path in shown.items():
        ours, theirs = (json.loads(file.read_text()) for file in (made[figure], path))
        assert words(ours) == words(theirs), f"{name}: {figure}"
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=TOLERANCE, abs=TOLERANCE / 10), f"{name}: {figure}"


def words(content: Any) -> Any:
    """A figure's JSON with 0 in the place of every number."""
    if isinstance(content, dict):
        return {key: words(child) for key, child in content.items()}
    if isinstance(content, list):
        return [words(child) for child in content]
    return 0 if isinstance(content, int | float) else content


def numbers(content: Any) -> list[float]:
    """The numbers of a figure's JSON in their order."""
    if isinstance(content, dict | list):
        children = content.values() if isinstance(content, dict) else content
        return [number for child in children for number in numbers(child)]
    return [content] if isinstance(content, int | float) else []


def test_the_tables_say_the_same(drawn: tuple[str, Path, Any]) -> None:
    name, folder, _ = drawn
    made = {path.stem: path for path in (folder / "tables").glob("*.csv")}
    shown = committed(name, "tables", ".csv")
    assert made.keys() == shown.keys()
    for table, path in shown.items():
        ours, theirs = pd.read_csv(made[table]), pd.read_csv(path)
        pd.testing.assert_frame_equal(ours, theirs, rtol=TOLERANCE, obj=f"{name}: {table}")


@pytest.mark.skipif(not drawing.same_program(), reason="another matplotlib or machine than that of the committed files")
def test_drawings_and_the_notebooks_pictures_are_the_same_bytes(drawn: tuple[str, Path, Any]) -> None:
    name, folder, pictures = drawn
    for figure, path in committed(name, "figures", ".svg").items():
        assert (folder / "figures" / f"{figure}.svg").read_bytes() == path.read_bytes(), f"{name}: {figure}"
    shown = dict(pictures_in(paths.NOTEBOOKS / f"{name}.ipynb"))
    assert shown == pictures


def pictures_in(notebook: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures in a committed notebook by the name of the figure that their cell makes."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        found = FIGURE.search(cell.source)
        if cell.cell_type == "code" and found:
            (picture,) = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
            yield found[1], base64.b64decode(picture)
