"""How long a batch still takes on this machine: what its parts are expected to take, times what the finished ones took.

Expected seconds come from records of other machines and other days. What this machine makes of them, `stretch`, is
learned while the batch goes on; the rest is then laid out on the cores that there are, most urgent first.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass

RUN_START, NOTEBOOK = 1.0, 8.0
"""Expected seconds of what a run's record does not count, and of a notebook: mostly starts of processes and kernels."""
KNOWN = 30.0
"""Expected seconds for which the stretch known before counts: little beside minutes, much beside a first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What is left of one run or notebook: seconds on `cores`, once all that it `needs` is done."""

    name: str
    seconds: float
    running: bool = False
    needs: Collection[str] = ()
    cores: int = 1


def stretch(took: float, expected: float, before: float = 1.0) -> float:
    """Seconds here per expected second, from the seconds that work took and was expected to take.

    >>> stretch(0.0, 0.0), stretch(900.0, 300.0), round(stretch(9e6, 3e6), 3)
    (1.0, 2.8181818181818183, 3.0)
    """
    return (took + KNOWN * before) / (expected + KNOWN)


def makespan(pieces: Sequence[Piece], cores: int) -> float:
    """Seconds until all is done, if whenever there is room the most urgent piece that can start does.

    Pieces stand behind those they need. One that needs more cores than there are starts alone.
    """
    urgent = urgency(pieces)
    open_ = {piece.name for piece in pieces}
    going = [(piece.seconds, piece.name, piece.cores) for piece in pieces if piece.running]
    heapq.heapify(going)
    waiting = sorted((p for p in pieces if not p.running), key=lambda piece: -urgent[piece.name])
    now, free = 0.0, cores - sum(piece.cores for piece in pieces if piece.running)
    while going or waiting:
        late = []
        for place, piece in enumerate(waiting):
            if free <= 0 and going:
                late += waiting[place:]
                break
            if open_.isdisjoint(piece.needs) and (piece.cores <= free or not going):
                heapq.heappush(going, (now + piece.seconds, piece.name, piece.cores))
                free -= piece.cores
            else:
                late.append(piece)
        assert going, f"needed by each other: {', '.join(piece.name for piece in late)}"
        waiting = late
        now, name, freed = heapq.heappop(going)
        open_.discard(name)
        free += freed
    return now


def urgency(pieces: Sequence[Piece]) -> dict[str, float]:
    """Of each piece, how long it and the longest chain of pieces behind it take."""
    behind: dict[str, float] = {}
    found: dict[str, float] = {}
    for piece in reversed(pieces):
        found[piece.name] = piece.seconds + behind.get(piece.name, 0.0)
        for need in piece.needs:
            behind[need] = max(behind.get(need, 0.0), found[piece.name])
    return found
