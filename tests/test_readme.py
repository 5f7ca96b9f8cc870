"""What the README and the notebooks promise a stranger is true of the tree."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
import typer
from pydantic import ValidationError
from ruamel.yaml import YAML
from test_methods_exact import close, draw, gradient, score

from opd_lib import methods, params, paths
from opd_lib.batch import front, refresh
from opd_lib.bench import speed, targets
from opd_lib.command import cli
from opd_lib.engine import memory
from opd_lib.judge import claims
from opd_lib.judge.quantities import Evidence
from opd_lib.methods import sft
from opd_lib.params.schema import NewModel, RunParams
from opd_lib.report import tables

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
README, LAYOUT = paths.ROOT / "README.md", paths.ROOT / "docs" / "layout.md"
PAGES = [README, paths.ROOT / "CONTRIBUTING.md", refresh.CLAIMS_PAGE, *sorted(LAYOUT.parent.glob("*.md"))]
LINES = 150  # of the README: a stranger finds the way in a minute
TREE = re.search(r"```\n(.*?)```", LAYOUT.read_text(), re.DOTALL)

PRINTS = re.compile(r"outputs\.(?:table|figure|verdicts)\(")
METHOD = "method"  # the tag of the one cell that may define something: an objective, as one function
CLOCK = re.compile(r"\b[0-2]\d:[0-5]\d:[0-5]\d\b|\b20[2-9]\d-[01]\d-[0-3]\d\b")
NOTEBOOK_MIB, ALL_NOTEBOOKS_MIB = 2.5, 14


def tree_paths() -> list[str]:
    """The paths of the tree in docs/layout.md, with their folders."""
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


def code_of(text: str) -> list[str]:
    """What a page has as code: the lines of its blocks, and what stands between backquotes in its sentences."""
    parts = re.split(r"^```.*$", text, flags=re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", " ".join(parts[::2]))
    return [*(line for block in parts[1::2] for line in block.splitlines()), *(" ".join(s.split()) for s in spans)]


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


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text()
    assert text.count("\n") <= LINES
    assert [page.name for page in PAGES[1:] if f"]({page.relative_to(paths.ROOT).as_posix()})" not in text] == []


def test_the_page_of_methods_has_each_with_the_words_of_its_file() -> None:
    page = (paths.ROOT / "docs" / "methods.md").read_text()
    for name in methods.names():
        words = (
            (ast.get_docstring(ast.parse(methods.file(name).read_text())) or "").partition("\n\n")[0].replace("\n", " ")
        )
        assert page.count(f"| [`{name}`](../opd_lib/methods/{name}.py) | {words} |") == 1, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(paths.ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(paths.ROOT).as_posix())
def test_every_command_and_option_that_a_page_names_is_there(page: Path) -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    targets_there = set(re.findall(r"^([a-z-]+):", (paths.ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code_of(page.read_text()):
        for name, rest in re.findall(r"^(?:\.venv/bin/)?opd ([a-z]+)\b([^#]*)", line):
            options = {option for each in commands[name].params for option in (*each.opts, *each.secondary_opts)}
            assert set(re.findall(r"--[a-z-]+", rest)) <= options, line
        assert set(re.findall(r"^make ([a-z][a-z-]+)\b", line)) <= targets_there, line


def test_numbers_that_the_readme_says_in_passing_are_those_of_the_files() -> None:
    text, minutes = " ".join(README.read_text().split()), seed_minutes()
    small, large = (re.sub(r"\D", "", number) for number in found(r"of ([\d,]+) to ([\d,]+) parameters", text))
    sizes = [memory.new_shape(arm).parameters for arm in models_made("tiny")]
    assert (int(small), int(large)) == (round(min(sizes), -3), round(max(sizes), -4))
    least, most = map(float, found(r"takes (\d+) to (\d+) minutes a seed", text))
    assert minutes / 2 < least < most < minutes, "on two cores: the runs in parallel, then the notebooks"
    makefile = (paths.ROOT / "Makefile").read_text()
    assert found(r'TORCH="(torch==[\d.]+)', text) == found(r"TORCH_DEFAULT := (\S+)", makefile)
    allowed = found(r'requires-python = ">=([\d.]+)"', (paths.ROOT / "pyproject.toml").read_text())
    assert found(r"need Python ([\d.]+) to", text) == allowed


def found(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of what a text says once."""
    (match,) = re.finditer(pattern, text)
    return match.groups()


def models_made(profile: str) -> list[RunParams]:
    """The arms that begin with a new model."""
    arms = params.load("00_models", profile).arms.values()
    return [arm for arm in arms if isinstance(arm.student, NewModel)]


