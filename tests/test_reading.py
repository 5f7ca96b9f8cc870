"""Damaged files: half lines, conflict markers, pointers and words for numbers are one error that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from opd_lib import paths
from opd_lib.batch import front, redraw
from opd_lib.bench import compare as measuring
from opd_lib.bench import speed, stages, targets
from opd_lib.forecast import hardware
from opd_lib.judge import register
from opd_lib.records import reading, record, reference
from opd_lib.report import outputs
from opd_lib.run import growing

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00ff\nsize 12345\n"
FIGURE = (
    "figure,run,quantity,step,value,unit,source,confidence\n"
    "5,larger,accuracy,0,0.25,share,plot,medium\n"
    "5,larger,accuracy,100,0.5,share,plot,medium\n"
)
WHOLE = "measure,seconds\nwall,600.0\nprocessor,1100.0\n"
STAGES = "notebook,stage,seconds\n01_a,score,0.5\n01_a,rollout,1.5\n"
EVALS = "step,test_set,accuracy\n0,chain-3,0.5\n2,chain-3,0.75\n"
CLAIMS = (
    "id,estimate,low,high,detectable,threshold,verdict,precondition\n"
    "C1,0.5,0.25,0.75,0.3,> 0,holds,\nC2,,,,,> 0,not run,precondition absent: P1\n"
)
CONFIG = {
    "model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 100,
}  # fmt: skip
RUN = {
    "experiment": "01_a", "profile": "tiny", "arm": "x", "seed": 0, "status": "finished", "identity": "0", "params": {},
    "parents": {}, "seconds": {"score": 1.0},
}  # fmt: skip
NOTEBOOK = {"cells": [{"cell_type": "markdown", "source": ["# One: two\n"], "metadata": {}}], "nbformat": 4}


def merged(text: str) -> str:
    """A file in which somebody has left both sides of a merge."""
    first, _, rest = text.partition("\n")
    return f"{first}\n<<<<<<< HEAD\n{rest}=======\n{rest}>>>>>>> other\n"


TABLES: dict[str, Callable[[str], str]] = {
    "cut within a line": lambda text: text[:-4],
    "cut before its last line break": lambda text: text[:-1],
    "a line too short": lambda text: text.replace(",0.5", "", 1),
    "empty": lambda text: "",
    "a pointer": lambda text: POINTER,
    "not merged": merged,
    "a column lost": lambda text: "".join(f"{line.partition(',')[2]}\n" for line in text.splitlines()),
}
OBJECTS: dict[str, Callable[[str], str]] = {
    "half": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a pointer": lambda text: POINTER,
    "not merged": merged,
    "a list": lambda text: "[]",
    "null": lambda text: "null",
    "without keys": lambda text: "{}",
}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read_claims(path: Path) -> pd.DataFrame:
    """The site's verdicts from a results folder of its own."""
    found: pd.DataFrame = pytest.importorskip("opd_lib.site.source").read(path)
    return found


READERS: dict[str, tuple[str, str, Callable[[Path], Any], dict[str, Callable[[str], str]]]] = {
    "reference": ("fig05.csv", FIGURE, lambda path: reference.read(path.stem, path.parent), TABLES),
    "seconds": ("stages.csv", STAGES, lambda path: speed.stages(path.parent), TABLES),
    "verdicts": ("tiny/claims.csv", CLAIMS, read_claims, TABLES),
    "table": ("any.csv", FIGURE, lambda path: reading.frame(path, ["figure"]), TABLES),
    "config": ("config.json", json.dumps(CONFIG, indent=1), hardware.shape_in, OBJECTS),
    "first cell": ("01_a.ipynb", json.dumps(NOTEBOOK, indent=1), lambda path: front._first_cell(path), OBJECTS),
    "cells": ("01_a.ipynb", json.dumps(NOTEBOOK, indent=1), lambda path: redraw.execute(path, {}), OBJECTS),
    "seconds of a run": (
        "tiny/01_a/x/seed0/run.json",
        json.dumps(RUN, indent=1),
        lambda path: stages.write(path.parents[3], 0, path.with_name("stages.csv")),
        OBJECTS,
    ),
}


def cases() -> Iterator[Any]:
    for name, (place, text, read, damages) in READERS.items():
        for what, damage in damages.items():
            yield pytest.param(place, damage(text), read, id=f"{name}: {what}")


@pytest.mark.parametrize(("place", "text", "read"), [*cases()])
def test_a_damaged_file_is_one_error_that_names_it(
    tmp_path: Path, place: str, text: str, read: Callable[[Path], Any]
) -> None:
    path = write(tmp_path / place, text)
    with pytest.raises(ValueError, match=f"^{path}.*; ") as raised:
        read(path)
    assert "\n" not in str(raised.value).strip()


@pytest.mark.parametrize("name", [name for name in READERS if name != "cells"])
def test_a_whole_file_is_read(tmp_path: Path, name: str) -> None:
    place, text, read, _ = READERS[name]
    read(write(tmp_path / place, text))


def test_a_word_for_a_number_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "fig05.csv", FIGURE.replace("0.5,", "O.5,"))
    with pytest.raises(ValueError, match=r"fig05\.csv, line 3: value: 'O\.5' is no number"):
        reference.read("fig05", tmp_path)
    write(path, FIGURE)
    found = reference.read("fig05", tmp_path)
    assert found["value"].tolist() == [0.25, 0.5]
    with pytest.raises(ValueError, match=r"fig05\.csv: no curve of 'loss'; it has accuracy"):
        reference.curve(found, "loss")


