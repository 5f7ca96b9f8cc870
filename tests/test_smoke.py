"""The smoke profile from nothing, through Snakemake and papermill: every notebook, every checkpoint, every claim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from opd_lib import params, paths
from opd_lib.records import record
from opd_lib.run import plan

NAMES = [path.stem for path in sorted(paths.PARAMS.glob("tiny/*.yaml"))]


def opd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "opd_lib.command.cli", *words],
        cwd=paths.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.process
def test_the_smoke_profile_from_nothing(tmp_path: Path) -> None:
    committed = {path: path.read_bytes() for path in paths.RESULTS.glob("tiny/*/*/*/run.*")}
    done = opd("reproduce", "--profile", "smoke", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    specs = [spec for name in NAMES for spec in params.load(name, "smoke", results=tmp_path).runs()]
    assert plan.missing(specs) == ()
    for spec in specs:
        present = record.read(spec.folder)
        assert present is not None and present.status == "finished"
        if spec.params.probe is not None:
            assert len(present.frame("probe")) and not spec.model_folder.exists(), "a probe measures and makes no model"
            continue
        assert (present.frame("evals")["step"] == 0).any(), "the evaluation at step 0 is always there"
        assert (spec.model_folder / "config.json").exists() and (spec.model_folder / "tokenizer.json").exists()
    for name in NAMES:
        cells = json.loads((tmp_path / "smoke" / name / "notebook.ipynb").read_text())["cells"]
        assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
        assert list((tmp_path / "smoke" / name / "figures").glob("*.svg"))
    assert "0 runs to train, 0 notebooks" in opd("reproduce", "--profile", "smoke", "--results", str(tmp_path)).stderr
    judged = opd("claims", "--profile", "smoke", "--results", str(tmp_path))
    assert judged.returncode == 0, judged.stderr
    assert set(pd.read_csv(tmp_path / "smoke" / "claims.csv")["verdict"]) == {"inconclusive"}, (
        "one seed decides nothing"
    )
    assert {path: path.read_bytes() for path in committed} == committed
