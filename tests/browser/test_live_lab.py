"""A training watched in JupyterLab: the picture grows, buttons stop it and let it go on, other cells run meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import conftest
import nbformat
import pytest
from test_lab import CHROMIUM, RUN_SECONDS, browser, lab, run_all  # noqa: F401

from opd_lib import paths

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")]
CELL = """import sys; sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
import micro
from opd_lib.run import launch
experiment = micro.load(Path({world!r}), overrides={{"train.steps": 3000}})
training = launch.run(experiment, jobs=2, live=True)"""
PICTURE = "[...document.querySelectorAll('img.widget-image')].map(image => image.naturalWidth + ' ' + image.src).join()"


def test_a_training_is_watched_stopped_and_resumed(lab: Any, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    world = conftest.make_world(tmp_path)
    cells = [CELL.format(tests=str(paths.ROOT / "tests"), root=str(paths.ROOT), world=str(world)), "print(6 * 7)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(notebook, lab.folder / "live.ipynb")
    ran = run_all(lab, browser, "live")
    assert ran.cells[1].outputs[0]["text"] == "42\n"
    ran.page.set_default_timeout(RUN_SECONDS * 1000)
    ran.page.wait_for_function(f"() => !/^(0 |$)/.test({PICTURE})")
    first = ran.page.evaluate(PICTURE)
    ran.page.wait_for_function(f"before => {PICTURE} !== before", arg=first)
    ran.page.get_by_role("button", name="Stop").last.click()
    ran.page.get_by_text("stopped: 3 runs to go").wait_for()
    ran.page.get_by_role("button", name="Resume").last.click()
    ran.page.get_by_text("2 running").wait_for()
    ran.page.get_by_role("button", name="Stop").last.click()
    ran.page.get_by_text("stopped: 3 runs to go").wait_for()
    assert ran.errors == [] and ran.outside == []
