"""A notebook that a program executes: what it trains is said in that program's terminal, and in no output of a cell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import micro
import nbformat
import pytest

NEVER = ("to do:", "runs,", "running", "waiting")


@pytest.mark.process
def test_papermill_by_hand_says_which_runs_it_trains(world: Path) -> None:
    source, output = micro.write_notebook(world, micro.MODELS), world / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), str(output), "--no-progress-bar"]
    words = ["-p", "results", str(world / "results"), "-y", "{seeds: [0], overrides: {train.steps: 2}}"]
    done = subprocess.run([*command, *words], cwd=world, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "00_models/" in line]
    names = [spec.name for spec in micro.load(world, overrides={"train.steps": 2}).runs()]
    assert lines[0].startswith("to do: ") and all(name in lines[0] for name in names)
    assert len(lines) == 1 + len(names) and all(": done in " in line for line in lines[1:])
    assert lines[-1].endswith("3 of 3 runs")
    kept = str([cell.get("outputs") for cell in nbformat.read(output, as_version=4).cells])
    assert "3 runs" in kept and not any(word in kept for word in NEVER)
    again = subprocess.run([*command, *words], cwd=world, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "to do" not in again.stderr
