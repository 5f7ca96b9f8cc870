"""Scores of many tokens, a chunk at a time: which tokens, and what is kept of each chunk and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from opd_lib.spelling import Units
from opd_lib.types import Candidates, TokenScores


def parts(n: int, chunk: int | None) -> Iterator[slice]:
    """n tokens, `chunk` at a time."""
    size = chunk or max(n, 1)
    return (slice(start, start + size) for start in range(0, max(n, 1), size))


def kept(scores: TokenScores) -> TokenScores:
    """What may outlive a chunk: constants, no distributions."""
    constants: TokenScores = _map(lambda tensors: tensors[0].detach(), [replace(scores, distributions=None)])
    return constants


def stored(n: int, whole: TokenScores | None, scores: TokenScores, part: slice) -> TokenScores:
    """The scores of all n tokens, with those of a chunk put in; `whole`: as the chunk before has left them.

    What is kept of a chunk has its place beforehand. Small tensors that stay, made while the chunk before has left its
    place, would take a bit of that, and the next chunk's large ones would need another: at every chunk again.
    """
    if len(scores.token_N) == n:
        return scores
    if whole is None:
        whole = _map(lambda tensors: tensors[0].new_empty((n, *tensors[0].shape[1:])), [scores])
    _map(lambda tensors: tensors[0][part].copy_(tensors[1]), [whole, scores])
    assert whole is not None
    return whole


def _map(join: Callable[[list[Tensor]], Tensor], pieces: Sequence[Any]) -> Any:
    """A record of `join` of the pieces' tensors, field by field."""
    first = pieces[0]
    if first is None:
        return None
    if isinstance(first, Mapping):
        return {name: _map(join, [piece[name] for piece in pieces]) for name in first}
    if isinstance(first, bool):
        return first
    if isinstance(first, TokenScores | Candidates | Units):
        return replace(first, **{f.name: _map(join, [getattr(p, f.name) for p in pieces]) for f in fields(first)})
    return join(list(pieces))
