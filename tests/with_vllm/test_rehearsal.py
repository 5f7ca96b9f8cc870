"""A notebook of the paper profile, rehearsed: real questions, math-verify, vLLM, weights spread over two processes.

Where the real sets are not at hand (pytest's ini option real_data), sums in the shape of the released files stand in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: make test-vllm", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "03_reverse_distillation"
MODELS = ("distill-small", "distill-large", "justrl-small", "rollouts", "sft-small")


def opd(*words: str) -> str:
    """What an `opd` command prints; it must succeed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "opd_lib.command.cli", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def sums(folder: Path, name: str, n: int) -> None:
    """A file of n questions about sums, in the shape of the released files."""
    suffix = r" Please reason step by step, and put your final answer within \boxed{}."
    rows = [
        {
            "prompt": [{"content": f"What is the sum of {i} and {7 * i % 31}, all in all?{suffix}", "role": "user"}],
            "reward_model": {"ground_truth": str(i + 7 * i % 31), "style": "rule"},
            "extra_info": {"index": f"{name}-{i}"},
        }
        for i in range(n)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / name)


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sets."""
    real = (ROOT / str(request.config.getini("real_data"))).resolve()
    if real.is_dir():
        return real
    folder = tmp_path_factory.mktemp("sets")
    for name, n in (("dapo-math-17k.parquet", 600), ("AIME24_validation.parquet", 30), ("AMC23_offline.parquet", 40)):
        sums(folder, name, n)
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Every model and the notebook, from nothing."""
    results = tmp_path_factory.mktemp("rehearsal")
    where = ("--results", str(results), "--overrides", json.dumps({"task.data": str(data)}), "--profile", "rehearsal")
    for model in MODELS:
        opd("run", "00_models", model, "0", *where)
    for notebook in ("00_models", NOTEBOOK):
        opd("execute", notebook, *where)
    return results / "rehearsal"


def test_the_notebook_runs_with_everything_the_paper_profile_has(records: Path) -> None:
    assert (records / NOTEBOOK / "notebook.ipynb").exists() and (records / "00_models" / "notebook.ipynb").exists()
    for arm in ("same_size", "larger"):
        steps = pd.read_csv(records / NOTEBOOK / arm / "seed0" / "steps.csv")
        assert len(steps) == 6 and steps["sampler_gap"].max() < 1e-4 and steps["overlap_k16"].between(0, 1).all()
        evals = pd.read_csv(records / NOTEBOOK / arm / "seed0" / "evals.csv")
        assert set(evals["test_set"]) == {"aime24", "amc23-40"}


def test_reinforcement_learning_is_rewarded_by_math_verify(records: Path) -> None:
    steps = pd.read_csv(records / "00_models" / "justrl-small" / "seed0" / "steps.csv")
    assert len(steps) == 10 and steps["reward"].between(0, 1).all() and steps["n_tokens"].min() > 0


def test_the_cold_start_learns_from_stored_responses(records: Path) -> None:
    counted = pd.read_csv(records / "00_models" / "rollouts" / "seed0" / "probe.csv")
    assert counted["batch"].tolist() == [1, 2, 3, 4] and counted["kept"].sum() > 32
    steps = pd.read_csv(records / "00_models" / "sft-small" / "seed0" / "steps.csv")
    assert len(steps) == 8 and steps["loss"].notna().all()


def test_stored_responses_can_be_graded_in_two_ways(records: Path) -> None:
    said = opd("grade", str(records / "00_models" / "rollouts" / "seed0" / "rollouts"))
    assert all(outcome in said for outcome in ("both right", "only math-verify", "only exact match", "neither"))
