"""Who of a step's responses counts, and how much: what a method makes of its view before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from opd_lib.engine import batches

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.types import Rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What a method makes of its view of all of this process's responses; None where everything counts alike.

    Tokens (N) are those of all responses in row order.
    """

    advantage_N: Tensor | None = None
    weight_N: Tensor | None = None
    selected_B: Tensor | None = None
    shares: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, rollouts: Rollouts, rows: Tensor) -> Credit:
        """This credit for the tokens (N) of these rows alone."""
        index_N = batches.places(rollouts, rows)
        return replace(
            self,
            advantage_N=None if self.advantage_N is None else self.advantage_N[index_N],
            weight_N=None if self.weight_N is None else self.weight_N[index_N],
            shares={name: share_N[index_N] for name, share_N in self.shares.items()},
        )
