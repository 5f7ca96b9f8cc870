"""A notebook in JupyterLab, as a reader opens it: all cells run, tables and pictures are the committed ones."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chromium
import conftest
import drawing
import kept
import nbformat
import pytest

from opd_lib import params, paths
from opd_lib.batch import redraw
from opd_lib.run import guard

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (extra lab)")
pytestmark = pytest.mark.browser
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page
}
NOTEBOOK, EXPLORER = "04_success_and_failure", "91_explore"
READS = {NOTEBOOK: (NOTEBOOK,), EXPLORER: (NOTEBOOK, "06_cold_start", "09_reward_geometry")}
WIDGET = 'explore.tokens(pair, ["success", "failure"]).widget()'
START_SECONDS, RUN_SECONDS = 180, 240
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.textContent)"
QUEUED = f"() => {PROMPTS}.some(text => text.includes('*'))"
ERROR = ".jp-OutputArea-output[data-mime-type*=error]"
RAN = f"() => document.querySelector('{ERROR}') !== null || {PROMPTS}.every(text => /\\[\\d+\\]/.test(text))"

THEME = "theme => jupyterapp.commands.execute('apputils:change-theme', {theme: `JupyterLab ${theme}`})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A running JupyterLab: its folder of notebooks, its address and token."""

    folder: Path
    url: str
    token: str

    def address(self, notebook: str) -> str:
        """A workspace for each: another would show the notebooks of the last page, too."""
        return f"{self.url}/lab/workspaces/{notebook}/tree/{notebook}.ipynb?token={self.token}"


