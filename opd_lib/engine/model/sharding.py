"""Where a model's weights are and in which precision it computes: whole in every process, or spread over all (FSDP2).

    weights and optimiser   float32 where they are trained, whole or one share per process
    forward and backward    machine.precision: by autocast on whole weights, on copies gathered from spread ones
    gradients               summed in float32 over the processes, never averaged: the loop has divided the loss already

Spread weights are gathered layer by layer, around each forward and backward pass, by all processes together: passes
through a spread model must be in lock-step. Sampling is not; `sample` gathers all weights for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from opd_lib.engine.model import models
from opd_lib.engine.sampling import rollout
from opd_lib.forecast import footprint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.engine.model.distributed import Ranks
    from opd_lib.params.schema import Machine
    from opd_lib.types import Prompt, Rollouts


def place(
    model: PreTrainedModel, machine: Machine, ranks: Ranks, spread: bool = False, needs_recompute: bool = False
) -> None:
    """Put a model where and how it computes. Its gradients are those of one process with all data, up to rounding.

    `needs_recompute`: activations are not kept but computed again in the backward pass, layer by layer.
    """
    if needs_recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if spread:
        shard(model, machine, ranks)
        return
    model.to(machine.device)
    if compute_dtype(machine) != model.dtype:
        model.with_head = torch.autocast(machine.device, compute_dtype(machine))(partial(models.with_head, model))


def shard(model: PreTrainedModel, machine: Machine, ranks: Ranks) -> None:
    """Spread a model's weights over all processes: each decoder layer is gathered by itself, the rest with the root.

    Raises ValueError if a weight has remained whole or is spread over fewer processes.
    """
    mesh = init_device_mesh(machine.device, (ranks.world,))
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype(machine), reduce_dtype=torch.float32)
    for part in (*model.get_decoder().layers, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        model.set_reshard_after_forward(True)  # no backward pass would do it
    model.with_head = MethodType(models.with_head, model)
    register_fsdp_forward_method(model, "with_head")
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor) or parameter.device_mesh.size() != ranks.world:
            raise ValueError(f"machine.shard: {name} is not spread over {ranks.world} processes; use shard: false")


def is_sharded(model: PreTrainedModel) -> bool:
    """True if this process holds only its share of the weights."""
    return isinstance(model, FSDPModule)


def compute_dtype(machine: Machine) -> torch.dtype:
    """The precision of forward and backward passes."""
    return torch.bfloat16 if machine.precision == "bfloat16" else torch.float32


def fits_whole(n_weights: int, dtype: torch.dtype, device_bytes: int | None) -> bool:
    """Whether a frozen model is kept whole in every process (`footprint.fits_whole`); None: on a CPU."""
    return footprint.fits_whole(n_weights * dtype.itemsize, device_bytes)


def device_bytes(machine: Machine) -> int | None:
    """Memory of this process's device; None for the CPU."""
    return None if machine.device == "cpu" else torch.cuda.get_device_properties().total_memory


@contextmanager
def whole(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block every process holds all weights, in the precision of the passes, and may go at its own pace."""
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    frozen = not any(parameter.requires_grad for parameter in model.parameters())
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model or frozen, recurse=False)


def sampler(machine: Machine) -> rollout.Sample:
    """`rollout.sample` for students and teachers as `place` leaves them, in the precision of the passes.

    As many responses are written at a time as machine.sampler_cache_gib has room for, at least one. Every process of a
    run must call it, each with prompts of its own. A spread model is whole while it samples: a copy of all weights in
    each process, which is for small models.
    """

    def sample(
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        prompts: Sequence[Prompt],
        uniform_BT: Tensor,
        temperature: float,
        top_p: float,
    ) -> Rollouts:
        lower = machine.precision != "float32" and not is_sharded(model)
        tokens = rollout.longest(prompts) + uniform_BT.shape[1]
        slots = rollout.slots(model, tokens, machine.sampler_cache_gib * footprint.GIB, torch.float32.itemsize)
        with whole(model), torch.autocast(machine.device, torch.bfloat16, enabled=lower):
            return rollout.sample(model, tokenizer, prompts, uniform_BT, temperature, top_p, slots)

    return sample


def gathered(model: PreTrainedModel, keep: bool) -> dict[str, Tensor] | None:
    """All weights of a spread model in the machine's memory, tied ones once; None for a model that is whole.

    Every process must call it; where the weights are not to be kept, it returns None as well.
    """
    if not is_sharded(model):
        return None
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        weight = full(parameter.detach())
        if keep:
            found[name] = weight.cpu()
    return found if keep else None


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be spread over the processes; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor as another lies: whole, or spread in the same way. Every process must call it."""
    if isinstance(other, DTensor) and not isinstance(tensor, DTensor):
        return distribute_tensor(tensor, other.device_mesh, other.placements)
    return tensor if isinstance(other, DTensor) else full(tensor)
