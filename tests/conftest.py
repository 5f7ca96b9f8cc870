"""A world small enough for a test: one-layer models, a handful of steps, real files."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Let tests interrupt what they start: a script's background ignores SIGINT, and children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("real_data", "folder of the real data sets, relative to the repository", default="../shared/data")


@pytest.fixture(scope="session")
def real_data(request: pytest.FixtureRequest) -> Path:
    """The folder of the real data sets (DAPO-Math, DeepMath, AIME, AMC); tests of them are skipped without it."""
    folder = (ROOT / str(request.config.getini("real_data"))).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data sets in {folder} (pytest's ini option real_data names another folder)")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, one for each file of tests."""
    with chromium.started() as started:
        yield started


def logits(model: Any, rollouts: Any, rows: Any) -> Any:
    """Logits (N, V) from which the tokens of these rows were drawn, with their gradient."""
    from opd_lib.engine import batches

    return batches.with_head(model, rollouts, rows, lambda head: head.leaves[0] @ head.leaves[1].T)


RUN: dict[str, Any] = {
    "title": "a test",
    "seeds": [0],
    "task": {
        "name": "chain",
        "content": "chain-a",
        "other_content": "chain-b",
        "other_share": 0.0,
        "template": "T1",
        "test_sets": ["chain-3", "chain-4"],
        "test_template": "T2",
    },
    "student": {"layers": 1, "hidden": 16, "heads": 2, "context": 128, "rope_theta": 100.0, "initializer_range": 0.1},
    "teacher": None,
    "source": {
        "kind": "student",
        "prompts_per_step": 4,
        "per_prompt": 2,
        "max_new_tokens": 12,
        "schedule": [],
        "temperature": 1.0,
        "top_p": 1.0,
    },
    "method": {"name": "sft"},
    "train": {
        "steps": 6,
        "lr": 1.0e-2,
        "warmup": 0,
        "decay": 0,
        "beta1": 0.9,
        "beta2": 0.999,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "micro_tokens": 4096,
        "checkpoint_every": 2,
    },
    "evaluate": {
        "every": 3,
        "n_problems": 3,
        "n_samples": 2,
        "temperature": 0.7,
        "top_p": 0.95,
        "max_new_tokens": 12,
        "caps": [4, 12],
    },
    "diagnose": {"ks": [4, 16], "depth_bucket": 4, "depth_every": 1, "examples": 1},
    "probe": None,
    "machine": {
        "processes": 1,
        "shard": False,
        "device": "cpu",
        "precision": "float32",
        "keep_checkpoints": 2,
        "sampler": "transformers",
        "diagnose_every": 1,
        "kept_problems": 1,
        "logits_gib": 0.5,
        "sampler_cache_gib": 1.0,
        "max_sampler_gap": 1e-3,
        "teacher_url": None,
        "memory_gib": 2.0,
        "hours": 0.1,
    },
    "arms": {},
}
CORPUS: dict[str, Any] = {
    "kind": "corpus",
    "prompts_per_step": 8,
    "templates": ["T1", "T2"],
    "pattern_b": 0.1,
    "filler_before_step": 0.5,
    "filler_anywhere": 0.03,
    "slip_operands": [3, 7],
    "slip_probability": 0.9,
}
OPD: dict[str, Any] = {
    "name": "opd",
    "estimator": "topk",
    "k": 8,
    "support": "student",
    "weight": "student_p",
    "normalize": "weights",
    "tail": "drop",
    "stop_gradient": True,
    "direction": "reverse",
    "beta": 0.5,
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder of params with two notebooks: 00_models makes student and teacher, 01_opd distils; results beside it."""
    return make_world(tmp_path)


def make_world(root: Path) -> Path:
    """The files of `world` in a folder."""
    models = RUN | {
        "source": CORPUS,
        "arms": {"student": {}, "teacher": {"source.pattern_b": 0.9}, "better": {"train.steps": 8}},
    }
    distil = RUN | {
        "student": "run:00_models/student",
        "teacher": "run:00_models/teacher",
        "method": OPD,
        "arms": {"plain": {}, "sampled": {"method.estimator": "sampled"}},
    }
    folder = root / "params" / "tiny"
    folder.mkdir(parents=True)
    for name, content in (("00_models", models), ("01_opd", distil)):
        with (folder / f"{name}.yaml").open("w") as file:
            YAML().dump(content, file)
    return root


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was brought to the disk and what was renamed, in this order."""
    happened: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace
    known = lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink().name
    monkeypatch.setattr(os, "fsync", lambda fd: (happened.append(("sync", known(fd))), sync(fd))[1])
    monkeypatch.setattr(
        os, "replace", lambda a, b: (happened.append(("name", f"{Path(a).name} → {Path(b).name}")), replace(a, b))[1]
    )
    return happened


ORDER = (
    "test_floors", "test_packaging", "test_stats", "test_cost", "test_logprobs", "test_streaming",
    "test_diagnostics_exact", "test_methods_exact", "test_objectives_enumerated", "test_chain", "test_filters",
    "test_graders", "test_math", "test_dedup", "test_params", "test_claims", "test_moments", "test_outcomes",
    "test_report", "test_speed", "test_explore", "test_plotted", "test_readme", "test_estimate", "test_hub",
    "test_intake", "test_gguf", "test_engine", "test_served",
    "test_stored", "test_own_method", "test_records", "test_packing", "test_probes", "test_training", "test_prompts",
    "test_rollout_vllm", "test_distribution", "test_prognosis", "test_launch", "test_ranks", "test_room", "test_live",
    "test_track", "test_redraw", "test_reexecute", "test_outputs", "test_by_hand", "test_notebooks_at_paper",
    "test_cli", "test_copies", "test_tries", "test_overrides", "test_console", "test_batch", "test_smoke", "test_site",
    "test_own_site", "test_lab",
)  # fmt: skip
"""Cheap truths first: pure maths, then one step of training, then whole runs and processes, then notebooks."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files in ORDER; a file not named there comes first."""
    place = {name: index for index, name in enumerate(ORDER)}
    items.sort(key=lambda item: place.get(item.path.stem, -1))
