"""Copies of the notebooks: what was changed is kept, what was not is brought up to date, originals stay untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from opd_lib import paths
from opd_lib.batch import lab
from opd_lib.command import cli
from opd_lib.command import lab as command

NAME = "04_a.ipynb"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two original notebooks; copies go to `lab` beside them."""
    for name in (NAME, "05_b.ipynb"):
        write(tmp_path / "notebooks" / name, f"print('{name}')", "1")
    return tmp_path


def write(path: Path, source: str, shown: str) -> None:
    """A notebook of one cell that was executed."""
    output = nbformat.v4.new_output("execute_result", {"text/plain": shown}, execution_count=1)
    cell = nbformat.v4.new_code_cell(source, execution_count=1, outputs=[output], id="cell-0")
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def copy(place: Path) -> dict[str, str]:
    """File → what became of it."""
    return {each.path.name: each.what for each in lab.copy_all(place / "notebooks", place / "lab")}


def edit(path: Path, source: str) -> bytes:
    """Say something else in the last cell of a copy, as an editor saves it."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source = source
    nbformat.write(notebook, path)
    return path.read_bytes()


def last_cell(path: Path) -> str:
    return str(nbformat.read(path, as_version=4).cells[-1].source)


def test_a_fresh_copy_is_the_original_below_a_cell_that_says_so(place: Path) -> None:
    assert copy(place) == {NAME: lab.MADE, "05_b.ipynb": lab.MADE}
    made, original = (nbformat.read(place / folder / NAME, as_version=4) for folder in ("lab", "notebooks"))
    nbformat.validate(made)
    assert made.cells[1:] == original.cells and made.metadata == original.metadata
    assert made.cells[0].cell_type == "markdown" and f"copy** of `notebooks/{NAME}`" in made.cells[0].source
    before = (place / "lab" / NAME).stat()
    assert copy(place) == {NAME: lab.KEPT, "05_b.ipynb": lab.KEPT}
    assert (place / "lab" / NAME).stat().st_ino == before.st_ino, "written again although nothing was new"


def test_a_copy_that_was_only_opened_is_refreshed_when_the_original_is_newer(place: Path) -> None:
    copy(place)
    opened = nbformat.read(place / "lab" / NAME, as_version=4)
    opened.metadata.language_info = {"name": "python", "version": "3.11.7"}  # as starting a kernel does
    opened.cells[1].metadata["scrolled"] = True
    opened.cells[1].execution_count = 7
    nbformat.write(opened, place / "lab" / NAME)
    write(place / "notebooks" / NAME, "print('newer')", "1")
    assert copy(place) == {NAME: lab.REFRESHED, "05_b.ipynb": lab.KEPT}
    assert last_cell(place / "lab" / NAME) == "print('newer')"


@pytest.mark.parametrize("change", ["source", "output"])
def test_a_changed_copy_is_kept_and_a_newer_original_put_beside_it_once(place: Path, change: str) -> None:
    copy(place)
    mine = place / "lab" / NAME
    if change == "source":
        edit(mine, "mine")
    else:
        notebook = nbformat.read(mine, as_version=4)
        notebook.cells[-1].outputs[0].data["text/plain"] = "what I computed"
        nbformat.write(notebook, mine)
    kept = mine.read_bytes()
    assert copy(place)[NAME] == lab.KEPT, "the original is the same"

    write(place / "notebooks" / NAME, "newer", "2")
    assert copy(place) == {"04_a.new.ipynb": lab.NEW, "05_b.ipynb": lab.KEPT}
    beside = place / "lab" / "04_a.new.ipynb"
    assert mine.read_bytes() == kept and last_cell(beside) == "newer"
    beside.unlink()
    assert copy(place)[NAME] == lab.KEPT and not beside.exists(), "seen and deleted"

    write(place / "notebooks" / NAME, "newer still", "3")
    assert copy(place)["04_a.new.ipynb"] == lab.NEW
    edit(beside, "mine, too")
    write(place / "notebooks" / NAME, "newest", "4")
    assert copy(place)["04_a.new-2.ipynb"] == lab.NEW
    assert (last_cell(beside), last_cell(place / "lab" / "04_a.new-2.ipynb")) == ("mine, too", "newest")
    assert mine.read_bytes() == kept


def test_a_newer_one_that_takes_the_place_of_the_changed_copy_is_refreshed_again(place: Path) -> None:
    copy(place)
    edit(place / "lab" / NAME, "mine")
    write(place / "notebooks" / NAME, "newer", "2")
    copy(place)
    os.replace(place / "lab" / "04_a.new.ipynb", place / "lab" / NAME)
    write(place / "notebooks" / NAME, "newest", "3")
    assert copy(place)[NAME] == lab.REFRESHED and last_cell(place / "lab" / NAME) == "newest"


def test_a_deleted_copy_comes_back(place: Path) -> None:
    copy(place)
    edit(place / "lab" / NAME, "mine")
    (place / "lab" / NAME).unlink()
    assert copy(place) == {NAME: lab.MADE, "05_b.ipynb": lab.KEPT}
    assert last_cell(place / "lab" / NAME) == f"print('{NAME}')"


def test_what_is_no_notebook_any_more_counts_as_changed(place: Path) -> None:
    copy(place)
    (place / "lab" / NAME).write_text("{ half a note")
    write(place / "notebooks" / NAME, "newer", "2")
    assert copy(place)["04_a.new.ipynb"] == lab.NEW
    assert (place / "lab" / NAME).read_text() == "{ half a note"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"04_a.ipynb": 3}', '{"04_a.ipynb": {"original": "", "written": [1]}}', "\xff"]
)
def test_a_damaged_manifest_is_one_error_and_without_it_everything_is_kept(place: Path, content: str) -> None:
    copy(place)
    kept = edit(place / "lab" / NAME, "mine")
    manifest = place / "lab" / lab.MANIFEST
    manifest.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"\.copies\.json: .*; delete it: every copy .* is kept") as error:
        copy(place)
    assert "\n" not in str(error.value)
    manifest.unlink()
    assert copy(place) == {"04_a.new.ipynb": lab.NEW, "05_b.ipynb": lab.KEPT}
    assert (place / "lab" / NAME).read_bytes() == kept


def test_a_file_in_the_place_of_the_folder_is_one_error(place: Path) -> None:
    (place / "lab").write_text("")
    with pytest.raises(ValueError, match=r"lab: cannot be written .*File exists"):
        copy(place)


def test_git_does_not_see_copies_whatever_is_done_to_them(place: Path) -> None:
    shutil.copy(paths.ROOT / ".gitignore", place)
    git = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "originals"]):
        subprocess.run([*git, *words], check=True)
    copy(place)
    edit(place / "lab" / NAME, "mine")
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_make_clean_keeps_them() -> None:
    text = (paths.ROOT / "Makefile").read_text()
    recipe = text.partition("\nclean:")[2].partition("\n\n")[0].split("\n", 1)[1]
    assert "results/local" in recipe and paths.COPIES.name not in recipe.split()


@pytest.mark.parametrize("is_root", [True, False])
def test_jupyterlab_may_run_as_root_only_for_root_and_asks_for_no_news(place: Path, is_root: bool) -> None:
    copy(place)
    words = lab.command(place / "lab", ["--no-browser", "--port=8890"], is_root)
    assert words[:4] == [sys.executable, "-m", "jupyterlab", str(place / "lab")]
    assert ("--allow-root" in words) == is_root and words[-2:] == ["--no-browser", "--port=8890"]


def test_jupyterlab_knows_the_setting_that_turns_the_news_off(place: Path) -> None:
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (extra lab)")
    from jupyterlab.labapp import LabApp
    from jupyterlab_server.settings_utils import get_settings
    from traitlets.config.loader import KVArgParseConfigLoader

    copy(place)
    app = LabApp(config=KVArgParseConfigLoader(lab.command(place / "lab")[4:6]).load_config())
    assert app.news_url is None and Path(app.app_settings_dir) == place / "lab" / lab.SETTINGS
    for plugin, said in lab.OVERRIDES.items():
        overrides = json.loads((place / "lab" / lab.SETTINGS / "overrides.json").read_text())
        found, _ = get_settings(app.app_settings_dir, app.schemas_dir, str(place / "own"), plugin, overrides)
        properties = found["schema"]["properties"]
        assert {key: properties[key]["default"] for key in said} == said
        assert all({"type", "title"} <= properties[key].keys() for key in said), "a key that the schema does not have"


def test_the_command_says_what_has_happened_and_gives_its_options_to_jupyterlab(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[list[str]] = []
    monkeypatch.setattr(lab.copy_all, "__defaults__", (place / "notebooks", place / "lab"))
    monkeypatch.setattr(command.os, "execv", lambda program, words: began.append(words))
    done = CliRunner().invoke(cli.app, ["lab", "--copy-only"])
    assert done.exit_code == 0 and f"copied: {NAME}, 05_b.ipynb\n2 notebooks" in done.stderr and began == []
    assert CliRunner().invoke(cli.app, ["lab", "--", "--no-browser", "--port=8890"]).exit_code == 0
    assert began[0][-2:] == ["--no-browser", "--port=8890"]
    assert {*command.SAID} | {lab.KEPT} == {lab.KEPT, lab.NEW, lab.MADE, lab.REFRESHED}


def test_notebooks_find_params_and_results_from_where_the_copies_are(place: Path) -> None:
    code = (
        "from opd_lib.run import notebook; e, o = notebook.begin('04_success_and_failure'); print(e.source, e.output)"
    )
    copy(place)
    done = subprocess.run([sys.executable, "-c", code], cwd=place / "lab", capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        str(paths.params_file("04_success_and_failure", "tiny")),
        str(paths.LOCAL / "tiny" / "04_success_and_failure"),
    ]
