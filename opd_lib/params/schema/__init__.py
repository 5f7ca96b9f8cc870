"""The schema of a params file: one frozen, strict record per section. No key may be added.

Every key is required, but for those that have a neutral default: a file that leaves one out says what it said before
the key was there, and its runs are the same runs.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from opd_lib.params.schema.base import (
    Checkpoint,
    Count,
    Counts,
    Nucleus,
    Positive,
    Rate,
    Size,
    Strict,
    Temperature,
    Tokens,
    Whole,
    as_tuple,
    distinct,
)
from opd_lib.params.schema.machine import Machine
from opd_lib.params.schema.probes import (
    ContinuationProbe,
    GradientProbe,
    MixtureProbe,
    PrefixProbe,
    Probe,
    RewardProbe,
    RolloutsProbe,
    TeachersProbe,
)
from opd_lib.params.schema.sources import Answers, Corpus, Limit, Sampled, Source, Stored, TaggedTraces, Traces
from opd_lib.tasks import chain, labelled, math, prompts, tagged, tool

__all__ = [
    "FILE_KEYS",
    "SELF",
    "Answers",
    "ContinuationProbe",
    "Corpus",
    "Diagnose",
    "Evaluate",
    "GradientProbe",
    "Limit",
    "Machine",
    "Merged",
    "MixtureProbe",
    "NewModel",
    "NewTextModel",
    "PrefixProbe",
    "Probe",
    "RewardProbe",
    "RolloutsProbe",
    "RunParams",
    "Sampled",
    "Source",
    "Stored",
    "TaggedTraces",
    "Task",
    "TeachersProbe",
    "Traces",
    "Train",
]

SELF = "self"  # the teacher that is the student as it stands
FILE_KEYS = ("title", "seeds", "arms")  # the keys of a params file that are not parameters of a run
Task = chain.Params | labelled.Params | math.Params | prompts.Params | tagged.Params | tool.Params


class NewModel(Strict):
    """A randomly initialised Qwen3 model of the tiny world."""

    layers: Annotated[int, Field(ge=1, le=1000)]
    hidden: Annotated[int, Field(ge=2, le=10**5)]
    heads: Annotated[int, Field(ge=1, le=1000)]
    context: Tokens
    rope_theta: Annotated[float, Field(ge=1.0, le=1e12)]
    initializer_range: Annotated[float, Field(ge=1e-6, le=10.0)]

    @model_validator(mode="after")
    def _heads_fit(self) -> NewModel:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden: {self.hidden} for {self.heads} heads; use a multiple of {2 * self.heads}")
        return self


class NewTextModel(NewModel):
    """A randomly initialised Qwen3 model of real text: a rehearsal of a large one.

    Its tokenizer is trained on the task's questions and has at most `vocabulary` tokens (byte-level BPE).
    """

    vocabulary: Annotated[int, Field(ge=512, le=10**6)]


class Merged(Strict):
    """A student made of checkpoints (run: references, folders or hub names): Σ weight · checkpoint, in float32."""

    merge: Annotated[dict[str, float], Field(min_length=2)]


class Train(Strict):
    """Optimisation: AdamW. `warmup` and `decay` are steps of linear ramp at the start and at the end.

    With `steps: 0` a checkpoint is evaluated as it is and handed on: what other notebooks call by a name of ours.
    """

    steps: Whole
    lr: Rate
    warmup: Whole
    decay: Whole
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)]
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0, le=1000.0)]
    max_grad_norm: Positive
    micro_tokens: Count
    checkpoint_every: Count


class Evaluate(Strict):
    """avg@n_samples on n_problems of every test set, at step 0, every `every` steps and at the end.

    `caps` (tokens): the accuracy is also recorded as it would be with a lower response limit.
    """

    every: Count
    n_problems: Annotated[int, Field(ge=1, le=1000)]
    n_samples: Size
    temperature: Temperature
    top_p: Nucleus
    max_new_tokens: Tokens
    caps: Counts


class Diagnose(Strict):
    """Diagnostics at each top-k in `ks`; `depth_bucket` in tokens; `examples`: responses kept at each evaluation.

    The table by depth gets rows at step 1 and every `depth_every` steps. `hedges`: words whose share is recorded at
    every step, and with it the other signatures of a collapse (maths/signatures); without words, none.
    """

    ks: Annotated[Counts, Field(min_length=1)]
    depth_bucket: Count
    depth_every: Count
    examples: Whole
    hedges: Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(distinct)] = ()


def _kind_of_student(value: object) -> str:
    if isinstance(value, NewTextModel) or (isinstance(value, dict) and "vocabulary" in value):
        return "new text model"
    if isinstance(value, Merged) or (isinstance(value, dict) and "merge" in value):
        return "merged"
    return "new model" if isinstance(value, dict | NewModel) else "checkpoint"


Student = Annotated[
    Annotated[Checkpoint, Tag("checkpoint")]
    | Annotated[NewModel, Tag("new model")]
    | Annotated[NewTextModel, Tag("new text model")]
    | Annotated[Merged, Tag("merged")],
    Discriminator(_kind_of_student),
]

Teacher = Annotated[
    Annotated[Checkpoint, Tag("checkpoint")]
    | Annotated[dict[str, Checkpoint], Field(min_length=1), Tag("teachers by name")],
    Discriminator(lambda value: "teachers by name" if isinstance(value, dict) else "checkpoint"),
]


class RunParams(Strict):
    """Everything that determines a run but its seed and its parents' weights.

    A run with a `probe` measures student and teacher as they are and trains nothing. `teacher: self` is the student as
    it stands at each step; a mapping gives several teachers names.
    """

    task: Annotated[Task, Field(discriminator="name")]
    student: Student
    teacher: Teacher | None
    source: Source
    method: Annotated[dict[str, Any], Field(min_length=1)]
    train: Train
    evaluate: Evaluate
    diagnose: Diagnose
    probe: Probe | None
    machine: Machine

    @property
    def references(self) -> dict[str, str]:
        """role → the checkpoint, hub name or `run:` reference that stands for it; a new model has none, nor has self.

        Roles are student, teacher, a probe's other and the run whose stored rollouts are the source; `teacher.NAME`
        where teachers have names, `student.REFERENCE` where a student is merged.
        """
        parts = sorted(self.student.merge) if isinstance(self.student, Merged) else []
        named = {
            "student": self.student,
            **{f"student.{reference}": reference for reference in parts},
            "teacher": None if self.teacher == SELF else self.teacher,
            **{f"teacher.{name}": self.named_teachers[name] for name in sorted(self.named_teachers)},
            "other": getattr(self.probe, "other", None),
            "rollouts": getattr(self.source, "rollouts", None),
        }
        return {role: reference for role, reference in named.items() if isinstance(reference, str)}

    @property
    def named_teachers(self) -> dict[str, str]:
        """Name → reference of each teacher; empty if there is one without a name, or none."""
        return self.teacher if isinstance(self.teacher, dict) else {}

    def said(self) -> dict[str, Any]:
        """What the file says, as plain values: keys that are at their neutral default are left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def only_evaluates(self) -> bool:
        """True if it takes a checkpoint as it is: no step is made, nothing is measured but its accuracy."""
        return self.probe is None and self.train.steps == 0

    @property
    def trains(self) -> bool:
        """True if it makes steps: neither a probe nor a checkpoint that is only evaluated."""
        return self.probe is None and self.train.steps > 0

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's options, without its name."""
        return {key: value for key, value in self.method.items() if key != "name"}
