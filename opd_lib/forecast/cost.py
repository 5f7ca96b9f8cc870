"""What a step of distillation costs, by arithmetic alone: parameters, FLOPs, the time no machine can beat.

N parameters without embeddings, V vocabulary, H hidden size, L layers, d = heads · head size; B sequences of prompts
(P tokens) and responses (C tokens) have T = B·C response tokens and S = B·(P + C) tokens in all. Products of matrices
count two operations per element; norms, rotations and the softmax are left out. Memory and disk: `forecast/footprint`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from opd_lib.forecast.shapes import BFLOAT16, Shape

Head = Literal["stored", "recomputed", "support"]
HEAD_PASSES = {"stored": 6, "recomputed": 8, "support": 2}  # in units of V·H·T, forward and backward


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The responses of one step. In tokens: `prompt`, and the `mean` and the `longest` response."""

    prompts: int
    per_prompt: int
    prompt: float
    mean: float
    longest: float

    @property
    def sequences(self) -> int:
        """B."""
        return self.prompts * self.per_prompt

    @property
    def response_tokens(self) -> float:
        """T."""
        return self.sequences * self.mean

    @property
    def tokens(self) -> float:
        """S."""
        return self.sequences * (self.prompt + self.mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `sampler` writes the responses (None: the student); `head` and `k` are those of `student_flops`.

    `processes` share the prompts, one accelerator each; `cache_bytes` is the key-value cache of each (None: no limit).
    """

    student: Shape
    teacher: Shape | None
    batch: Batch
    sampler: Shape | None = None
    recompute: bool = False
    head: Head = "stored"
    k: int = 0
    processes: int = 1
    cache_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Operations of one step: sampling, the teacher's scores, forward and backward pass of the student."""

    rollout: float
    teacher: float
    student: float

    @property
    def total(self) -> float:
        """All three."""
        return self.rollout + self.teacher + self.student


def attention_flops(model: Shape, batch: Batch) -> float:
    """Operations of causal attention, forward: 2·L·d·ℓ² for each sequence of ℓ = P + C tokens.

    Scores and weighted sums are 2·ℓ²·d each; the mask halves both.
    """
    return batch.sequences * 2.0 * model.layers * model.query_width * (batch.prompt + batch.mean) ** 2


def forward_flops(model: Shape, batch: Batch) -> float:
    """Operations of one forward pass with the head on response positions only: 2·N·S + 2·V·H·T + attention."""
    return 2.0 * (model.body * batch.tokens + model.head * batch.response_tokens) + attention_flops(model, batch)


def student_flops(model: Shape, batch: Batch, recompute: bool = False, head: Head = "stored", k: int = 0) -> float:
    """Operations of forward and backward pass: three times the forward pass, four with `recompute`d activations.

    `head`: "stored" logits (6·V·H·T), logits computed "recomputed" again in the backward pass (8), or a "support" of k
    tokens that is chosen without gradient and differentiated alone (2·V·H·T + 6·k·H·T).
    """
    passes = 4 if recompute else 3
    on_support = 6.0 * k * model.hidden * batch.response_tokens if head == "support" else 0.0
    head_flops = HEAD_PASSES[head] * model.head * batch.response_tokens + on_support
    return passes * (2.0 * model.body * batch.tokens + attention_flops(model, batch)) + head_flops


def flops(step: Step) -> Flops:
    """Operations of one step on all processes together. No pass for old log-probabilities: none is made."""
    return Flops(
        rollout=forward_flops(step.sampler or step.student, step.batch),
        teacher=forward_flops(step.teacher, step.batch) if step.teacher else 0.0,
        student=student_flops(step.student, step.batch, step.recompute, step.head, step.k),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """Peak bfloat16 rate without sparsity (FLOP/s), memory bandwidth (bytes/s) and memory (bytes)."""

    name: str
    peak: float
    bandwidth: float
    memory: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Seconds that the parts of a step take at least; sampling reads `weights` and `cache` and does `arithmetic`."""

    weights: float
    cache: float
    arithmetic: float
    teacher: float
    student: float

    @property
    def rollout(self) -> float:
        """Sampling: bound by memory traffic, or by arithmetic for very many short responses."""
        return max(self.weights + self.cache, self.arithmetic)

    @property
    def total(self) -> float:
        """One stage after the other, as the loop does it."""
        return self.rollout + self.teacher + self.student


def decode_steps(model: Shape, batch: Batch, cache_bytes: float | None) -> float:
    """How often the weights are read to sample a batch: once per token of the longest response, not of the mean one.

    With a key-value cache of limited size (bytes) fewer sequences are written at a time: B·C tokens in all, at each
    reading as many as sequences of mean length find room.
    """
    if cache_bytes is None:
        return batch.longest
    room = max(1.0, cache_bytes / (model.kv_bytes() * (batch.prompt + batch.mean)))
    return max(batch.longest, batch.response_tokens / min(room, batch.sequences))


def floor(step: Step, machine: Accelerator) -> Floor:
    """Seconds that one step takes at least: arithmetic at the peak rate, sampling at the full bandwidth.

    weights   decode steps × bytes of all weights but the embedding
    cache     bytes per token · B·(C²/2 + P·C): every new token reads all before it

    What the processes tell each other is not counted. Each reads all weights, so sampling does not get faster in
    proportion to their number.
    """
    batch = replace(step.batch, prompts=-(-step.batch.prompts // step.processes))
    writer = step.sampler or step.student
    read_weights = decode_steps(writer, batch, step.cache_bytes) * (writer.body + writer.head) * BFLOAT16
    read_cache = batch.sequences * (batch.mean**2 / 2 + batch.prompt * batch.mean) * writer.kv_bytes()
    work = flops(replace(step, batch=batch))
    return Floor(
        weights=read_weights / machine.bandwidth,
        cache=read_cache / machine.bandwidth,
        arithmetic=work.rollout / machine.peak,
        teacher=work.teacher / machine.peak,
        student=work.student / machine.peak,
    )
