"""The site of results of one's own: of a folder or a try, said on every page, of what was executed there alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from test_site import pages_of, read
from typer.testing import CliRunner, Result

from opd_lib import paths
from opd_lib.command import site as command
from opd_lib.command.cli import app
from opd_lib.run import tries
from opd_lib.site import build, files, source
from opd_lib.site.source import Source

NAME = "04_success_and_failure"
LARGE = {"train.steps": 20}


def executed(root: Path, profile: str = "tiny", **told: object) -> Path:
    """A notebook as `opd execute` leaves it, of committed cells, told these parameters; no records."""
    content = json.loads((paths.NOTEBOOKS / f"{NAME}.ipynb").read_text())
    lines = "\n".join(f"{name} = {value!r}" for name, value in {"profile": profile, **told}.items())
    cell = {"cell_type": "code", "id": "told", "metadata": {"tags": ["injected-parameters"]}, "outputs": []}
    content["cells"].insert(2, cell | {"execution_count": 2, "source": f"# Parameters\n{lines}\n"})
    path = root / profile / NAME / "notebook.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Path, Source]]:
    """(output, source) of every site that was to be built; tries stand in a folder of the test."""
    found: list[tuple[Path, Source]] = []
    monkeypatch.setattr(build, "build", lambda output, source: found.append((output, source)) or output)
    monkeypatch.setattr(paths, "VARIANTS", tmp_path / "variants")
    return found


def site(*words: str) -> Result:
    return CliRunner().invoke(app, ["site", *words])


def test_without_a_folder_it_is_what_is_committed(asked: list[tuple[Path, Source]]) -> None:
    assert site().exit_code == 0
    ((output, shown),) = asked
    assert output == paths.LOCAL / "site" and shown.is_committed and shown.notice == ""
    assert shown == source.committed() and list(shown.verdicts.index) == [claim.id for claim in shown.register.claims]


def test_a_folder_shows_what_was_executed_there_judged_from_its_records(
    asked: list[tuple[Path, Source]], tmp_path: Path
) -> None:
    executed(tmp_path, seeds=[0, 1, 2, 3, 4])
    assert site("--results", str(tmp_path)).exit_code == 0
    ((output, shown),) = asked
    assert output == tmp_path / "site" and not shown.is_committed
    assert shown.notice == f"Not the committed results: {tmp_path}, profile tiny"
    assert [notebook.name for notebook in shown.notebooks] == [NAME]
    assert set(shown.verdicts.index) == {claim.id for claim in shown.register.of(NAME)}
    assert set(shown.verdicts["verdict"]) == {"not run"}, "no records, and those that are committed are not read"
    shutil.copytree(paths.RESULTS / "tiny" / NAME, tmp_path / "tiny" / NAME, dirs_exist_ok=True)
    site("--results", str(tmp_path))
    there, committed = asked[-1][1].verdicts.loc["C4s"], source.read().set_index("id").loc["C4s"]  # of two arms of 04
    assert there["verdict"] == committed["verdict"] and there["low"] == pytest.approx(committed["low"])


def test_verdicts_that_were_written_are_taken(asked: list[tuple[Path, Source]], tmp_path: Path) -> None:
    executed(tmp_path)
    text = (paths.RESULTS / "tiny" / source.FILE).read_text()
    (tmp_path / "tiny" / source.FILE).write_text(text)
    site("--results", str(tmp_path))
    committed = source.read().set_index("id")["verdict"]
    shown = asked[-1][1].verdicts["verdict"]
    assert len(shown) and shown.to_dict() == committed.loc[shown.index].to_dict()


@pytest.mark.parametrize("called", ["short", "HASH", "PATH"])
def test_a_try_is_shown_by_name_by_hash_and_by_its_folder(
    asked: list[tuple[Path, Source]], monkeypatch: pytest.MonkeyPatch, called: str
) -> None:
    made = tries.begin(tries.place(LARGE), LARGE, "short")
    executed(made.folder, overrides=LARGE, seeds=[0])
    loaded: list[Any] = []
    monkeypatch.setattr("opd_lib.run.notebook.judged", lambda experiment: loaded.append(experiment))
    done = site("--results", {"HASH": made.folder.name, "PATH": str(made.folder)}.get(called, called))
    assert done.exit_code == 0, done.output
    ((output, shown),) = asked
    assert output == made.folder / "site" and shown.root == made.folder / "tiny"
    assert shown.notice == f"Not the committed results: the try short, {made.folder}, profile tiny"
    (experiment,) = loaded
    assert (experiment.overrides, experiment.seeds, experiment.results) == (LARGE, (0,), None)


def test_of_several_profiles_one_is_chosen(asked: list[tuple[Path, Source]], tmp_path: Path) -> None:
    for profile in ("tiny", "smoke"):
        executed(tmp_path, profile)
    done = site("--results", str(tmp_path))
    assert done.exit_code == 1 and "profiles smoke, tiny; choose a --profile" in done.stderr
    assert site("--results", str(tmp_path), "--profile", "smoke").exit_code == 0
    assert asked[-1][1].profile == "smoke"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--results", "EMPTY"),
            "no executed notebook in it (PROFILE/NOTEBOOK/notebook.ipynb); `opd reproduce` leaves",
        ),
        (
            ("--results", "MINE", "--profile", "smoke"),
            "no executed notebook of profile smoke (there are those of tiny)",
        ),
        (("--results", "nowhere"), "--results nowhere: no such folder; 'nowhere': no such try in"),
        (("--profile", "smoke"), "--profile smoke: is that of a --results folder"),
    ],
)
def test_what_has_nothing_to_show_is_one_error(
    asked: list[tuple[Path, Source]], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    executed(tmp_path / "MINE")
    (tmp_path / "EMPTY").mkdir()
    done = site(*(str(tmp_path / word) if word.isupper() else word for word in words))
    assert done.exit_code == 1 and said in done.stderr and done.stderr.count("\n") == 1 and not asked


def test_the_pages_say_whose_they_are_and_every_link_leads_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [path for path in files.modules() if path.parent.name in ("judge", "methods")]
    monkeypatch.setattr(files, "modules", lambda: tuple(modules))
    executed(tmp_path, overrides={"train.steps": 120}, seeds=[0, 1, 2, 3, 4])
    shutil.copytree(paths.RESULTS / "tiny" / NAME, tmp_path / "tiny" / NAME, dirs_exist_ok=True)
    made = build.build(tmp_path / "site", command._own(tmp_path, None)).parent
    found, broken = pages_of(made), []
    for page in found:
        assert f"Not the committed results: {tmp_path}, profile tiny" in page.read_text(encoding="utf-8"), page
        for target in [*read(page).targets, *read(page).loaded]:
            address, anchor = urldefrag(target)
            there = (page.parent / unquote(address.partition("?")[0])).resolve() if address else page
            if urlparse(address).scheme:
                continue
            if not there.is_file() or (anchor and there.suffix == ".html" and anchor not in read(there).anchors):
                broken.append(f"{page.relative_to(made)}: {target}")
    assert broken == []
    assert [page.stem for page in found if page.parent.name == "notebooks"] == [NAME]
    first = (made / "index.html").read_text(encoding="utf-8")
    assert "Results of your own" in first and "train.steps" in first and "What holds" not in first
