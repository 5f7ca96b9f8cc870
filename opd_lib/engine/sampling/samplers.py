"""Which sampler answers prompts in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opd_lib import tasks
from opd_lib.engine import memory
from opd_lib.engine.model import sharding
from opd_lib.engine.sampling import rollout, turns
from opd_lib.params.schema import Sampled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from opd_lib.params import RunSpec


def of_run(spec: RunSpec, student: PreTrainedModel) -> rollout.Sample:
    """The run's sampler, whose responses call the task's tool if it has one."""
    sample = sampler(spec, student)
    task = tasks.load(spec.params.task.name)
    return turns.with_tool(sample, task.respond, task.call) if task.respond else sample


def sampler(spec: RunSpec, student: PreTrainedModel) -> rollout.Sample:
    """What answers prompts in this run: machine.sampler, with room for the longest prompt and response there can be."""
    params = spec.params
    if params.machine.sampler == "transformers":
        return sharding.sampler(params.machine)
    limits = [params.evaluate.max_new_tokens, *([params.source.longest] if isinstance(params.source, Sampled) else [])]
    longest = memory.prompt_tokens(params) + max(limits)
    if params.machine.sampler == "compiled":
        from opd_lib.engine.sampling import rollout_compiled  # imports torch's compiler

        return rollout_compiled.for_run(student, params.machine, longest)
    from opd_lib.engine.sampling import rollout_vllm  # takes seconds, and its package is an extra

    return rollout_vllm.for_run(student, params.machine, longest)
