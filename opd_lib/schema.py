"""The schema of a params file: one frozen, strict record per section. Every key is required, none may be added."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from opd_lib.tasks import chain

FILE_KEYS = ("title", "seeds", "arms")  # the keys of a params file that are not parameters of a run


Task = chain.Params


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


class Limit(Strict):
    """From step `step` on, responses have at most `max_new_tokens` tokens."""

    step: Count
    max_new_tokens: Count


class Sampled(Strict):
    """Responses sampled from the student (on-policy) or from the teacher (off-policy).

    `schedule` changes the response limit from given steps on; empty, it is `max_new_tokens` throughout.
    """

    kind: Literal["student", "teacher"]
    prompts_per_step: Count
    per_prompt: Count
    max_new_tokens: Count
    schedule: Annotated[tuple[Limit, ...], BeforeValidator(_as_tuple)]
    temperature: Positive
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]

    def limit(self, step: int) -> int:
        """The response limit at a step (tokens)."""
        begun = [entry for entry in self.schedule if entry.step <= step]
        return max(begun, key=lambda entry: entry.step).max_new_tokens if begun else self.max_new_tokens

    @property
    def longest(self) -> int:
        """The largest response limit of any step (tokens)."""
        return max(self.max_new_tokens, *(entry.max_new_tokens for entry in self.schedule), 0)


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
    """avg@n_samples on n_problems of every test set, at step 0, every `every` steps and at the end.

    `caps` (tokens): the accuracy is also recorded as it would be with a lower response limit.
    """

    every: Count
    n_problems: Annotated[int, Field(ge=1, le=1000)]
    n_samples: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    max_new_tokens: Count
    caps: Integers


class Diagnose(Strict):
    """Diagnostics at each top-k in `ks`; `depth_bucket` in tokens; `examples`: responses kept at each evaluation.

    The table by depth gets rows at step 1 and every `depth_every` steps.
    """

    ks: Integers
    depth_bucket: Count
    depth_every: Count
    examples: Annotated[int, Field(ge=0)]


class TeachersProbe(Strict):
    """How far two teachers are from each other at the states a student visits (H2)."""

    kind: Literal["teachers"]
    batches: Count
    other: str


class ContinuationProbe(Strict):
    """The teacher finishes the student's responses from prefixes of `depths` tokens (Fig 11b).

    `new_tokens`: what the continuation may write in the arm of a fixed budget of new tokens.
    """

    kind: Literal["continuation"]
    batches: Count
    depths: Annotated[Integers, Field(min_length=1)]
    new_tokens: Count


class RewardProbe(Strict):
    """Does the teacher's mean token reward tell right responses from wrong ones (Fig 14)?"""

    kind: Literal["reward"]
    batches: Count


class GradientProbe(Strict):
    """Do the gradients of single tokens add up or cancel (H1)? And those of the objective `against` (H5)?"""

    kind: Literal["gradient"]
    batches: Count
    tokens: Annotated[int, Field(ge=2)]
    against: dict[str, Any]


class Machine(Strict):
    """Where and how it runs; not part of a run's identity.

    `shard`: weights and optimiser are spread over the processes (FSDP2) instead of being kept whole in each.
    `precision` is that of forward and backward passes: weights, gradients' sums and the optimiser are always float32.
    `sampler_cache_gib`: key-value cache of the vLLM engine (GiB). `max_sampler_gap` (nats): the run stops if the mean
    |log-probability of the sampler − of the trainer| of a step's tokens is larger. `memory_gib` and `hours` are asked
    of a cluster.
    """

    processes: Count
    shard: bool
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    sampler: Literal["transformers", "vllm"]
    sampler_cache_gib: Positive
    max_sampler_gap: Positive
    memory_gib: Positive
    hours: Positive


def _kind_of_student(value: object) -> str:
    return "new model" if isinstance(value, dict | NewModel) else "checkpoint"


Student = Annotated[
    Annotated[str, Tag("checkpoint")] | Annotated[NewModel, Tag("new model")], Discriminator(_kind_of_student)
]


Probe = Annotated[
    TeachersProbe | ContinuationProbe | RewardProbe | GradientProbe,
    Field(discriminator="kind"),
]


class RunParams(Strict):
    """Everything that determines a run but its seed and its parents' weights.

    A run with a `probe` measures student and teacher as they are and trains nothing.
    """

    task: Task
    student: Student
    teacher: str | None
    source: Annotated[Sampled | Corpus, Field(discriminator="kind")]
    method: Annotated[dict[str, Any], Field(min_length=1)]
    train: Train
    evaluate: Evaluate
    diagnose: Diagnose
    probe: Probe | None
    machine: Machine

    @property
    def references(self) -> dict[str, str]:
        """role → the checkpoint, hub name or `run:` reference that stands for it; a new model has none."""
        named = {"student": self.student, "teacher": self.teacher, "other": getattr(self.probe, "other", None)}
        return {role: reference for role, reference in named.items() if isinstance(reference, str)}

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's options, without its name."""
        return {key: value for key, value in self.method.items() if key != "name"}
