"""EffOPD: weights are extrapolated along the way they have come, as far as a few training prompts agree.

At steps 1, 2, 4, 8, …:  Δ = W − anchor,  candidates W + 2kΔ, k = 1 … k_max, each tried on `tried` training prompts;
the first that is not better than the best so far ends the search, the best becomes the student and the new anchor.
Between them, a step is one of `opd`. The first anchor is the student before training.

Source: arXiv 2605.11739 and its code. The optimiser's moments stay as they are; with k_max 0 it is `opd`.
Differs from the paper, as its code does: a candidate must be strictly better (not at least as good), and only attention
and MLP matrices move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from opd_lib.methods import opd
from opd_lib.methods.opd import NEEDS as NEEDS
from opd_lib.methods.opd import check as check
from opd_lib.methods.opd import check_served as check_served
from opd_lib.methods.opd import reads as reads
from opd_lib.methods.opd import value as value
from opd_lib.seam import State, World

MATRICES = ("*.self_attn.*_proj.weight", "*.mlp.*_proj.weight")


class Params(opd.Params):
    """The objective's options, and how far weights are extrapolated."""

    k_max: Annotated[int, Field(ge=0, le=10**6, description="candidates at most; 0: none")]
    tried: Annotated[int, Field(ge=1, le=10**6, description="training prompts that a candidate answers")]


def after_step(world: World, row: Mapping[str, float], state: State, params: Params) -> State:
    """Extrapolate at steps that are powers of two. `k` in the state: the candidate last taken, 0 for none."""
    step = int(row["step"])
    if step == 0:
        world.combine("anchor", {"student": 1.0})
    if params.k_max == 0 or step == 0 or step & (step - 1):
        return state
    world.combine("here", {"student": 1.0})
    best, taken = world.accuracy(params.tried), 0
    for k in range(1, params.k_max + 1):
        world.combine("student", candidate(k), MATRICES)
        found = world.accuracy(params.tried)
        if found <= best:
            break
        best, taken = found, k
    world.combine("student", candidate(taken), MATRICES)
    world.combine("anchor", {"student": 1.0})
    return {"k": float(taken)}


def candidate(k: int) -> dict[str, float]:
    """W + 2kΔ as shares of the weights here and at the anchor; W itself to the bit for k = 0."""
    return {"here": 1.0 + 2.0 * k, "anchor": -2.0 * k} if k else {"here": 1.0}


def check_ungraded(params: Params) -> None:
    """Refuse to try candidates where nobody knows which answers are right. Raises ValueError."""
    if params.k_max:
        raise ValueError(
            f"method.k_max: {params.k_max}: candidates are compared by their accuracy, but nothing is graded; use "
            "k_max: 0, or a task.grader other than none"
        )
