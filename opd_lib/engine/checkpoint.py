"""What lets a run outlive its process: checkpoints and progress.

Random numbers and the place in the data follow from (seed, step), so a checkpoint is weights, optimiser and a step,
and with them what the record was then: its identity, its gates and how far its tables had come.

    .checkpoint.pt               whole weights: one file, replaced as a whole
    .checkpoint/STEP/            sharded weights: every process writes its share; the last machine.keep_checkpoints
"""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from opd_lib.engine.model import distributed, tensors
from opd_lib.records import durable, leftovers
from opd_lib.records.leftovers import PROGRESS
from opd_lib.records.sealing import Seal

if TYPE_CHECKING:
    from opd_lib.engine.running import ActiveRun

FILE, FOLDER = leftovers.CHECKPOINT, leftovers.SHARES
NEW = "new"
CLOCK = "seconds.json"
RECORD = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a run goes on: the step it has made (None: it begins) and wall seconds by stage until then.

    `gates` are those of its first batch, `tables` the seals of its tables; None for a checkpoint from before it kept
    them.
    """

    step: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    gates: dict[str, Any] | None = None
    tables: dict[str, Seal] | None = None


def write(run: ActiveRun, step: int) -> None:
    """Save the state after `step`; what was saved before stays until this is whole. Every process must call it.

    The tables that go with it are on the disk before it is.

    Raises ValueError if it cannot be written, for want of room for instance, or has weights that are not finite.
    """
    tensors.require_finite(run.student[0].state_dict().items(), f"{run.spec.folder}: step {step} is not saved")
    try:
        if run.spec.params.machine.shard:
            write_shares(run, step)
        elif run.writer:
            write_file(run, step)
    except (OSError, RuntimeError, CheckpointException) as error:
        if distributed.connection_broke(error):
            raise
        if run.writer:  # the record has to say so, and needs room too
            shutil.rmtree(run.spec.folder / FOLDER / NEW, ignore_errors=True)
            (run.spec.folder / f"{FILE}.{NEW}").unlink(missing_ok=True)
        raise ValueError(
            f"{run.spec.folder}: cannot save the checkpoint of step {step} ({reason(error)}); make room and run again: "
            "it goes on from the checkpoint before"
        ) from error


def write_file(run: ActiveRun, step: int) -> None:
    """Whole weights and optimiser, from the process that writes."""
    temporary = run.spec.folder / f"{FILE}.{NEW}"
    model, optimizer = run.student[0].state_dict(), run.optimizer.state_dict()
    state = {"step": step, "seconds": dict(run.seconds), "record": json.dumps(recorded(run))}
    with temporary.open("wb") as file:  # given a name, torch would hide why it could not write
        weights = {"model": model, "optimizer": optimizer}
        torch.save(state | weights | worlds(run), file)
    durable.replace(temporary, run.spec.folder / FILE)


def write_shares(run: ActiveRun, step: int) -> None:
    """Every process's share; the folder gets its name when all of them are there."""
    base = run.spec.folder / FOLDER
    new = base / NEW
    if run.writer:
        shutil.rmtree(new, ignore_errors=True)
    distributed.meet()
    model, optimizer = get_state_dict(run.student[0], run.optimizer)
    save({"model": model, "optimizer": optimizer, **worlds(run)}, checkpoint_id=new)
    if run.writer:
        durable.write_json(new / CLOCK, dict(run.seconds))
        durable.write_json(new / RECORD, recorded(run))
        durable.replace(new, base / f"{step:08d}")
        for old in saved(run.spec.folder)[: -run.spec.params.machine.keep_checkpoints]:
            shutil.rmtree(old)
    distributed.meet()


def recorded(run: ActiveRun) -> dict[str, Any]:
    """What a checkpoint keeps of the record."""
    assert run.writer is not None
    record = {"identity": run.spec.identity, "gates": run.writer.record.gates, "tables": run.writer.save()}
    return record | ({"world": run.world.plain()} if run.world else {})


def worlds(run: ActiveRun) -> dict[str, Any]:
    """The weights that a method keeps between steps, each process's share; nothing where it keeps none."""
    return {"world": run.world.tensors()} if run.world else {}


def resume(run: ActiveRun) -> State:
    """Load the last checkpoint, if there is one.

    As many processes as wrote shares make the same run of them; others, the same up to rounding. Every process must
    call it. Raises ValueError if it cannot be read, belongs to other parameters, or was written with the other value of
    machine.shard.
    """
    shard, folder = run.spec.params.machine.shard, run.spec.folder
    file, shares = folder / FILE, saved(folder)
    if shares if not shard else file.exists():
        raise ValueError(
            f"{folder}: its checkpoint was written with machine.shard: {str(not shard).lower()}; set that again, or "
            f"delete {folder}"
        )
    if not (shares if shard else file.exists()):
        return State()
    path, read = (shares[-1], read_shares) if shard else (file, read_file)
    try:
        step, seconds, record = read(run, path)
    except (
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        pickle.UnpicklingError,
        CheckpointException,
    ) as error:
        if distributed.connection_broke(error):
            raise
        raise ValueError(f"{path}: corrupt checkpoint ({reason(error)}); delete it and run again") from error
    if record.get("identity", run.spec.identity) != run.spec.identity:
        raise ValueError(f"{path}: a checkpoint of other parameters; delete {folder}, or choose another results folder")
    return State(step=step, seconds=seconds, gates=record.get("gates"), tables=record.get("tables"))


def read_file(run: ActiveRun, path: Path) -> tuple[int, dict[str, float], dict[str, Any]]:
    """Whole weights and optimiser; the step, the seconds, and what is kept of the record."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    record = json.loads(state.get("record", "{}"))
    run.student[0].load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.world:
        run.world.load(record["world"], int(state["step"]))
        run.world.fill(state["world"])
    return int(state["step"]), dict(state["seconds"]), dict(record)


def read_shares(run: ActiveRun, path: Path) -> tuple[int, dict[str, float], dict[str, Any]]:
    """This process's share; the step, the seconds, and what is kept of the record."""
    record = json.loads((path / RECORD).read_text()) if (path / RECORD).exists() else {}
    if run.world:
        run.world.load(record["world"], int(path.name))
    model, optimizer = get_state_dict(run.student[0], run.optimizer)
    load({"model": model, "optimizer": optimizer, **worlds(run)}, checkpoint_id=path)
    set_state_dict(run.student[0], run.optimizer, model_state_dict=model, optim_state_dict=optimizer)
    return int(path.name), dict(json.loads((path / CLOCK).read_text())), dict(record)


def saved(folder: Path) -> list[Path]:
    """The whole checkpoints of shares in a run's folder, the oldest first."""
    return sorted((folder / FOLDER).glob("[0-9]*"))


def reason(error: BaseException) -> str:
    """What went wrong: the operating system's word if it is at the root, and in the first process if in several."""
    if isinstance(error, CheckpointException):
        rank, (first, _) = min(error.failures.items())
        return f"process {rank}: {first}"
    root: BaseException | None = error
    while root is not None and not isinstance(root, OSError):
        root = root.__context__
    return str(root or error)


def progress(folder: Path, step: int, steps: int, seconds: dict[str, float]) -> None:
    """Tell watchers how far the run is; `seconds` are wall seconds per stage in this process."""
    durable.write_json(folder / PROGRESS, {"step": step, "steps": steps, "seconds": seconds}, lasting=False)
