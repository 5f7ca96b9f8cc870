"""What a batch will take before it is started: accelerator hours, memory, disk, per run and per notebook.

Hours are the floor of `forecast/hours` divided by the share of it that is reached in practice, an assumption that is
printed with them. Runs on a CPU and models of the tiny world have none: what they take is overhead, which no arithmetic
here sees. Nothing is loaded and no hub is asked: shapes come from the catalogue, from local folders and `run:` parents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import pandas as pd

from opd_lib.engine import memory
from opd_lib.forecast import footprint, hardware
from opd_lib.forecast.footprint import GIB
from opd_lib.forecast.hours import MEASURED_AT, Assumptions, evaluation, n_evaluations, work
from opd_lib.forecast.shapes import Shape
from opd_lib.params import Experiment, RunSpec
from opd_lib.params.schema import RunParams
from opd_lib.report.tables import show
from opd_lib.run import plan
from opd_lib.run.progress import many

HOUR, GB = 3600.0, 1e9
PAPER, PUBLISHED_STEPS = "paper", 200
PUBLISHED = (
    "The paper's 27 distillation runs of about 200 steps: 500 to 650 H100-hours, 18 to 24 each, without evaluations, if"
    "\na third party's 329 to 433 s per step of 256 responses on one H100 are taken for all of them. Those steps reach"
    "\n15 to 20 % of the same floor, not 40: at that pace the hours above are two to three times as many."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one run. Hours are those of all its accelerators together, nan where arithmetic says nothing; bytes."""

    spec: RunSpec
    training: float
    evaluation: float
    recompute: bool
    memory: footprint.Memory
    host: float
    disk: footprint.Disk
    fits: bool

    @property
    def wall(self) -> float:
        """Hours from start to end."""
        return (self.training + self.evaluation) / self.spec.params.machine.processes


def estimate(spec: RunSpec, assumed: Assumptions) -> Estimate:
    """What one run takes. Raises ValueError for a model of unknown shape."""
    found, params = shapes(spec), spec.params
    device = assumed.accelerator.memory
    room = memory.USABLE * device
    recompute = memory.needed(params, found, device, recompute=False).total > room
    needed = memory.needed(params, found, device, recompute)
    timed = params.machine.device == "cuda" and params.task.name == "math"
    per_hour = assumed.efficiency * HOUR / params.machine.processes
    return Estimate(
        spec=spec,
        training=work(params, found, assumed, recompute) / per_hour if timed else nan,
        evaluation=n_evaluations(params) * evaluation(params, found["student"], assumed) / per_hour if timed else nan,
        recompute=recompute,
        memory=needed,
        host=footprint.host_memory(memory.setting(params, found, device, recompute)),
        disk=disk(params, found["student"]),
        fits=params.machine.device == "cpu" or needed.total <= room,
    )


def shapes(spec: RunSpec) -> dict[str, Shape]:
    """role → shape of a run's models, without a hub: a `run:` parent has its student's shape."""
    if not isinstance(spec.params.student, str):
        found = {"student": memory.new_shape(spec.params)}
    else:
        found = {}
    for role, reference in spec.params.references.items():
        if role == "rollouts":
            continue
        config = Path(reference) / "config.json"
        if role in spec.parents:
            found[role] = shapes(spec.parents[role])["student"]
        elif config.is_file():
            found[role] = hardware.shape_in(config)
        else:
            found[role] = known_shape(spec, role, reference)
    return found


def known_shape(spec: RunSpec, role: str, reference: str) -> Shape:
    """The shape of a hub model. Raises ValueError naming the params file that asks for one of unknown shape."""
    try:
        return hardware.shape_of(reference)
    except ValueError as error:
        raise ValueError(f"{spec.origin.source}, arm {spec.arm}: {role}: {error}") from None


def disk(params: RunParams, student: Shape) -> footprint.Disk:
    """What a run writes: next to nothing for a probe, one copy of its weights for a checkpoint as it is."""
    if params.probe is not None:
        return footprint.Disk(checkpoints=0.0, export=0.0)
    found = footprint.disk(student, kept=params.machine.keep_checkpoints if params.machine.shard else 1)
    return found if params.trains else replace(found, checkpoints=0.0)


