"""What the README and the notebooks promise a stranger is true of the tree."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from opd_lib import paths
from opd_lib.bench import speed, targets
from opd_lib.judge import claims
from opd_lib.report import tables

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
TREE = re.search(r"## The tree\n\n```\n(.*?)```", (paths.ROOT / "README.md").read_text(), re.DOTALL)


METHOD = "method"  # the tag of the one cell that may define something: an objective, as one function
CLOCK = re.compile(r"\b[0-2]\d:[0-5]\d:[0-5]\d\b|\b20[2-9]\d-[01]\d-[0-3]\d\b")
NOTEBOOK_MIB, ALL_NOTEBOOKS_MIB = 2.5, 14


def tree_paths() -> list[str]:
    """The paths of the README's tree, with their folders."""
    assert TREE
    found, folder = [], ""
    for line in TREE[1].splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else (name if name.endswith("/") else "")
        found.append(folder + name if line.startswith(" ") else name)
    return found


def tracked() -> list[str]:
    """Files git knows or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=paths.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return listing.stdout.split()


def tags(cell: dict) -> list[str]:  # type: ignore[type-arg]
    found: list[str] = cell["metadata"].get("tags", [])
    return found


def code_cells(path: Path) -> list[dict]:  # type: ignore[type-arg]
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_every_path_of_the_tree_is_there_and_nothing_at_the_top_is_missing_from_it() -> None:
    named = tree_paths()
    assert [name for name in named if not (paths.ROOT / name).exists()] == []
    top = {name.split("/")[0] for name in tracked() if not name.startswith(".")} - {"README.md"}
    assert top == {name.split("/")[0] for name in named}
    library = {name.split("/")[1] for name in tracked() if name.startswith("opd_lib/") and "__init__" not in name}
    assert library == {name.split("/")[1] for name in named if name.startswith("opd_lib/") and name != "opd_lib/"}


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (paths.ROOT / "README.md").read_text())
    assert [link for link in links if "://" not in link and not (paths.ROOT / link).exists()] == []


def test_the_readme_has_the_committed_ratios() -> None:
    found = targets.table(speed.place("tiny", None))
    table = tables.markdown(found.drop(columns=["ours", "theirs"]), digits=2)
    assert table in (paths.ROOT / "README.md").read_text()


def test_every_claim_has_its_notebook_and_every_notebook_its_params() -> None:
    register = claims.load(paths.claims_file("rethinking_opd"))
    assert {claim.notebook for claim in register.claims} <= {path.stem for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        if path.stem in (speed.FOLDER, "91_explore"):
            continue  # they train nothing
        assert paths.params_file(path.stem, "tiny").exists()
        assert paths.params_file(path.stem, "smoke").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_defines_nothing_and_was_run(path: Path) -> None:
    cells = code_cells(path)
    sources = ["".join(cell["source"]) for cell in cells]
    figures = sum("outputs.figure(" in source for source in sources)
    assert len(cells) <= 10 + 2 * figures
    assert [path.stem for cell in cells if METHOD in tags(cell)] in ([], ["92_your_own_method"])
    for cell, source in zip(cells, sources, strict=True):
        assert source.count("\n") < (20 if METHOD in tags(cell) else 12)
        definitions = re.findall(r"^\s*(?:def|class|for|while) .*", source, re.MULTILINE)
        assert definitions == (["def loss(scores, params):"] if METHOD in tags(cell) else [])
        assert cell["execution_count"] is not None, f"never run: {source[:60]}"
        assert not [o for o in cell["outputs"] if o["output_type"] in ("error", "stream") and o.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_carries_no_times_or_paths_and_checks_every_table(path: Path) -> None:
    text = path.read_text()
    assert "start_time" not in text and '"papermill"' not in text
    assert str(paths.ROOT) not in text
    for cell in code_cells(path):
        source = "".join(cell["source"])
        if "outputs.table(" in source:
            assert source.startswith("# NBVAL_CHECK_OUTPUT")
    assert "parameters" in [tag for cell in code_cells(path) for tag in cell["metadata"].get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_differs_from_its_last_execution_only_in_what_it_shows(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [cell.id for cell in notebook.cells] == [f"cell-{number}" for number in range(len(notebook.cells))]
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags"}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        data = output.get("data", {"text/plain": output.get("text", "")})
        assert data.keys() <= {"text/plain", "text/html", "image/png"}, "a live widget is another one each time"
        shown = "".join(text for kind, text in data.items() if kind != "image/png")
        assert not CLOCK.search(shown), "a time of day or a date"


def test_the_notebooks_stay_small() -> None:
    sizes = {path.stem: path.stat().st_size / 2**20 for path in NOTEBOOKS}
    assert {name: size for name, size in sizes.items() if size > NOTEBOOK_MIB} == {}
    assert sum(sizes.values()) < ALL_NOTEBOOKS_MIB


def test_no_committed_text_names_a_path_of_one_machine() -> None:
    private = re.compile(r"(?<![\w.])/(?:home|Users|work|root|tmp)/\w")
    for name in tracked():
        path = paths.ROOT / name
        if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".json", ".ipynb", ".csv", ".jsonl", ".lock"):
            assert not private.search(path.read_text()), name
