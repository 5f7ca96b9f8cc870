"""The schema of a params file: one frozen, strict record per section. Every key is required, none may be added."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

FILE_KEYS = ("title", "seeds", "arms")  # the keys of a params file that are not parameters of a run


class Strict(BaseModel):
    """A record that takes nothing it does not know and coerces nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Integers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]


class NewModel(Strict):
    """A randomly initialised Qwen3 model of the tiny world."""

    layers: Count
    hidden: Count
    heads: Count
    context: Count
    rope_theta: Positive
    initializer_range: Positive


class Task(Strict):
    """What is asked: training content and template, test sets and their template."""

    name: Literal["chain"]
    content: str
    template: str
    test_sets: Words
    test_template: str


class Sampled(Strict):
    """Responses sampled from the student (on-policy) or from the teacher (off-policy)."""

    kind: Literal["student", "teacher"]
    prompts_per_step: Count
    per_prompt: Count
    max_new_tokens: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]


class Corpus(Strict):
    """Responses written by the corpus generator of the tiny world."""

    kind: Literal["corpus"]
    prompts_per_step: Count
    templates: Words
    pattern_b: Probability
    filler_before_step: Probability
    filler_anywhere: Probability
    slip_operands: Integers
    slip_probability: Probability


class Train(Strict):
    """Optimisation: AdamW. `warmup` and `decay` are steps of linear ramp at the start and at the end."""

    steps: Count
    lr: Positive
    warmup: Annotated[int, Field(ge=0)]
    decay: Annotated[int, Field(ge=0)]
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)]
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: Positive
    micro_tokens: Count
    checkpoint_every: Count


class Evaluate(Strict):
    """avg@n_samples on n_problems of every test set, at step 0, every `every` steps and at the end."""

    every: Count
    n_problems: Annotated[int, Field(ge=1, le=1000)]
    n_samples: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    max_new_tokens: Count


class Diagnose(Strict):
    """Diagnostics at each top-k in `ks`; `depth_bucket` in tokens; `examples`: responses kept at each evaluation."""

    ks: Integers
    depth_bucket: Count
    examples: Annotated[int, Field(ge=0)]


class Machine(Strict):
    """Where it runs; not part of a run's identity."""

    processes: Count
    device: Literal["cpu", "cuda"]


def _kind_of_student(value: object) -> str:
    return "new model" if isinstance(value, dict | NewModel) else "checkpoint"


Student = Annotated[
    Annotated[str, Tag("checkpoint")] | Annotated[NewModel, Tag("new model")], Discriminator(_kind_of_student)
]


class RunParams(Strict):
    """Everything that determines a run but its seed and its parents' weights."""

    task: Task
    student: Student
    teacher: str | None
    source: Annotated[Sampled | Corpus, Field(discriminator="kind")]
    method: Annotated[dict[str, Any], Field(min_length=1)]
    train: Train
    evaluate: Evaluate
    diagnose: Diagnose
    machine: Machine

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's options, without its name."""
        return {key: value for key, value in self.method.items() if key != "name"}
