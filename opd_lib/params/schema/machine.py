"""`machine:` of a params file: where and how a run is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from opd_lib.params.schema.base import Count, Gib, Hours, Positive, Strict, Whole


class Machine(Strict):
    """Where and how it runs; not part of a run's identity.

    `shard`: weights and optimiser are spread over the processes (FSDP2) instead of being kept whole in each.
    `precision` is that of forward and backward passes: weights, gradients' sums and the optimiser are always float32.
    `keep_checkpoints`: how many checkpoints of sharded weights stay (whole weights: one, replaced as a whole).
    `diagnose_every`: entropies, exact KL and overlaps are measured at every so many steps, at the first and where the
    student is evaluated; training does not change. `kept_problems`: of each test set so many are answered at each
    evaluation and kept token by token (engine/tokens). `logits_gib`: the logits of so many tokens exist at a time as
    this holds (GiB; see maths/streaming). `sampler`: the model's own forward pass (transformers), the same compiled
    (on an accelerator into CUDA graphs; for models that one process holds), or an engine for models that answer at
    length (vllm). `sampler_cache_gib`: its key-value cache (GiB); what does not fit waits until a response is finished.
    `max_sampler_gap` (nats): the run stops if the mean |log-probability of the sampler − of the trainer| of a step's
    tokens is larger.
    `teacher_url`: the vLLM server that has the teacher, as http://HOST:8000; null keeps it in the run's own processes.
    `network`: the interface (such as eth1) over which the processes of a run on several machines meet; whoever else
    reaches that network can run code as you (engine/model/distributed). Null: one machine, its loopback interface.
    `memory_gib` and `hours` are asked of a cluster.
    `stop_on_collapse`: a run whose signatures cross (engine/collapse) stops there instead of saying so alone; its
    record is that of a run that failed.
    """

    processes: Annotated[int, Field(ge=1, le=10**5)]
    shard: bool
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    keep_checkpoints: Count
    sampler: Literal["transformers", "compiled", "vllm"]
    diagnose_every: Count
    kept_problems: Whole
    logits_gib: Gib
    sampler_cache_gib: Gib
    max_sampler_gap: Positive
    teacher_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+(/\S*)?$")] | None
    memory_gib: Gib
    hours: Hours
    network: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    stop_on_collapse: bool = False
