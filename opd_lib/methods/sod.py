"""SOD: in responses with tool calls the teacher counts for less where the student has drifted from it since turn one.

    d_k = mean over the tokens of turn k of |log p − log q|        w_1 = 1, w_k = min((d_1 + ε)/(d_k + ε), 1 + δ)
    A_t = A_group + coef · w_k(t) · (log q − log p)                value = −A_t, gradient −A_t ∇log p(y_t)

A_group is GRPO's advantage of the response (0 with `outcome: false`); what a tool wrote is no token.

Source: arXiv 2605.07725 and its code, where w_k is a product of the ratios of neighbouring turns; it telescopes to the
above. Differs: no ratio and no clipping of it, one global token mean. One turn and no outcome: the sampled objective.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from opd_lib.methods import grpo
from opd_lib.methods.opd import score_function
from opd_lib.seam import View
from opd_lib.types import Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher", "reward"})
LOG_RATIO = "sampled_reverse_kl"  # log p − log q


class Params(grpo.Params):
    """GRPO's options, and how much the teacher counts in which turn."""

    outcome: bool = Field(description="add the group's advantage")
    coef: Annotated[float, Field(ge=0.0, le=1e6, description="weight of the teacher")]
    delta: Annotated[float, Field(ge=0.0, le=1e6, description="δ, how much more a later turn may count")]
    smooth: Annotated[float, Field(gt=0.0, le=1e6, description="ε (nats)")]


def reads(params: Params) -> Reads:
    """The log-ratio at the sampled tokens."""
    return Reads(signals=frozenset({LOG_RATIO}))


def value(scores: TokenScores, params: Params) -> Tensor:
    """−A_t (N), with the gradient −A_t ∇log p. Raises ValueError for scores without advantages."""
    if scores.advantage_N is None:
        raise ValueError("scores without advantages: score with those that `advantages` makes of a view")
    return score_function(-scores.advantage_N, scores.student_logp_N)


def advantages(view: View, params: Params) -> Tensor:
    """A_t (N)."""
    dense_N = params.coef * turn_weights(view, params) * -view.signal[LOG_RATIO]
    return grpo.advantages(view, params)[view.row_N] + dense_N if params.outcome else dense_N


def turn_weights(view: View, params: Params) -> Tensor:
    """w of each token's turn (N)."""
    n_turns = int(view.turn_N.max()) + 1
    span_N = view.row_N * n_turns + view.turn_N
    size_S = span_N.bincount(minlength=len(view.reward_B) * n_turns)
    apart_N = view.signal[LOG_RATIO].abs()
    distance_S = apart_N.new_zeros(len(size_S)).index_add(0, span_N, apart_N) / size_S.clamp(min=1)
    first_N = (distance_S.view(-1, n_turns)[:, 0] + params.smooth)[view.row_N]
    return (first_N / (distance_S[span_N] + params.smooth)).clamp(max=1.0 + params.delta).where(view.turn_N > 0, 1.0)


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse to distil without a teacher. Raises ValueError."""
    if not has_teacher:
        raise ValueError("teacher: null: distillation compares with a teacher; name one")