def table(estimates: Iterable[Estimate]) -> pd.DataFrame:
    """One row per run: hours of all accelerators together, GiB of one accelerator at its fullest, GB on disk."""
    rows = [
        {
            "run": found.spec.name,
            "steps": 0 if found.spec.params.only_evaluates else plan.steps(found.spec),
            "GPUs": found.spec.params.machine.processes if found.spec.params.machine.device == "cuda" else 0,
            "training (GPU-h)": found.training,
            "evaluation (GPU-h)": found.evaluation,
            "wall (h)": found.wall,
            "memory (GiB)": found.memory.total / GIB,
            "host (GiB)": found.host / GIB,
            "disk (GB)": found.disk.peak / GB,
            "note": note(found),
        }
        for found in estimates
    ]
    return pd.DataFrame(rows)


def note(found: Estimate) -> str:
    """What the reader of a row must know."""
    if not found.fits:
        largest = max(footprint.REMEDIES, key=lambda part: float(getattr(found.memory, part)))
        return f"does not fit: mostly {largest}"
    return "activations recomputed" if found.recompute else ""


def by_notebook(estimates: Sequence[Estimate]) -> pd.DataFrame:
    """One row per notebook, and one for all: sums of hours and weights, maxima of the rest.

    A shared run counts where it belongs.
    """
    frame = table(estimates).assign(notebook=[found.spec.experiment for found in estimates], runs=1)
    frame["weights (GB)"] = [found.disk.export / GB for found in estimates]
    every = pd.concat([frame, frame.assign(notebook="all")])
    sums = ["runs", "training (GPU-h)", "evaluation (GPU-h)", "weights (GB)"]
    largest = ["wall (h)", "memory (GiB)", "host (GiB)", "disk (GB)"]
    grouped = every.groupby("notebook", sort=False)
    most = grouped[largest].max().rename(columns="most {}".format)
    return grouped[sums].sum(min_count=1).join(most).reset_index()


def plan_text(chosen: Sequence[Experiment], assumed: Assumptions | None = None) -> str:
    """What is missing of these notebooks and what it takes: GPU-hours, memory, disk, beside the published budget.

    Raises ValueError for a model of unknown shape and for records that belong to other parameters.
    """
    assumed = assumed or Assumptions()
    specs = plan.with_parents(plan.all_runs(chosen))
    left = [estimate(spec, assumed) for spec in plan.missing(specs)]
    head = f"{many(len(chosen), 'notebook')}, {many(len(specs), 'run')}, of which {len(left)} still to be done."
    if not left:
        return head
    tables = [show(told(frame), digits=1) for frame in (table(left), by_notebook(left))]
    return "\n\n".join([head, *tables, words(left, assumed)])


def told(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns in which something stands: runs on a CPU have no accelerators, and no hours of them."""
    return frame.loc[:, [bool((frame[name].notna() & ~frame[name].isin(["", 0])).any()) for name in frame]]


def words(left: Sequence[Estimate], assumed: Assumptions) -> str:
    """The sums in words, what they assume, and the published budget."""
    machine, over = assumed.accelerator, [found.spec.name for found in left if not found.fits]
    hours = sum(found.training + found.evaluation for found in left)
    export = sum(found.disk.export for found in left) / GB
    peak = max(found.disk.peak for found in left) / GB
    lines: list[str] = []
    if hours == hours:
        cut = f"{assumed.cut_thinking:.1%} of responses (not thinking: {assumed.cut_spoken:.1%})"
        lines += [
            f"Assumed: {machine.name} at {assumed.efficiency:.0%} of what peak arithmetic and full bandwidth allow;",
            f"{cut} pass {MEASURED_AT} tokens.",
            f"Still to be done: {hours:,.0f} GPU-hours. {average(left)}".rstrip(),
        ]
        lines += [PUBLISHED] if any(found.spec.profile == PAPER for found in left) else []
    else:
        lines += ["No hours for runs on a CPU and in the tiny world: `opd status` learns them from finished runs."]
    if any(found.spec.params.machine.device == "cuda" for found in left):
        lines += [f"Memory: {memory.USABLE:.0%} of {machine.memory / GIB:.0f} GiB are planned with."]
    lines += [f"Does not fit as it is: {', '.join(over)}."] if over else []
    lines += [f"Disk: {export:,.0f} GB of finished weights; up to {peak:,.0f} GB for a run while it goes on."]
    return "\n".join(lines)


def average(estimates: Sequence[Estimate]) -> str:
    """What a distillation run of the published length takes on average."""
    runs = [e for e in estimates if e.spec.params.method["name"] == "opd" and e.spec.params.probe is None]
    if not runs:
        return ""
    per_step = sum(found.training for found in runs) / sum(plan.steps(found.spec) for found in runs)
    return (
        f"{len(runs)} distillation runs, per {PUBLISHED_STEPS} steps {per_step * PUBLISHED_STEPS:.1f} GPU-hours each."
    )
