"""A run on its way: its models, method, optimiser and record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from opd_lib import methods
from opd_lib.engine import checkpoint, distributed, gates, models, rollout, score, sources
from opd_lib.report.record import RunRecord, RunWriter

if TYPE_CHECKING:
    from opd_lib.params import RunSpec
    from opd_lib.types import Rollouts


@dataclass(kw_only=True)
class Run:
    """What a run holds while it goes on. `writer` is None in the processes that write no files."""

    spec: RunSpec
    ranks: distributed.Ranks
    method: methods.Method
    options: Any
    student: sources.Model
    teacher: sources.Model | None
    other: sources.Model | None
    optimizer: torch.optim.Optimizer
    writer: RunWriter | None
    sample: rollout.Sample = rollout.sample
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def k(self) -> int:
        """How long the top-k lists must be for the objective and the diagnostics."""
        vocabulary = self.student[0].config.vocab_size
        wanted = self.method.n_candidates(self.options, vocabulary) if self.method.n_candidates else 0
        return max(wanted, *self.spec.params.diagnose.ks, 0)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall seconds of a block to a stage."""
        begin = perf_counter()
        yield
        self.seconds[stage] += perf_counter() - begin


def start(spec: RunSpec, ranks: distributed.Ranks, writer: RunWriter | None) -> Run:
    """Load or make the models, the method and the optimiser."""
    params, device = spec.params, spec.params.machine.device
    place = spec.checkpoint("student")
    if isinstance(params.student, str):
        student = models.load(str(place), device)
    else:
        student = models.new_model(params.student, spec.seed).to(device), models.chain_tokenizer()
    teacher_place = spec.checkpoint("teacher")
    teacher = models.load(teacher_place, device) if teacher_place else None
    other_place = spec.checkpoint("other")
    other = models.load(other_place, device) if other_place else None
    checked: dict[str, Any] = {}
    for model in (teacher, other):
        if model:
            model[0].requires_grad_(False).eval()
            checked = gates.same_vocabulary(student, model) | gates.same_prompt(params, student, model)
    method = methods.load(params.method["name"])
    options = method.Params(**params.method_options)
    if method.check is not None:
        method.check(options, student[0].config.vocab_size, teacher is not None)
    optimizer = torch.optim.AdamW(
        student[0].parameters(),
        lr=params.train.lr,
        betas=(params.train.beta1, params.train.beta2),
        weight_decay=params.train.weight_decay,
    )
    if writer:
        writer.update(provenance=checkpoint.provenance(student, teacher, other, device), gates=checked)
    return Run(
        spec=spec,
        ranks=ranks,
        method=method,
        options=options,
        student=student,
        teacher=teacher,
        other=other,
        optimizer=optimizer,
        writer=writer,
    )


def check(run: Run, rollouts: Rollouts) -> None:
    """Pass every gate that applies to this run's first batch, and record what they measured."""
    params, model = run.spec.params, run.student[0]
    found: dict[str, Any] = {}
    with torch.no_grad():
        rows = score.micro_batches(rollouts, params.train.micro_tokens)[0]
        scores = score.score(model, run.teacher and run.teacher[0], rollouts, rows, run.k)
    if run.teacher:
        found |= gates.teacher_speaks(scores, len(run.student[1]))
        if "teacher" in run.method.needs:
            found |= gates.gradient_sees_teacher(run.method, run.options, model, run.teacher[0], rollouts, run.k)
    if params.source.kind == "student":
        found |= gates.sampler_agrees(rollouts, scores)
    if run.writer:
        run.writer.update(gates=run.writer.record.gates | found)


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
        params=spec.params.model_dump(mode="json"),
        parents={role: parent.identity for role, parent in spec.parents.items()},
    )


def n_positions(run: Run) -> int:
    """How many response positions the depth table covers; what lies beyond counts in its last bucket."""
    source = run.spec.params.source
    return run.spec.params.evaluate.max_new_tokens if source.kind == "corpus" else source.longest


def words(run: Run) -> list[str]:
    """The vocabulary by id."""
    tokens: list[str] = run.student[1].convert_ids_to_tokens(range(len(run.student[1])))
    return tokens
