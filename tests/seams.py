"""Arms that say more of a method than its value, for whole runs in the `world` of conftest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_teacher
import micro
import pytest
from conftest import CORPUS, OPD, make_world

from opd_lib.engine import checkpoint, train
from opd_lib.params import RunSpec

PRUNE = {
    "overlap_k": 2, "threshold": 0.7, "drop": 0.01, "base": 0.0, "limit_start": 8, "limit_least": 4, "limit_most": 12,
    "limit_step": 2, "margin": 1, "hit_share": 0.5, "patience": 3,
}  # fmt: skip
BRTS = {"part": "student", "coef": 1.0, "candidates": 2, "temperature": 0.7, "top_p": 0.95, "hint": "", "similar_k": 2}
UNI = {"route": {}, "margin": 0.4, "balance": False, "extreme": 10.0}
SOD = {"normalize_std": False, "epsilon": 1e-6, "outcome": False, "coef": 1.0, "delta": 0.2, "smooth": 1e-6}
"""Options of methods, on top of the published objective's where they have those."""
PUBLISHED = {key: value for key, value in OPD.items() if key != "name"}
SOLUTION = "{question} <ans> {answer}"
LIMITS = {"limit_start": 8, "limit_least": 4, "limit_most": 12, "drop": 0.3, "overlap_k": 4, "hit_share": 0.9}
A, B = "run:00_models/teacher", "run:00_models/better"
ARMS: dict[str, dict[str, Any]] = {
    "vopd": {"method": {"name": "vopd", "baseline": "full", "k": 0}},
    "filled": {"method": {"name": "filled", "k": 4, "stop_gradient": True}},
    "blind": {"method": {"name": "blind", "loss": "advantage", "k": 4, "control": True}},
    "prune": {"method": {"name": "prune", **PUBLISHED, **PRUNE, **LIMITS, "patience": 1}},
    "opsd": {"method": {"name": "opsd", **PUBLISHED, "shows": SOLUTION, "decay": 1.0}, "teacher": "self", "student": B},
    "opsd-ema": {"method": {"name": "opsd", **PUBLISHED, "shows": SOLUTION, "decay": 0.9}},
    "opsdc": {
        "method": {"name": "opsdc", **PUBLISHED, "shows": SOLUTION, "decay": 1.0, "renew": 2},
        "student": B,  # it will be its own teacher, and must know something
    },
    "stable": {
        "method": {"name": "stable", **PUBLISHED, "near": 0.3, "golden": 0.5, "corpus": CORPUS},
        "teacher": {"expert": A, "start": B},
    },
    "eff_opd": {"method": {"name": "eff_opd", **PUBLISHED, "k_max": 2, "tried": 4}},
    "uni_opd": {
        "method": {"name": "uni_opd", **UNI, "route": {"chain-a": "one", "chain-b": "two"}, "balance": True},
        "teacher": {"one": A, "two": B},
        "task.other_share": 0.5,
        "source.per_prompt": 4,
    },
    "sod": {"method": {"name": "sod", **SOD, "outcome": True}, "task.name": "tool", "student": B},
    "brts": {"method": {"name": "brts", **PUBLISHED, **BRTS, "hint": SOLUTION, "similar_k": 4}},
    "simct": {"method": {"name": "simct", "units": "simct"}},
}
MACHINES: dict[str, dict[str, Any]] = {
    "served": {"machine.teacher_url": "http://here:1"},
    "vllm": {"machine.sampler": "vllm"},
    "processes": {"machine.processes": 2},
    "sharded": {"machine.processes": 2, "machine.shard": True},
}
"""Ways to run that differ from one process with everything in it."""
SERVED: dict[str, dict[str, Any]] = {
    "vopd": {"method.baseline": "none"},
    "blind": {"method.loss": "sampled", "method.k": 0},
    "prune": {"method.support": "teacher"},
    "opsd": {"method.support": "teacher", "teacher": A},
    "opsdc": {"method.support": "teacher", "method.renew": 0},
    "eff_opd": {"method.support": "teacher"},
    "uni_opd": {"method.route": {}, "teacher": A},
}
"""What arms must say otherwise for a teacher that is served."""
FOREIGN = "foreign"
"""The folder of the world with simct's teacher."""


def made(root: Path, hidden: int | None = None) -> Path:
    """The world with its models trained; `hidden`: of another width than its own."""
    world = make_world(root)
    micro.teach(world)
    for arm in ("student", "teacher", "better") if hidden else ():
        micro.change_arm(world, micro.MODELS, arm, {"student.hidden": hidden})
    micro.change_arm(world, micro.MODELS, "better", {"train.steps": 60})
    for arm in ("student", "teacher", "better"):
        train.train(micro.load(world).spec(arm, 0))
    foreign_teacher.save(world / FOREIGN)
    return world


def spec_of(world: Path, results: Path, arm: str, **changes: Any) -> RunSpec:
    """A distillation of the world with an arm's changes; its record goes to `results`."""
    teacher = {"teacher": str(world / FOREIGN)} if arm.startswith("simct") else {}
    asked = {f"arms.{arm}": teacher | ARMS.get(arm, {}) | changes} if arm not in ("plain", "sampled") else {}
    experiment = micro.load(world, micro.OPD, overrides=asked)
    return replace(experiment.spec(arm, 0), folders=(results / arm,))


def changed(arm: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """An arm with these changes, those of its method within the method."""
    method = {key.removeprefix("method."): value for key, value in changes.items() if key.startswith("method.")}
    others = {key: value for key, value in changes.items() if not key.startswith("method.")}
    return ARMS[arm] | {"method": ARMS[arm]["method"] | method} | others


def refusal(world: Path, arm: str, changes: Mapping[str, Any]) -> str:
    """What is said where an arm with these changes is refused before anything is loaded; empty where it is not."""
    try:
        spec_of(world, world / "none", f"{arm}-asked", **changed(arm, changes))
    except ValueError as error:
        return str(error)
    return ""


def require_same_bytes_after_a_kill(whole: RunSpec, broken: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train both, the second one killed one step after a checkpoint and resumed; they must leave the same bytes."""
    train.train(whole)
    original = checkpoint.progress

    def stop(folder: Path, step: int, *more: Any) -> None:
        original(folder, step, *more)
        if step == 5:  # one step after the last checkpoint
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "progress", stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(broken)
    train.train(broken)
    for name in ("steps.csv", "evals.csv", "depth.csv", "model/model.safetensors"):
        assert (whole.folder / name).read_bytes() == (broken.folder / name).read_bytes(), name
