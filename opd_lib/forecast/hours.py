"""How long runs take at least, in seconds, before anything is loaded: `forecast/cost` applied to a run's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log

from opd_lib.forecast import cost, hardware
from opd_lib.forecast.cost import Accelerator, Batch, Step
from opd_lib.forecast.footprint import GIB
from opd_lib.forecast.shapes import Shape
from opd_lib.params.schema import RunParams, Sampled

Shapes = Mapping[str, Shape]
MEASURED_AT = 7168
TEST_SIZES = {"aime24": 30, "aime25": 30, "amc23-83": 83, "amc23-40": 40}
"""Problems of a test set, where there may be fewer than evaluate.n_problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What cannot be known beforehand.

    `efficiency`: the share of the floor's speed that is reached. `cut_thinking`, `cut_spoken`: the share of responses
    longer than MEASURED_AT tokens, of models that think at length (the authors report about .6 for R1-Distill-1.5B) and
    of those that do not (about .075 for Qwen3-1.7B-SFT); lengths are taken to be exponential. `prompt`: tokens.
    """

    accelerator: Accelerator = hardware.H100
    efficiency: float = 0.4
    cut_thinking: float = 0.6
    cut_spoken: float = 0.075
    prompt: float = 150.0

    def mean(self, params: RunParams, limit: float) -> float:
        """Mean tokens of a response under a limit; in the tiny world, the limit."""
        if params.task.name != "math":
            return limit
        scale = -MEASURED_AT / log(self.cut_thinking if params.task.thinking else self.cut_spoken)
        return scale * (1.0 - exp(-limit / scale))

    def beyond(self, params: RunParams, depth: float) -> float:
        """The share of responses longer than `depth` tokens."""
        if params.task.name != "math":
            return 1.0
        return float((self.cut_thinking if params.task.thinking else self.cut_spoken) ** (depth / MEASURED_AT))


def work(params: RunParams, found: Shapes, assumed: Assumptions, recompute: bool) -> float:
    """Floor seconds of what a run does beside evaluating: its steps, or the batches of its probe."""
    if params.probe is not None:
        return params.probe.batches * probe_batch(params, found, assumed)
    source = params.source
    if not isinstance(source, Sampled):
        mean = assumed.mean(params, params.evaluate.max_new_tokens)
        step = step_of(params, found, assumed, mean, mean, recompute)
        seconds = cost.floor(step, assumed.accelerator)
        return params.train.steps * (seconds.teacher + seconds.student)
    limits = [source.limit(step) for step in range(1, params.train.steps + 1)]
    floors = {
        limit: cost.floor(
            step_of(params, found, assumed, assumed.mean(params, limit), limit, recompute), assumed.accelerator
        )
        for limit in set(limits)
    }
    return sum(floors[limit].total for limit in limits)


def step_of(
    params: RunParams, found: Shapes, assumed: Assumptions, mean: float, longest: float, recompute: bool
) -> Step:
    """One step of a run with responses of these lengths."""
    source, machine = params.source, params.machine
    return Step(
        student=found["student"],
        teacher=found.get("teacher"),
        batch=Batch(
            prompts=source.prompts_per_step,
            per_prompt=getattr(source, "per_prompt", 1),
            prompt=assumed.prompt,
            mean=mean,
            longest=longest,
        ),
        sampler=found["teacher"] if source.kind == "teacher" else None,
        recompute=recompute,
        processes=machine.processes,
        cache_bytes=machine.sampler_cache_gib * GIB if machine.sampler == "vllm" else None,
    )


def probe_batch(params: RunParams, found: Shapes, assumed: Assumptions) -> float:
    """Floor seconds of one batch of a probe: its responses, and what is done with them."""
    source, probe, machine = params.source, params.probe, assumed.accelerator
    assert probe is not None and isinstance(source, Sampled)  # params refuses others
    mean = assumed.mean(params, source.max_new_tokens)
    step = step_of(params, found, assumed, mean, source.max_new_tokens, recompute=False)
    floor = cost.floor(step, machine)
    if probe.kind == "rollouts":
        return floor.rollout
    forward = sum(cost.forward_flops(model, step.batch) for model in found.values()) / machine.peak
    if probe.kind == "gradient":
        return floor.rollout + forward + 2 * floor.student  # one backward pass for each of two objectives
    if probe.kind != "continuation":
        return floor.rollout + forward
    kept = max(1, round(step.batch.sequences * assumed.beyond(params, max(probe.depths))))
    seconds = floor.rollout
    for depth in probe.depths:
        longest = max(source.max_new_tokens - depth, probe.new_tokens)
        added = Batch(
            prompts=kept,
            per_prompt=1,
            prompt=assumed.prompt + depth,
            mean=assumed.mean(params, longest),
            longest=longest,
        )
        for author in (found["student"], found["teacher"]):
            seconds += cost.floor(replace(step, sampler=author, batch=added), machine).rollout
    return seconds


def n_evaluations(params: RunParams) -> int:
    """How often a run evaluates: before the first step, every so many, and at the end; a probe never."""
    if params.probe is not None:
        return 0
    whole, rest = divmod(params.train.steps, params.evaluate.every)
    return 1 + whole + (rest > 0)


def evaluation(params: RunParams, student: Shape, assumed: Assumptions) -> float:
    """Floor seconds of one evaluation; the processes share its responses."""
    settings, machine = params.evaluate, params.machine
    problems = sum(
        min(settings.n_problems, TEST_SIZES.get(name, settings.n_problems)) for name in params.task.test_sets
    )
    batch = Batch(
        prompts=problems, per_prompt=settings.n_samples, prompt=assumed.prompt,
        mean=assumed.mean(params, settings.max_new_tokens), longest=settings.max_new_tokens,
    )  # fmt: skip
    cache = machine.sampler_cache_gib * GIB if machine.sampler == "vllm" else None
    step = Step(student=student, teacher=None, batch=batch, processes=machine.processes, cache_bytes=cache)
    return cost.floor(step, assumed.accelerator).rollout
