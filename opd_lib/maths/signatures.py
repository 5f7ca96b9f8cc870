"""What shows in responses before on-policy distillation collapses: hedges, repeats, loops, and who is paid for them.

    hedge_share          tokens that are one of a few words (`wait`, `but`, `maybe`)
    repeat_share         tokens that end a run of three which stood earlier in the same response
    repeated_advantage   log q − log p at these tokens, their mean (nats)
    other_advantage      and at the others: where it is lower, distillation pays for repetition
    looping_share        responses whose last TAIL tokens zlib packs to less than a third

Source: arXiv 2605.11182 and its code (hedges, 3-gram repeats); arXiv 2604.08527 (advantages of repeated tokens; its
loops are 10,000 characters packed to a tenth). Differs: TAIL and the ratio fit responses of some dozen tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from opd_lib.maths.diagnostics import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.types import Rollouts, TokenScores

RUN, TAIL, PACKED = 3, 64, 1 / 3
"""Tokens of a run that is repeated or not; tokens at a response's end; its share when packed that is a loop."""


def per_token(repeats_BT: Tensor, scores: TokenScores, hedges: Sequence[int]) -> dict[str, Metric]:
    """The signatures of these tokens, as diagnostics are. `repeats_BT`: `repeats`; `hedges`: ids of the words."""
    one_N = torch.ones_like(scores.student_logp_N)
    repeated_N = repeats_BT.to(scores.row_N.device)[scores.row_N, scores.position_N].to(one_N)
    hedged_N = torch.isin(scores.token_N, torch.tensor(hedges, device=scores.token_N.device)).to(one_N)
    found: dict[str, Metric] = {"hedge_share": (hedged_N, one_N), "repeat_share": (repeated_N, one_N)}
    if scores.teacher_logp_N is not None:
        advantage_N = scores.teacher_logp_N - scores.student_logp_N.detach()
        found["repeated_advantage"] = (advantage_N * repeated_N, repeated_N)
        found["other_advantage"] = (advantage_N * (1.0 - repeated_N), 1.0 - repeated_N)
    return found


def repeats(rollouts: Rollouts) -> Tensor:
    """Which tokens of the responses end a run that stood before (B, T bool)."""
    found_BT = torch.zeros_like(rollouts.response_BT, dtype=torch.bool)
    for row, tokens in enumerate(rollouts.tokens):
        found_BT[row, : len(tokens)] = torch.tensor(repeated(tokens), dtype=torch.bool)
    return found_BT


def repeated(tokens: Sequence[int]) -> list[bool]:
    """Of each token whether the run of three that it ends stood earlier.

    >>> repeated([1, 2, 3, 1, 2, 3, 4])
    [False, False, False, False, False, True, False]
    """
    seen: set[tuple[int, ...]] = set()
    found = []
    for end in range(1, len(tokens) + 1):
        run = tuple(tokens[max(0, end - RUN) : end])
        found.append(len(run) == RUN and run in seen)
        seen.add(run)
    return found


def loops(rollouts: Rollouts) -> int:
    """How many responses end in a loop."""
    return sum(map(is_loop, rollouts.tokens))


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether the last tokens of a response are the same few, over and over; False for shorter ones.

    >>> is_loop([5, 6] * 40), is_loop(list(range(80))), is_loop([5, 6] * 10)
    (True, False, False)
    """
    number = {token: index for index, token in enumerate(dict.fromkeys(tokens[-TAIL:]))}  # a byte for each
    packed = zlib.compress(bytes(number[token] for token in tokens[-TAIL:]), 9)
    return len(tokens) >= TAIL and len(packed) < PACKED * TAIL


def ids(vocabulary: Sequence[str], words: Collection[str], where: str) -> list[int]:
    """The tokens of a vocabulary that are one of these words, in whatever case and with whatever blank before.

    Raises ValueError naming the key (`where`) and a word that is none.
    """
    plain = [token.strip("Ġ▁ ").lower() for token in vocabulary]
    for word in words:
        if word.lower() not in plain:
            raise ValueError(f"{where}: {word!r} is no token of the student's vocabulary; name one that is")
    asked = {word.lower() for word in words}
    return [token for token, word in enumerate(plain) if word in asked]
