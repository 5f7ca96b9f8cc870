"""A notebook runs with plain papermill, from any working directory, and finds params, records and kernel by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from opd_lib import paths

NOTEBOOK = paths.NOTEBOOKS / "09_reward_geometry.ipynb"
PLACES = {"the repository": paths.ROOT, "notebooks": paths.NOTEBOOKS, "elsewhere": None}


@pytest.mark.notebook
@pytest.mark.process
@pytest.mark.parametrize("place", PLACES)
def test_papermill_gives_the_committed_tables(place: str, tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(output), "--no-progress-bar"]
    done = subprocess.run(command, cwd=PLACES[place] or tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed(output) == printed(NOTEBOOK) != []
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"], "its figures and tables go to results/local"


def printed(notebook: Path) -> list[str]:
    """What each cell of a notebook prints, in however many parts it came."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    texts = ["".join(output.text for output in cell.outputs if output.output_type == "stream") for cell in cells]
    return [text for text in texts if text]