@pytest.fixture(scope="module")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on copies of the notebooks, with settings, workspaces and results of its own.

    The user's own kernel named python3 is another, broken one: the notebooks must get the one of this environment.
    """
    root = tmp_path_factory.mktemp("lab")
    folder = root / "notebooks"
    folder.mkdir()
    for name in READS:
        copy_notebook(name, folder, root / "results")
    for name, settings in SETTINGS.items():
        file = root / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    kernel = root / "data" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["false"], "display_name": "of another project", "language": "python"}))
    port, token = 20_000 + secrets.randbelow(20_000), secrets.token_hex(16)  # the server takes another if it is in use
    names = ("config", "data", "runtime")
    places = {f"JUPYTER_{name.upper()}_DIR": str(root / name) for name in names}
    places |= {f"JUPYTERLAB_{name.upper()}_DIR": str(root / name) for name in ("settings", "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", str(folder), "--no-browser", f"--port={port}", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    with (root / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | places | {"IPYTHONDIR": str(root / "ipython")}, stdout=log, stderr=log
        )
    try:
        yield Lab(folder=folder, url=address_once_it_answers(root, token, process), token=token)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server, which ends its kernels; what is left of them after 30 s is killed."""
    kernels = guard.descendants(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()
    process.wait()
    guard.end(kernels)


def copy_notebook(name: str, folder: Path, results: Path) -> None:
    """A notebook without outputs whose parameters name `results`, a folder of links to the committed records."""
    for experiment in READS[name]:
        redraw.link(redraw.finished(params.load(experiment)), results)
    notebook = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            assert "\nresults = None" in cell.source
            cell.source = cell.source.replace("\nresults = None", f"\nresults = {str(results)!r}")
    if name == EXPLORER:
        notebook.cells.append(nbformat.v4.new_code_cell(WIDGET))
    nbformat.write(notebook, folder / f"{name}.ipynb")


def address_once_it_answers(root: Path, token: str, process: subprocess.Popen[bytes]) -> str:
    """Where the server says that it listens."""
    told = root / "runtime" / f"jpserver-{process.pid}.json"
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, json.JSONDecodeError):
            url = f"http://127.0.0.1:{json.loads(told.read_text())['port']}"
            with urllib.request.urlopen(f"{url}/api/status?token={token}", timeout=5):
                return url
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{(root / 'log.txt').read_text()[-2000:]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A notebook after Run All Cells: its page, what went wrong or outside, and the code cells of its saved file."""

    page: Any
    errors: list[str]
    outside: list[str]
    cells: list[Any]


def run_all(lab: Lab, browser: Any, name: str) -> Ran:
    """Open a notebook, run all of it, wait until every cell has a number, save it."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(START_SECONDS * 1000)
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(lab.address(name))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    end = time.monotonic() + RUN_SECONDS
    while not page.evaluate(RAN):
        assert time.monotonic() < end, f"not done after {RUN_SECONDS} s"
        if not page.evaluate(QUEUED):  # before the kernel is connected, Run All Cells is forgotten
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(1000)
    assert page.locator(ERROR).all_inner_texts() == []
    path = lab.folder / f"{name}.ipynb"
    while any(cell.execution_count is None for cell in code_cells(path)):
        assert time.monotonic() < end, "not saved"
        page.locator(".jp-NotebookPanel-toolbar [data-command='docmanager:save']").click()
        page.wait_for_timeout(1000)
    outside = [url for url in requests if not url.startswith((lab.url, "data:", "blob:"))]
    return Ran(page=page, errors=errors, outside=outside, cells=code_cells(path))


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def ran(lab: Lab, browser: Any) -> Ran:
    return run_all(lab, browser, NOTEBOOK)


def test_tables_and_pictures_are_the_committed_ones(ran: Ran) -> None:
    committed = code_cells(paths.NOTEBOOKS / f"{NOTEBOOK}.ipynb")
    assert len(ran.cells) == len(committed)
    for ours, theirs in zip(ran.cells, committed, strict=True):
        assert [comparable(output) for output in ours.outputs] == [comparable(output) for output in theirs.outputs]


def comparable(output: Any) -> Any:
    """What two executions must have in common: of a picture the bytes where the drawing program is the same."""
    if output.output_type == "stream":
        return output.name, output.text
    data = dict(output.data)
    if "image/png" in data and not drawing.same_program():
        data["image/png"] = "a picture"
    if kept.PAYLOAD.search(data.get("text/html", "")):
        page = data["text/html"]
        data["text/html"] = kept.PAYLOAD.sub("", page), kept.unpacked(page)
    return output.output_type, data


def test_every_picture_is_shown_and_nothing_else_happens(ran: Ran) -> None:
    pictures = sum("image/png" in output.get("data", {}) for cell in ran.cells for output in cell.outputs)
    shown = ran.page.evaluate("() => [...document.querySelectorAll('.jp-OutputArea img')].map(i => i.naturalWidth)")
    assert len(shown) == pictures > 0 and min(shown) > 300
    assert ran.page.locator(".jp-OutputArea-output[data-mime-type*=stderr]").count() == 0
    assert ran.page.locator(".jp-Dialog").count() == 0
    assert ran.errors == [] and ran.outside == []


@pytest.fixture(scope="module")
def explored(lab: Lab, browser: Any) -> Ran:
    return run_all(lab, browser, EXPLORER)


def test_the_explorers_are_the_committed_ones(explored: Ran) -> None:
    *cells, widget = explored.cells
    committed = code_cells(paths.NOTEBOOKS / f"{EXPLORER}.ipynb")
    shown = [[comparable(output) for output in cell.outputs] for cell in cells]
    assert shown == [[comparable(output) for output in cell.outputs] for cell in committed]
    assert ["application/vnd.jupyter.widget-view+json" in output.data for output in widget.outputs] == [True]
    assert explored.errors == [] and explored.outside == []


@pytest.mark.parametrize("text", ['explore.tokens(pair, ["success", "failure"])', WIDGET], ids=["page", "widget"])
def test_the_slider_recolours_the_tokens(explored: Ran, text: str) -> None:
    number = [cell.source for cell in explored.cells].index(text)
    explorer = explored.page.locator(".jp-CodeCell").nth(number)
    explorer.scroll_into_view_if_needed()  # what is far away is not drawn
    slider = explorer.get_by_role("slider")
    slider.wait_for()
    first, colours = slider.get_attribute("aria-valuetext"), colours_of(explorer)
    assert first.startswith("step ") and len(set(colours)) > 2
    slider.focus()
    explored.page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") != first
    assert colours_of(explorer) != colours


def colours_of(explorer: Any) -> list[str]:
    """The background of every token that is shown."""
    tokens = explorer.locator("[role=option]:not([hidden])")
    tokens.first.wait_for()
    found: list[str] = tokens.evaluate_all("tokens => tokens.map(token => getComputedStyle(token).backgroundColor)")
    return found


def paint(page: Any, theme: str) -> None:
    """Give JupyterLab one of its themes, Light or Dark."""
    page.evaluate(THEME, theme)
    page.locator(f"body[data-jp-theme-name='JupyterLab {theme}']").wait_for(state="attached")


EXPLORERS = "[...document.querySelectorAll('.jp-OutputArea *')].filter(part => part.shadowRoot)"
PAINTED = f"() => {EXPLORERS}.map(part => part.hasAttribute('data-dark') && getComputedStyle(part).colorScheme)"


@pytest.mark.parametrize("width", [1366, 800])
@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_verdicts_are_legible_and_pictures_suit_the_page(ran: Ran, theme: str, width: int, tmp_path: Path) -> None:
    before = ran.page.viewport_size
    ran.page.set_viewport_size({"width": width, "height": 1000})
    paint(ran.page, theme)
    found = ran.page.evaluate(chromium.BADGES, ".opd-table .verdict")
    filters = ran.page.evaluate(
        "[...document.querySelectorAll('.jp-RenderedImage img')].map(i => getComputedStyle(i).filter)"
    )
    ran.page.screenshot(path=tmp_path / f"verdicts_{width}_{theme}.png")
    ran.page.set_viewport_size(before)
    paint(ran.page, "Light")
    assert len(found) >= 20 and [word for word, contrast, _ in found if contrast < 4.5] == []
    assert [word for word, _, in_view in found if not in_view] == []
    assert filters and {each == "none" for each in filters} == {theme == "Light"}


def test_explorers_are_dark_on_a_dark_page(explored: Ran, tmp_path: Path) -> None:
    for theme, scheme in (("Dark", "dark"), ("Light", False)):
        paint(explored.page, theme)
        explored.page.wait_for_function(
            f"scheme => (found => found.length && found.every(each => each === scheme))(({PAINTED})())", arg=scheme
        )
        explored.page.screenshot(path=tmp_path / f"explorer_{theme}.png")


# A training is watched: the picture grows, buttons stop it and let it go on, other cells run meanwhile.

LIVE = """import sys; sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
import micro
from opd_lib.run import launch
experiment = micro.load(Path({world!r}), overrides={{"train.steps": 3000}})
training = launch.run(experiment, jobs=2, live=True)"""
PICTURE = "[...document.querySelectorAll('img.widget-image')].map(image => image.naturalWidth + ' ' + image.src).join()"


@pytest.fixture
def live(lab: Lab, browser: Any, tmp_path: Path) -> Ran:
    """A notebook whose first cell trains in the background; its page."""
    world = conftest.make_world(tmp_path)
    cells = [LIVE.format(tests=str(paths.ROOT / "tests"), root=str(paths.ROOT), world=str(world)), "print(6 * 7)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in [*cells, "training"]])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(notebook, lab.folder / "live.ipynb")
    ran = run_all(lab, browser, "live")
    ran.page.set_default_timeout(RUN_SECONDS * 1000)
    ran.page.wait_for_function(f"() => !/^(0 |$)/.test({PICTURE})")
    return ran


def test_a_training_is_watched_stopped_and_resumed(live: Ran) -> None:
    assert live.cells[1].outputs[0]["text"] == "42\n"
    assert "3 runs, training; runs() waits" in live.cells[2].outputs[0]["data"]["text/plain"]
    first = live.page.evaluate(PICTURE)
    live.page.wait_for_function(f"before => {PICTURE} !== before", arg=first)
    live.page.get_by_role("button", name="Stop").last.click()
    live.page.get_by_text("stopped: 3 runs to go").wait_for()
    live.page.get_by_role("button", name="Resume").last.click()
    live.page.get_by_text("2 running").wait_for()
    live.page.get_by_role("button", name="Stop").last.click()
    live.page.get_by_text("stopped: 3 runs to go").wait_for()
    assert live.errors == [] and live.outside == []


RESTART = "() => {jupyterapp.commands.execute('kernelmenu:restart')}"
PARTS = ".opd-live-text pre, .opd-live-picture, .opd-live-control"
FITS = f"""() => [...document.querySelectorAll('{PARTS}')].every(part => {{
    const cell = part.closest('.jp-OutputArea-output').getBoundingClientRect()
    return part.getBoundingClientRect().right <= cell.right + 1
}})"""
COLUMN_OF_PICTURES = (
    "[...document.querySelectorAll('.opd-live-picture')].map(image => image.getBoundingClientRect().left)"
)
FILTER = "getComputedStyle(document.querySelector('.opd-live-picture')).filter"


def test_a_live_panel_fits_its_page_and_says_when_its_kernel_has_ended(live: Ran, tmp_path: Path) -> None:
    page = live.page
    for column, tag in (("loss", "loss"), ("grad_norm", "gradient norm")):  # by name or as in the tables
        page.get_by_placeholder("choose a curve").fill(column)
        page.keyboard.press("Enter")
        page.locator(".jupyter-widget-tag", has_text=tag).wait_for()
    page.wait_for_function(f"() => {COLUMN_OF_PICTURES}.length === 2")
    for width, columns in ((1366, 2), (800, 1)):
        page.set_viewport_size({"width": width, "height": 1000})
        for theme in ("Light", "Dark"):
            paint(page, theme)
            page.wait_for_function(f"() => new Set({COLUMN_OF_PICTURES}).size === {columns}")
            assert page.evaluate(FITS) and (page.evaluate(FILTER) == "none") == (theme == "Light")
            page.screenshot(path=tmp_path / f"live_{width}_{theme}.png")
    stop, ended = page.get_by_role("button", name="Stop").last, page.get_by_text("The kernel of this panel has ended")
    assert stop.is_visible() and not ended.is_visible()
    page.evaluate(RESTART)
    page.locator(".jp-Dialog .jp-mod-accept").click()
    ended.wait_for()
    assert not stop.is_visible() and page.get_by_text(re.compile(r"as of \d\d:\d\d:\d\d")).is_visible()
    page.screenshot(path=tmp_path / "restarted.png")
    assert live.errors == [] and live.outside == []
