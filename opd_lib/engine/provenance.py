"""Where a run comes from: code, versions, machine and weights; shown when they differ, no part of its identity."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import paths
from opd_lib.engine import served
from opd_lib.engine.model import models

if TYPE_CHECKING:
    from opd_lib.engine.sources import Model

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas")


def of(student: Model, others: Mapping[str, Model], device: str) -> dict[str, Any]:
    """Code, versions, machine and weights this run starts from: shown when they differ, not part of its identity.

    `others`: role → model that the run does not train. Of a served teacher the name it has there stands for its
    weights, which nobody here has seen.
    """
    weights: dict[str, str | None] = {"teacher_weights": None, "other_weights": None}
    for role, (model, _) in others.items():
        served_as = model.name if isinstance(model, served.Teacher) else None
        weights[f"{role}_weights"] = served_as or models.weights_digest(model)
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": platform.platform(),
        "device": device_name(device),
        "lock": models.digest((paths.ROOT / "requirements" / "cpu.lock").read_bytes()),
        "student_weights": models.weights_digest(student[0]),
        **weights,
    }


def device_name(device: str) -> str:
    """What a device calls itself."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def commit() -> str:
    """The commit of the code, "+changes" if the working tree differs, "unknown" outside a repository."""
    try:
        head, status = (
            subprocess.run(["git", *command], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "opd_lib"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if status else head
