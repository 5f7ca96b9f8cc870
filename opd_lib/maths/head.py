"""The head: the matrix that makes logits of a model's last hidden states, and the gradient through it, by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from opd_lib.maths import logprobs


class TeacherLogits(Protocol):
    """The logits that a teacher gives N tokens, made a few at a time."""

    def logits(self, part: slice) -> Tensor:
        """Logits (n, V) of some tokens."""

    def logits_of(self, part: slice, id_NC: Tensor) -> Tensor:
        """Logits (n, C) of some tokens, for the given ids of the vocabulary alone."""


class Head:
    """The last hidden states of N tokens, and the matrix that makes logits of them, in the precision of the passes."""

    def __init__(self, hidden_NH: Tensor, weight_VH: Tensor) -> None:
        device = hidden_NH.device.type
        autocast = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if autocast else hidden_NH.dtype
        self.leaves = (hidden_NH, weight_VH)
        self.hidden_NH = hidden_NH.detach().to(self.dtype)
        self.weight_VH = weight_VH.detach().to(self.dtype)

    def copy(self) -> Head:
        """A head with the same hidden states and a matrix of its own, which nobody else frees or changes."""
        return Head(self.hidden_NH, self.weight_VH.clone())

    def logits(self, part: slice) -> Tensor:
        """Logits (n, V) of some tokens."""
        return torch.nn.functional.linear(self.hidden_NH[part], self.weight_VH)

    def logits_of(self, part: slice, id_NC: Tensor) -> Tensor:
        """Logits (n, C) of some tokens, for the given ids of the vocabulary alone."""
        return torch.einsum("nh,nch->nc", self.hidden_NH[part], self.weight_VH[id_NC])


class CombinedLogits:
    """Several teachers by name, and one distribution: what `combine` makes of their log-probabilities (n, V).

    Without it that is the first teacher's.
    """

    def __init__(
        self, named: Mapping[str, TeacherLogits], combine: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    ) -> None:
        self.named, self.combine = named, combine

    def logits(self, part: slice) -> Tensor:
        """Logits (n, V) of some tokens."""
        if self.combine is None:
            return next(iter(self.named.values())).logits(part)
        return self.combine({name: logprobs.log_softmax(each.logits(part)) for name, each in self.named.items()})

    def logits_of(self, part: slice, id_NC: Tensor) -> Tensor:
        """Logits (n, C) of some tokens, gathered from all."""
        return self.logits(part).gather(1, id_NC)

    def named_logp(self, token_N: Tensor, part: slice) -> dict[str, Tensor]:
        """Each teacher's log-probability (n, nats) of the given tokens."""
        return {
            name: logprobs.at(logprobs.log_softmax(each.logits(part)), token_N[:, None])[:, 0]
            for name, each in self.named.items()
        }


class Gradient:
    """Gradients of hidden states (N, H) and head (V, H), added up chunk by chunk, the head's in float32 or better."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.hidden_NH = torch.empty_like(head.hidden_NH)
        self.weight_VH: Tensor | None = None

    def add(self, part: slice, delta_NX: Tensor, id_NC: Tensor | None) -> None:
        """Count in a chunk's gradient at its logits: all of them, or those of given ids."""
        hidden_NH, weight_VH = self.head.hidden_NH[part], self.head.weight_VH
        if id_NC is not None:
            self.hidden_NH[part] = torch.einsum("nc,nch->nh", delta_NX, weight_VH[id_NC])
            if self.weight_VH is None:
                self.weight_VH = torch.zeros_like(weight_VH, dtype=_precise(weight_VH.dtype))
            rows_MH = (delta_NX[:, :, None] * hidden_NH[:, None]).flatten(0, 1).to(self.weight_VH.dtype)
            self.weight_VH.index_add_(0, id_NC.flatten(), rows_MH)
            return
        torch.mm(delta_NX, weight_VH, out=self.hidden_NH[part])
        if self.weight_VH is None:
            self.weight_VH = (delta_NX.t() @ hidden_NH).to(_precise(weight_VH.dtype))
        elif self.weight_VH.dtype == delta_NX.dtype:
            self.weight_VH.addmm_(delta_NX.t(), hidden_NH)
        else:
            self.weight_VH += delta_NX.t() @ hidden_NH

    def attached(self, value: Tensor) -> Tensor:
        """A scalar of this value which, differentiated, hands these gradients to hidden states and head, once."""
        scalar: Tensor = _Known.apply(value, *self.head.leaves, self)  # type: ignore[no-untyped-call]
        return scalar

    def take(self) -> tuple[Tensor, Tensor]:
        """Both, as their leaves want them; they are given away."""
        if self.weight_VH is None:
            raise RuntimeError("a streamed loss can be differentiated once; score the tokens again")
        hidden_NH, weight_VH, self.weight_VH = self.hidden_NH, self.weight_VH, None
        return hidden_NH.to(self.head.leaves[0].dtype), weight_VH.to(self.head.leaves[1].dtype)


class _Known(torch.autograd.Function):
    """A scalar whose gradients with respect to hidden states and head are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, hidden_NH: Tensor, weight_VH: Tensor, gradient: Gradient) -> Tensor:
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[None, Tensor, Tensor, None]:
        hidden_NH, weight_VH = ctx.gradient.take()
        return None, hidden_NH.mul_(factor), weight_VH.mul_(factor), None


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