def test_the_committed_tables_of_measurements_are_whole_and_halves_are_refused(tmp_path: Path) -> None:
    committed = speed.place("tiny", None)
    assert len(measuring.read(committed / speed.STEPS)) == len(speed.read(committed))
    text = (committed / speed.STEPS).read_text(encoding="utf-8")
    for what, damage in TABLES.items():
        path = write(tmp_path / speed.STEPS, damage(text) if what != "a line too short" else text.replace(",", "", 1))
        for read in (measuring.read, lambda path: speed.read(path.parent)):
            with pytest.raises(ValueError, match=f"^{path}"):
                read(path)
    write(tmp_path / speed.STEPS, text)
    write(tmp_path / speed.WHOLE, WHOLE.replace("wall", "sun"))
    with pytest.raises(ValueError, match=r"whole\.csv: no measure wall; it has sun, processor"):
        targets.table(tmp_path)
    write(tmp_path / speed.SHAPES, "entrant,student\nours,a\n")
    with pytest.raises(ValueError, match=r"shapes\.csv: no column "):
        speed.shapes(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": None}, "config.json: "),
        ({"hidden_size": "wide"}, "config.json: .*'wide'"),
        ({"num_attention_heads": 0}, "config.json: "),
        ({"vocab_size": -1}, "config.json: states a size of -1"),
        ({"model_type": "llama"}, "config.json: model_type: 'llama'"),
    ],
)
def test_a_config_of_impossible_sizes_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "config.json", json.dumps(CONFIG | changes))
    with pytest.raises(ValueError, match=said):
        hardware.shape_in(path)
    path.write_text(json.dumps({key: value for key, value in CONFIG.items() if key != "hidden_size"}))
    with pytest.raises(ValueError, match=r"config\.json: no key 'hidden_size'"):
        hardware.shape_in(path)


def test_a_growing_table_shows_its_whole_lines_and_refuses_what_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "evals.csv", EVALS + "4,chain-3,0.8")
    present = record.RunRecord(folder=tmp_path, **RUN | {"status": "running"})
    assert growing.rows(present, growing.EVALS)["step"].tolist() == [0, 2]
    for text in (merged(EVALS), POINTER, EVALS.replace("0.5", "half"), EVALS.replace("test_set", "set"), "a\n1,2\n"):
        write(path, text)
        with pytest.raises(ValueError, match=f"^{path}.*delete {tmp_path} and run again"):
            growing.rows(present, growing.EVALS)


def test_lines_end_in_line_feeds_alone(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u2029c\x85d", "n": number} for number in range(3)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert len(text.splitlines()) == 12
    assert reading.rows(text.encode(), "rows.jsonl", ["text", "n"]) == rows


def test_the_table_in_a_page_keeps_its_characters(tmp_path: Path) -> None:
    page = write(tmp_path / "page.md", "naïve – before\n<!-- x -->\nold\n<!-- /x -->\nafter ≤\n")
    outputs.put_between(page, "x", "new ± table")
    assert page.read_bytes().decode() == "naïve – before\n<!-- x -->\n\nnew ± table\n\n<!-- /x -->\nafter ≤\n"


def test_the_sites_claims_are_those_of_the_register(tmp_path: Path) -> None:
    source = pytest.importorskip("opd_lib.site.source")
    path = tmp_path / "tiny" / "claims.csv"
    asked = register.load(paths.claims_file("rethinking_opd"))
    rows = [f"{claim.id},0.5,0.25,0.75,0.3,> 0,holds,\n" for claim in asked.claims]
    header = CLAIMS.partition("\n")[0] + "\n"
    write(tmp_path / "tiny" / "claims.csv", header + "".join(rows))
    source.require(asked, path)
    write(tmp_path / "tiny" / "claims.csv", header + "".join(rows[1:]))
    with pytest.raises(ValueError, match=rf"claims\.csv: its rows.*\({asked.claims[0].id}\).*opd claims"):
        source.require(asked, path)
    write(tmp_path / "tiny" / "claims.csv", header + "".join([*rows, rows[0]]))
    with pytest.raises(ValueError, match="stands there twice"):
        source.require(asked, path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("figures/a.svg", "<svg><path d='M0"),
        ("figures/a.json", '{"figure": '),
        ("tables/a.csv", "a,b\n1,2\n3"),
        ("x/seed0/run.json", POINTER),
        ("figures/a.svg", "<svg>\n<<<<<<< HEAD\n</svg>"),
    ],
)
def test_what_the_site_shows_is_whole(tmp_path: Path, name: str, text: str) -> None:
    files = pytest.importorskip("opd_lib.site.files")
    notebooks = pytest.importorskip("opd_lib.site.notebooks")
    shown = [notebooks.Notebook(tmp_path / "01_a.ipynb", tmp_path)]
    write(tmp_path / "01_a" / "figures" / "b.svg", "<svg></svg>\n")
    write(tmp_path / "01_a" / "figures" / "b.json", "[]\n")
    write(tmp_path / "01_a" / "tables" / "b.csv", "a,b\n1,2\n")
    files.require_whole(shown)
    path = write(tmp_path / "01_a" / name, text)
    with pytest.raises(ValueError, match=f"^{path}"):
        files.require_whole(shown)


def test_what_is_committed_for_the_site_is_whole() -> None:
    files, notebooks = (pytest.importorskip(f"opd_lib.site.{name}") for name in ("files", "notebooks"))
    files.require_whole(notebooks.read())


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": []}', json.dumps(NOTEBOOK)[:40]])
def test_a_notebook_that_the_site_cannot_read_is_named(tmp_path: Path, text: str) -> None:
    notebooks = pytest.importorskip("opd_lib.site.notebooks")
    path = write(tmp_path / "01_a.ipynb", text)
    with pytest.raises(ValueError, match=f"^{path}"):
        _ = notebooks.Notebook(path).title
