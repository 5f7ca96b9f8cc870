"""Gradient descent on the logits of one context, by the exact gradients of `truncation`: how mass leaves a support.

Contexts are rows and go on side by side, each with its own learning rate. Prefixes do not move and nothing is sampled,
so what is seen here is the objective and the optimiser alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_lib.maths import truncation

OPTIMISERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
SPILT = 0.3
"""The share of mass outside the support from which on it is called lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A descent: mass on the support before each step and after the last (steps + 1, R), and the last logits (R, V)."""

    mass_TR: Tensor
    logits_RV: Tensor


def head_and_tail(head: Sequence[float], tail: Sequence[float], vocabulary: int) -> Tensor:
    """Log-probabilities (R, V): the shares `head`, and for each row its `tail` spread evenly over the other tokens."""
    shares = torch.tensor(head, dtype=torch.float64)
    rest = torch.tensor(tail, dtype=torch.float64)[:, None]
    others = vocabulary - len(head)
    return torch.cat([(1.0 - rest) * shares / shares.sum(), (rest / others).expand(-1, others)], 1).log()


def descend(
    objective: str,
    start_RV: Tensor,
    logq: Tensor,
    k: int,
    lr: Sequence[float],
    steps: int,
    optimiser: str = "adam",
    is_fixed: bool = False,
) -> Course:
    """Descend from these logits towards teachers (R, V), or the mean objective of several (T, R, V).

    The support is the student's k likeliest tokens, chosen anew before each step unless `is_fixed`; for `full` it is
    the vocabulary, and the mass is that of the student's k likeliest all the same.
    Raises ValueError for an unknown objective or optimiser, and unless there is a learning rate for each row.
    """
    if optimiser not in OPTIMISERS or len(lr) != len(start_RV):
        raise ValueError(
            f"optimiser {optimiser!r}, {len(lr)} rates: choose from {', '.join(OPTIMISERS)}; one rate a row"
        )
    rows = [row.clone() for row in start_RV]
    update = OPTIMISERS[optimiser]([{"params": [row], "lr": rate} for row, rate in zip(rows, lr, strict=True)])
    first, listed = truncation.top(start_RV, k), truncation.top(logq, k)
    masses = []
    for _ in range(steps):
        logits_RV = torch.stack(rows)
        watched = first if is_fixed else truncation.top(logits_RV, k)
        masses.append(truncation.mass(logits_RV.log_softmax(-1), watched))
        support = torch.ones_like(watched) if objective == "full" else watched
        slope_RV = truncation.gradient(objective, logits_RV, logq, support, listed)
        for row, slope in zip(rows, slope_RV, strict=True):
            row.grad = slope
        update.step()
    end_RV = torch.stack(rows)
    masses.append(truncation.mass(end_RV.log_softmax(-1), first if is_fixed else truncation.top(end_RV, k)))
    return Course(mass_TR=torch.stack(masses), logits_RV=end_RV)


def onsets(course: Course, share: float = SPILT) -> list[float]:
    """For each row the first step at which more than `share` lies outside the support; nan if none."""
    spilt_TR = 1.0 - course.mass_TR > share
    first_R = spilt_TR.int().argmax(0)
    return [float(step) if bool(spilt) else float("nan") for step, spilt in zip(first_R, spilt_TR.any(0), strict=True)]
