"""Prune-OPD: once the student has left what the teacher knows, later tokens count less, and responses need not go on.

    bad_t = 1 where the top-k overlap at token t is below `threshold`          w_t = max(0, 1 − drop · Σ_{s ≤ t} bad_s)
    loss  = that of `opd` with each token's value times w_t + base

A response's effective length is the number of its tokens with w > 0. Where at least `hit_share` of the responses come
within `margin` tokens of the limit, the limit grows by `limit_step`; after `patience` steps in a row without, it
shrinks by as much, between `limit_least` and `limit_most`. `limit_step: 0` leaves it alone.

Source: arXiv 2605.07804, abstract, and a fork of its code. Differs: one global token mean; the limit starts at
`limit_start`. With threshold 0 and base 0 every weight is 1: `opd`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from opd_lib.methods import opd
from opd_lib.methods.opd import NEEDS as NEEDS
from opd_lib.methods.opd import check_served as check_served
from opd_lib.methods.opd import value as value
from opd_lib.seam import State, View, World
from opd_lib.types import Reads

if TYPE_CHECKING:
    from torch import Tensor

Count = Annotated[int, Field(ge=0, le=10**6)]


class Params(opd.Params):
    """The objective's options, what a bad token costs, and how the limit moves (tokens)."""

    overlap_k: Annotated[int, Field(ge=1, le=10**6, description="length of the lists compared (tokens)")]
    threshold: Annotated[float, Field(ge=0.0, le=1.0, description="an overlap below it is bad")]
    drop: Annotated[
        float,
        Field(ge=0.0, le=1.0, description="what a bad token takes from its weight and later ones"),
    ]
    base: Annotated[float, Field(ge=0.0, le=1e6, description="weight that every token keeps")]
    limit_start: Annotated[int, Field(ge=1, le=10**6, description="response limit of the first step (tokens)")]
    limit_least: Annotated[int, Field(ge=1, le=10**6, description="the lowest limit (tokens)")]
    limit_most: Annotated[int, Field(ge=1, le=10**6, description="the highest, up to source.max_new_tokens (tokens)")]
    limit_step: Annotated[int, Field(ge=0, le=10**6, description="how far it moves (tokens); 0: it stays the file's")]
    margin: Annotated[int, Field(ge=0, le=10**6, description="how near to the limit counts as reaching it (tokens)")]
    hit_share: Annotated[float, Field(gt=0.0, le=1.0, description="share of responses that must reach it to grow")]
    patience: Annotated[int, Field(ge=1, le=10**6, description="steps in a row without before it shrinks")]


def reads(params: Params) -> Reads:
    """What the objective reads, and the overlap."""
    of_value = opd.reads(params)
    return Reads(
        k=of_value.k,
        lists=of_value.lists,
        partition=of_value.partition,
        distributions=of_value.distributions,
        signals=frozenset({f"overlap_k{params.overlap_k}"}),
    )


def decayed(view: View, params: Params) -> Tensor:
    """w (N) without the base: non-increasing within a response, in [0, 1]."""
    import torch

    overlap_N = view.signal[f"overlap_k{params.overlap_k}"]
    bad_N = (overlap_N < params.threshold).double()
    bad_B = torch.zeros(len(view.reward_B), dtype=torch.float64).index_add(0, view.row_N, bad_N)
    before_B = bad_B.cumsum(0) - bad_B  # those of earlier responses
    return (1.0 - params.drop * (bad_N.cumsum(0) - before_B[view.row_N])).clamp(min=0.0).to(overlap_N)


def weights(view: View, params: Params) -> Tensor:
    """The weight of each token (N)."""
    return decayed(view, params) + params.base


def notes(view: View, params: Params) -> dict[str, tuple[float, float]]:
    """Mean effective length (tokens), and the share of responses that come near the limit."""
    import torch

    alive_N = (decayed(view, params) > 0).long()
    effective_B = torch.zeros_like(view.length_B).index_add(0, view.row_N, alive_N)
    hits = (effective_B >= params.limit_start - params.margin).sum()
    n = float(len(effective_B))
    return {"effective_length": (float(effective_B.sum()), n), "limit_hits": (float(hits), n)}


def after_step(world: World, row: Mapping[str, float], state: State, params: Params) -> State:
    """Move the limit: `method.limit_start` is the limit of the next step."""
    if params.limit_step == 0:
        return state
    limit, waited = params.limit_start, int(state.get("without", 0))
    if row["step"] == 0:
        world.set("source.max_new_tokens", params.limit_most)  # refused if the file's limit is lower
    else:
        waited = 0 if row["limit_hits"] >= params.hit_share else waited + 1
        if waited == 0:
            limit = min(params.limit_most, limit + params.limit_step)
        elif waited >= params.patience:
            limit, waited = max(params.limit_least, limit - params.limit_step), 0
    world.set("method.limit_start", limit)
    world.set("source.max_new_tokens", limit)
    return {"without": float(waited)}


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """What `opd` refuses, and lists and limits that cannot be. Raises ValueError."""
    opd.check(params, vocabulary, has_teacher)
    if params.overlap_k > vocabulary:
        raise ValueError(f"method.overlap_k: {params.overlap_k}: use 1 ≤ overlap_k ≤ {vocabulary}")
    if not params.limit_least <= params.limit_start <= params.limit_most:
        raise ValueError(
            f"method.limit_start: {params.limit_start}: use limit_least ≤ limit_start ≤ limit_most, which are "
            f"{params.limit_least} and {params.limit_most}"
        )
