"""What an engine of its own is given of the trainer's model and numbers: configuration, weights, seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from opd_lib.engine.model import sharding
from opd_lib.maths import sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel


def seed(uniform_T: Tensor) -> int:
    """A generator's seed from the first two numbers of a row, so that a row cut short keeps its seed."""
    content = sampling.coarse(uniform_T[:2]).double().cpu().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big")


def weights(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every weight by name, whole, one at a time. vLLM may keep a tied head apart, so it is handed over as well."""
    for name, tensor in model.state_dict().items():
        yield name, sharding.full(tensor).to(dtype)


def save_config(model: PreTrainedModel, folder: str) -> None:
    """The model's configuration under the name of its class in transformers, which a sharded model no longer has."""
    name = next(kind.__name__ for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))
    type(model.config).from_dict(model.config.to_dict() | {"architectures": [name]}).save_pretrained(folder)
