"""What lets a run outlive its process: checkpoints, progress, and the provenance of its record.

Random numbers and the place in the data follow from (seed, step), so a checkpoint is weights, optimiser and a step.
"""

from __future__ import annotations

import os
import pickle
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import paths
from opd_lib.engine import models
from opd_lib.report.record import PROGRESS, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from opd_lib.engine.sources import Model

FILE = ".checkpoint.pt"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas")


def write(
    folder: Path, step: int, model: PreTrainedModel, optimizer: torch.optim.Optimizer, seconds: dict[str, float]
) -> None:
    """Save the state after `step`, replacing the previous checkpoint as a whole."""
    temporary = folder / f"{FILE}.new"
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "seconds": seconds}
    torch.save(state, temporary)
    os.replace(temporary, folder / FILE)


def resume(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[int | None, dict[str, float]]:
    """Load the last checkpoint, if there is one: its step and the wall seconds spent until then.

    Raises ValueError if it cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return None, {}
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: corrupt checkpoint ({error}); delete {folder} and run again") from error
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), dict(state["seconds"])


def finish(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    for path in (folder / FILE, folder / PROGRESS):
        path.unlink(missing_ok=True)


def progress(folder: Path, step: int, steps: int, seconds: dict[str, float]) -> None:
    """Tell watchers how far the run is; `seconds` are wall seconds per stage in this process."""
    write_json(folder / PROGRESS, {"step": step, "steps": steps, "seconds": seconds})


def provenance(student: Model, teacher: Model | None, other: Model | None, device: str) -> dict[str, Any]:
    """Code, versions, machine and weights this run starts from: shown when they differ, not part of its identity."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": platform.platform(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "lock": models.digest((paths.ROOT / "requirements" / "cpu.lock").read_bytes()),
        "student_weights": models.weights_digest(student[0]),
        "teacher_weights": models.weights_digest(teacher[0]) if teacher else None,
        "other_weights": models.weights_digest(other[0]) if other else None,
    }


def _commit() -> str:
    """The commit of the code, "+changes" if the working tree differs, "unknown" outside a repository."""
    try:
        head, status = (
            subprocess.run(["git", *command], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "opd_lib"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if status else head
