"""The start of a run: its models, method, optimiser and record are loaded or made, and its branches with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import methods, tasks
from opd_lib.engine import first_batch, gates, memory, provenance, served, sources, stored
from opd_lib.engine import teacher as teachers
from opd_lib.engine.model import distributed, fresh, intake, models, sharding
from opd_lib.engine.running import ActiveRun
from opd_lib.engine.sampling import samplers
from opd_lib.engine.world import ActiveWorld
from opd_lib.params import dotted, refusals
from opd_lib.params.schema import Merged, Sampled
from opd_lib.records.record import RunRecord
from opd_lib.records.writer import RunWriter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from opd_lib.params import RunSpec
    from opd_lib.params.schema import RunParams, Train


def needs_recompute(spec: RunSpec) -> bool:
    """Whether activations must be computed again in the backward pass to fit into memory; the same in every process.

    Raises ValueError, before anything is loaded, if the run would not fit even then. A model whose configuration cannot
    be read, or is of a kind whose costs are not known, goes unasked: loading it says what is wrong, if anything is.
    """
    least = -distributed.max_over_ranks(-memory.free(spec.params.machine))
    try:
        shapes = memory.shapes(spec)
    except (ValueError, OSError):
        return False
    return memory.require(spec, shapes, least)


def prepare_task(spec: RunSpec) -> None:
    """Read what the task's questions come from. Raises ValueError, before anything is loaded, if that is wrong."""
    if prepare := tasks.load(spec.params.task.name).prepare:
        prepare(spec.params.task)


def start(spec: RunSpec, ranks: distributed.Ranks, writer: RunWriter | None, recompute: bool) -> ActiveRun:
    """Load or make the models, the method and the optimiser. `recompute` is what `needs_recompute` says."""
    params, machine = spec.params, spec.params.machine
    student = make_student(spec)
    dtype = sharding.compute_dtype(machine)
    places = {role: spec.checkpoint(role) for role in params.references if is_frozen(role)}
    elsewhere = places.pop("teacher") if machine.teacher_url else None
    frozen = {role: models.load(place, dtype=dtype) for role, place in places.items() if place}
    method = methods.load(params.method["name"])
    checked: dict[str, Any] = {}
    for role, (model, tokenizer) in {"student": student, **frozen}.items():
        intake.require_prompting(tokenizer, role)
        if (room := intake.context(model.config)) is not None:
            refusals.require_context(params, role, room, model.name_or_path or "student.context")
    for model, tokenizer in frozen.values():
        model.requires_grad_(False).eval()
        checked |= gates.same_tongue(params, method, student, (model, tokenizer))
    options = method.Params(**params.method_options)
    teacher, other = teachers.of(params, student, frozen, method, options), frozen.get("other")
    if elsewhere:
        teacher = connect(params, elsewhere)
        intake.require_prompting(teacher[1], "teacher")
        checked = gates.same_vocabulary(student, teacher) | gates.same_prompt(params, student, teacher)
        checked |= gates.same_end(student, teacher, models.stated_stop_ids(elsewhere, teacher[1]))
    against = getattr(params.probe, "against", {})  # what a probe compares the objective with
    if method.check is not None:
        for each in (options, method.Params(**params.method_options | against)):
            method.check(each, student[0].config.vocab_size, teacher is not None)
    if writer:
        loaded = frozen if teacher is None or not elsewhere else frozen | {"teacher": teacher}
        writer.update(provenance=provenance.of(student, loaded, machine.device), gates=checked)
    sharding.place(student[0], machine, ranks, spread=machine.shard, needs_recompute=recompute)
    for model, _ in frozen.values():
        fits = sharding.fits_whole(model.num_parameters(), dtype, sharding.device_bytes(machine))
        sharding.place(model, machine, ranks, spread=machine.shard and not fits)
    run = ActiveRun(
        spec=spec,
        ranks=ranks,
        method=method,
        options=options,
        student=student,
        teacher=teacher,
        other=other,
        optimizer=optimizer(student[0], params.train),
        writer=writer,
        sample=samplers.of_run(spec, student[0]),
        shelf=stored.shelf(spec),
    )
    run.branches = tuple(branches(run))
    run.world = ActiveWorld(run) if method.after_step else None
    if teacher and isinstance(teacher[0], served.Teacher):
        prompt = teacher[1](checked["prompt"], add_special_tokens=False).input_ids
        found = teacher[0].self_test(teacher[1], prompt, first_batch.first_k(run))
        if writer:
            writer.update(gates=checked | found)
    return run


def make_student(spec: RunSpec) -> sources.Model:
    """The student: new, loaded, or several checkpoints' weighted sum, in the order of their names."""
    student = spec.params.student
    if isinstance(student, str):
        return models.load(str(spec.checkpoint("student")))
    if isinstance(student, Merged):
        places = {name: str(spec.checkpoint(f"student.{name}")) for name in sorted(student.merge)}
        return models.merged([(student.merge[name], models.load(place)) for name, place in places.items()])
    return fresh.make(student, spec.params.task, spec.seed)


def branches(run: ActiveRun) -> Iterator[tuple[float, ActiveRun]]:
    """The coefficient and the run of each further part of a step; none where a coefficient is 0.

    Raises ValueError for changes that parameters cannot have, and for those of anything but task, source and method.
    """
    for branch in run.method.branches(run.options) if run.method.branches else ():
        where = f"method {run.method.name}, branch {branch.name}"
        params = dotted.with_changes(run.spec.params, branch.changes, ("task", "source", "method"), where)
        method = methods.load(str(params.method["name"]))
        options = dotted.options(method, params, where)
        if branch.coef:
            spec = replace(run.spec, params=params)
            yield branch.coef, replace(run, spec=spec, method=method, options=options, name=branch.name, branches=())


def is_frozen(role: str) -> bool:
    """Whether a role is that of a model which this run does not train."""
    return role in ("teacher", "other") or role.startswith("teacher.")


def optimizer(student: PreTrainedModel, train: Train) -> torch.optim.Optimizer:
    """AdamW over a student's weights."""
    return torch.optim.AdamW(
        student.parameters(), lr=train.lr, betas=(train.beta1, train.beta2), weight_decay=train.weight_decay
    )


def connect(params: RunParams, place: str) -> sources.Model:
    """The teacher as machine.teacher_url has it, with its tokenizer; its weights stay there."""
    assert params.machine.teacher_url is not None
    tokenizer, rows = models.load_tokenizer(place)
    teacher = served.connect(params.machine.teacher_url, place, len(tokenizer), rows)
    if isinstance(params.source, Sampled):
        teacher.require_room(memory.prompt_tokens(params) + params.source.longest)
    return teacher, tokenizer


def new_record(spec: RunSpec) -> RunRecord:
    """The record of a run that begins."""
    return RunRecord(
        folder=spec.folder,
        experiment=spec.experiment,
        profile=spec.profile,
        arm=spec.arm,
        seed=spec.seed,
        status="running",
        identity=spec.identity,
        params=spec.params.said(),
        parents={role: parent.identity for role, parent in spec.parents.items()},
    )