def seed_minutes() -> float:
    """What a seed of every run takes on one core, by the README's table, which is that of the committed records."""
    rows = [line.split("|") for line in README.read_text().splitlines() if line.startswith("|") and ".ipynb" in line]
    return sum(float(row[-2].strip() or 0) for row in rows)


def test_the_page_of_speed_has_the_committed_ratios() -> None:
    found = targets.table(speed.place("tiny", None))
    table = tables.markdown(found.drop(columns=["ours", "theirs"]), digits=2)
    assert table in (paths.ROOT / "docs" / "speed.md").read_text()


def test_findings_and_tables_are_those_of_the_committed_records(tmp_path: Path) -> None:
    copies = []
    for page in (README, refresh.CLAIMS_PAGE):
        copies.append(tmp_path / f"{page.parent.name}.md")
        emptied = re.sub(r"(<!-- (\w+) -->).*?(<!-- /\2 -->)", r"\1\nOLD\n\3", page.read_text(), flags=re.DOTALL)
        copies[-1].write_text(emptied)
    refresh.write_readme(committed_verdicts(), paths.RESULTS, *copies)
    assert [copy.read_text() for copy in copies] == [page.read_text() for page in (README, refresh.CLAIMS_PAGE)]


def committed_verdicts() -> pd.DataFrame:
    return pd.read_csv(paths.RESULTS / "tiny" / "claims.csv")


@pytest.mark.parametrize("finding", front.FINDINGS, ids=lambda finding: finding.notebook + "-" + min(finding.rests_on))
def test_a_finding_rests_on_verdicts_of_its_notebook_and_is_refused_without_any_of_them(finding: front.Finding) -> None:
    register = claims.load(paths.claims_file("rethinking_opd"))
    notebook_of = {claim.id: claim.notebook for claim in register.claims}
    assert finding.notebook in {notebook_of[name] for name in finding.rests_on}
    judged = committed_verdicts().assign(notebook=lambda frame: frame["id"].map(notebook_of))
    for name in finding.rests_on:
        other = judged.assign(verdict=judged["verdict"].where(judged["id"] != name, claims.NOT_RUN))
        with pytest.raises(ValueError, match=rf"claim {name} is now: not run; .* true only while it is: "):
            front.findings(other, Evidence(profile="tiny"), [finding])
    with pytest.raises(ValueError, match=rf"{finding.notebook}: no finished records for"):
        front.findings(judged, Evidence(profile="tiny"), [finding])


def test_the_readmes_method_is_a_method_with_the_gradient_of_its_equation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (section,) = re.findall(r"`(method: \{.*?\})`", README.read_text())
    given = YAML(typ="safe").load(section)["method"]
    name = given.pop("name")
    assert f"`opd_lib/methods/{name}.py`" in README.read_text() and name not in methods.names()
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.setattr(methods, "names", lambda: (name,))
    method = methods.load(name)
    monkeypatch.delitem(sys.modules, f"{methods.__name__}.{name}")
    assert method.Params.model_config == sft.Params.model_config and "Differs:" in code
    with pytest.raises(ValidationError):
        method.Params()

    options, alpha = method.Params(**given), given["alpha"]
    reads = method.reads(options)
    student_NV, teacher_NV, token_N = draw()
    leaf_NV = student_NV.clone().requires_grad_()
    value_N = method.value(score(leaf_NV, teacher_NV, token_N, reads.k, reads.distributions), options)
    p_NV, q_NV = student_NV.softmax(-1), teacher_NV.softmax(-1)
    close(value_N.detach(), (p_NV * (p_NV / (alpha * p_NV + (1 - alpha) * q_NV)).log()).sum(-1))
    equation = gradient(lambda p_NV: p_NV * (p_NV / (alpha * p_NV + (1 - alpha) * q_NV)).log(), student_NV)
    close(torch.autograd.grad(value_N.sum(), leaf_NV)[0], equation)
    assert float(equation.abs().max()) > 0.01


def test_every_claim_has_its_notebook_and_every_notebook_its_params() -> None:
    register = claims.load(paths.claims_file("rethinking_opd"))
    assert {claim.notebook for claim in register.claims} <= {path.stem for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        if path.stem in (speed.FOLDER, "91_explore", "21_truncated_objectives"):
            continue  # they train nothing
        assert paths.params_file(path.stem, "tiny").exists()
        assert paths.params_file(path.stem, "smoke").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_defines_nothing_and_was_run(path: Path) -> None:
    cells = code_cells(path)
    sources = ["".join(cell["source"]) for cell in cells]
    figures = sum("outputs.figure(" in source for source in sources)
    assert len(cells) <= 8 + figures
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
        if PRINTS.search(source):
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
