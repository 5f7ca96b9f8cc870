"""What a function of somebody's own must return: a value of each token, and of that token alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opd_lib.types import Loss

if TYPE_CHECKING:
    from torch import Tensor

FUNCTION = "value"
OLDER = "loss"  # the function of a text that returns types.Loss
KEY = "method.source"


def require_values(found: object, n_tokens: int) -> Tensor:
    """What was found, if it is a value for each of this many tokens. Raises ValueError otherwise."""
    import torch

    if isinstance(found, Loss):
        if not isinstance(found.total, torch.Tensor) or found.total.shape != ():
            raise ValueError(f"{KEY}: {OLDER} returned {found!r}; return a tensor of one number per token")
        if found.n_tokens != n_tokens:
            raise ValueError(f"{KEY}: {OLDER} counts {found.n_tokens} tokens of {n_tokens}; count every one, also at 0")
        found = as_values(found, n_tokens)
    if not isinstance(found, torch.Tensor) or found.shape != (n_tokens,):
        shape = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else repr(found)
        raise ValueError(f"{KEY}: {FUNCTION} returned {shape} for {n_tokens} tokens; return one number per token (N,)")
    if torch.is_grad_enabled() and not found.requires_grad:
        raise ValueError(f"{KEY}: the values do not depend on the student's log-probabilities: nothing to train with")
    return found


def as_values(found: Any, n_tokens: int) -> Tensor:
    """Values; the sum of an older text stands at the first token: only the sum over the tokens counts."""
    import torch

    if isinstance(found, Loss):
        return torch.nn.functional.pad(found.total[None], (0, n_tokens - 1))
    values_N: Tensor = found
    return values_N


def require_alone(whole_X: Tensor, halves_X: Tensor, size: float) -> None:
    """Raise ValueError unless a token's value is the same in half of the batch: a batch is scored in parts.

    `size` is what rounding goes with, also where values cancel.
    """
    import torch

    allowed = 1e-4 + (1e-3 * size if math.isfinite(size) else 0.0)
    if not torch.allclose(whole_X, halves_X, rtol=0.0, atol=allowed, equal_nan=True):
        raise ValueError(
            f"{KEY}: the values sum to {float(whole_X.sum()):.6g} over a batch and to {float(halves_X.sum()):.6g} over "
            "its two halves; a token's value must depend on that token alone: take no mean or maximum over tokens"
        )


def require_gradients(whole: Sequence[Tensor], halves: Sequence[Sequence[Tensor]]) -> None:
    """Raise ValueError unless each token has the gradient it has in half of the batch.

    Sums may add up where gradients do not: that of values less their mean is 0 in a batch and in its halves.
    """
    import torch

    for among_all, *parts in zip(whole, *halves, strict=True):
        apart = torch.cat(parts)
        allowed = 1e-3 * float(among_all.abs().max()) if len(among_all) else 0.0
        allowed = allowed if math.isfinite(allowed) else 0.0
        if not torch.isclose(among_all, apart, rtol=1e-3, atol=allowed, equal_nan=True).all():
            raise ValueError(
                f"{KEY}: another gradient at a token of a batch than at the same token of half the batch; a token's "
                "value must depend on that token alone: take no mean or maximum over tokens"
            )
