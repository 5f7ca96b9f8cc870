"""A run on its way: its models, method, optimiser and record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import changes, collapse, memory, score, sources, stored
from opd_lib.engine import teacher as teachers
from opd_lib.engine.sampling import rollout
from opd_lib.maths import signatures

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.engine.model import distributed
    from opd_lib.engine.world import ActiveWorld
    from opd_lib.methods import Method
    from opd_lib.params import RunSpec
    from opd_lib.records.writer import RunWriter
    from opd_lib.types import Rollouts


@dataclass(kw_only=True)
class ActiveRun:
    """What a run holds while it goes on. `writer` is None in the processes that write no files.

    A branch (`coef`, run) is a run that shares models and optimiser and has parameters, method and a `name` of its own.
    `world` is there where the method acts between steps, `watch` where signatures of a collapse are looked for.
    """

    spec: RunSpec
    ranks: distributed.Ranks
    method: Method
    options: Any
    student: sources.Model
    teacher: sources.Model | None
    other: sources.Model | None
    optimizer: torch.optim.Optimizer
    writer: RunWriter | None
    sample: rollout.Sample = rollout.sample
    shelf: stored.Stored | None = None
    world: ActiveWorld | None = None
    branches: tuple[tuple[float, ActiveRun], ...] = ()
    name: str = ""
    watch: collapse.Watch | None = None
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def k(self) -> int:
        """How long the top-k lists must be for the objective, its signals and the diagnostics."""
        reads = self.method.reads(self.options)
        return max(reads.k, score.length(reads.signals), *self.spec.params.diagnose.ks)

    @property
    def authors(self) -> sources.Authors:
        """Who may write its responses."""
        return sources.Authors(student=self.student, teacher=self.teacher, sample=self.sample, shelf=self.shelf)

    def batch_key(self, step: int) -> sources.BatchKey:
        """This process's responses of a step."""
        purpose = f"rollout/{self.name}" if self.name else "rollout"
        return sources.BatchKey(seed=self.spec.seed, step=step, ranks=self.ranks, purpose=purpose)

    @property
    def chunk(self) -> int:
        """For how many tokens logits may exist at a time."""
        return memory.chunk(self.spec.params.machine, self.student[0].config.vocab_size)

    @property
    def objective(self) -> score.Objective:
        """What is taken of each micro-batch."""
        return score.Objective(method=self.method, options=self.options, k=self.k, chunk=self.chunk)

    @property
    def n_positions(self) -> int:
        """How many response positions the depth table covers; what lies beyond counts in its last bucket."""
        source = self.spec.params.source
        return source.longest if source.kind in ("student", "teacher") else self.spec.params.evaluate.max_new_tokens

    @property
    def words(self) -> list[str]:
        """The vocabulary by id."""
        tokens: list[str] = self.student[1].convert_ids_to_tokens(range(len(self.student[1])))
        return tokens

    @cached_property
    def hedges(self) -> list[int]:
        """The tokens that are words of `diagnose.hedges`. Raises ValueError naming one that is no token."""
        named = self.spec.params.diagnose.hedges
        return signatures.ids(self.words, named, "diagnose.hedges") if named else []

    def teacher_output(self, rollouts: Rollouts, rows: Tensor, k: int) -> teachers.TeacherOutput:
        """The teacher's output for the tokens of these rows."""
        return teachers.output(self.teacher and self.teacher[0], rollouts, rows, k)

    def change(self, key: str, value: float) -> None:
        """Another value of source.max_new_tokens, train.lr or an option of the method, from now on.

        Raises ValueError for another key, and for a value that the key cannot have.
        """
        self.spec, self.options = changes.changed(self.spec, self.method, key, value)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall seconds of a block to a stage, with what it has asked an accelerator for."""
        begin = perf_counter()
        yield
        if self.spec.params.machine.device == "cuda":
            torch.cuda.synchronize()
        self.seconds[stage] += perf_counter() - begin
