"""Uni-OPD: a teacher for each domain; right responses put ahead where the teacher does not; balanced groups.

    u_t = log q − log p at the sampled token, q the teacher of the prompt's domain        ū_i its mean over response i
    gap = mean ū of the right − mean ū of the wrong responses to a prompt; where gap < Δ, with s = Δ − gap:
    c_i = +s/2 for the right, −s/2 for the wrong (0 where all are right or all wrong)
    value = −(u_t + c_i), gradient −(u_t + c_i) ∇log p(y_t); tokens with |u_t| ≥ `extreme` have weight 0

`balance` leaves random responses of the larger side of a group out until right and wrong are equally many (groups of
one side stay whole). `margin: null` is Δ = −∞; with it, one teacher, no `balance` and no token as far apart as
`extreme` it is the sampled objective of `opd`.

Source: arXiv 2605.03677 and its code (margin mode "both"; online balance). Differs: no ratio and no clipping; offline
balancing is a matter of the prompts; the published mixtures are not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.methods.opd import score_function
from opd_lib.seam import View
from opd_lib.types import Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher", "reward"})
LOG_RATIO = "sampled_reverse_kl"  # −u


class Params(BaseModel):
    """Who teaches what, and what is set right."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    route: dict[str, str] = Field(description="content of the task → name of its teacher; empty: one teacher for all")
    margin: Annotated[
        float | None, Field(ge=0.0, le=1e6, description="Δ (nats), the right responses' lead; null: none")
    ]
    balance: bool = Field(description="leave responses out until right and wrong ones are equally many")
    extreme: Annotated[float, Field(gt=0.0, le=1e6, description="tokens whose |u| is as large count nothing (nats)")]


def reads(params: Params) -> Reads:
    """Each teacher's log-ratio at the sampled tokens."""
    names = [f"{LOG_RATIO}@{name}" for name in sorted(set(params.route.values()))]
    return Reads(signals=frozenset(names or [LOG_RATIO]))


def value(scores: TokenScores, params: Params) -> Tensor:
    """−(u + c) (N, nats). Raises ValueError for scores without a teacher."""
    if scores.teacher_logp_N is None:
        raise ValueError("scores without a teacher: score with a teacher")
    ratio_N = (scores.student_logp_N - scores.teacher_logp_N).detach()
    if scores.advantage_N is not None:
        ratio_N = ratio_N - scores.advantage_N
    return score_function(ratio_N, scores.student_logp_N)


def advantages(view: View, params: Params) -> Tensor:
    """c (B, nats): what sets groups right in which the right responses are not ahead by the margin."""
    import torch

    if params.margin is None:
        return torch.zeros_like(view.reward_B)
    ratio_N = log_ratio(view, params)
    mean_PG = view.mean(ratio_N).view_as(view.reward_PG)
    right_PG = view.reward_PG > 0.5
    n_right_P1, n_wrong_P1 = right_PG.sum(1, keepdim=True), (~right_PG).sum(1, keepdim=True)
    right_P1 = (mean_PG * right_PG).sum(1, keepdim=True) / n_right_P1.clamp(min=1)
    wrong_P1 = (mean_PG * ~right_PG).sum(1, keepdim=True) / n_wrong_P1.clamp(min=1)
    lacking_P1 = (params.margin - (right_P1 - wrong_P1)).clamp(min=0.0) * ((n_right_P1 > 0) & (n_wrong_P1 > 0))
    return (torch.where(right_PG, 0.5, -0.5) * lacking_P1).flatten()


def weights(view: View, params: Params) -> Tensor:
    """1, and 0 for tokens at which the models are too far apart (N)."""
    ratio_N = log_ratio(view, params)
    return (ratio_N.abs() < params.extreme).to(ratio_N)


def select(view: View, params: Params) -> Tensor:
    """All responses, or as many right as wrong ones of each group, those left out drawn at random (B)."""
    import torch

    if not params.balance:
        return torch.ones_like(view.finished_B)
    right_PG = view.reward_PG > 0.5
    uniform_PG = view.uniform_B.view_as(view.reward_PG)
    kept_PG = torch.ones_like(right_PG)
    for side_PG in (right_PG, ~right_PG):
        n_P1, other_P1 = side_PG.sum(1, keepdim=True), (~side_PG).sum(1, keepdim=True)
        rank_PG = uniform_PG.masked_fill(~side_PG, 2.0).argsort(1).argsort(1)  # of its side, the others behind
        kept_PG &= ~side_PG | (rank_PG < other_P1) | (other_P1 == 0) | (n_P1 <= other_P1)
    return kept_PG.flatten()


def shares(view: View, params: Params) -> dict[str, Tensor]:
    """1 for the tokens of the prompts that a teacher has, 0 for the others (N each); nothing where one has all."""
    import torch

    names = [params.route[prompt.domain] for prompt in view.prompts] if params.route else []
    return {
        teacher: torch.tensor([float(name == teacher) for name in names])[view.row_N]
        for teacher in sorted(set(params.route.values()))
    }


def log_ratio(view: View, params: Params) -> Tensor:
    """u (N, nats) of each token under the teacher of its prompt."""
    import torch

    if not params.route:
        return -view.signal[LOG_RATIO]
    parts = [share_N * view.signal[f"{LOG_RATIO}@{name}"] for name, share_N in shares(view, params).items()]
    return -torch.stack(parts).sum(0)


def check_teachers(params: Params, teachers: frozenset[str], contents: frozenset[str]) -> None:
    """Refuse a route that leaves out a content or a teacher, or that names one that is not there. Raises ValueError."""
    if set(params.route.values()) != teachers or (params.route and not contents <= set(params.route)):
        raise ValueError(
            f"method.route: {params.route}: the run has the contents {', '.join(sorted(contents))} and, by name, the "
            f"teachers {', '.join(sorted(teachers)) or '(none)'}; give each content a teacher and each teacher a "
            "content, or write route: {} with one teacher that has no name"
        )


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse to distil without a teacher. Raises ValueError."""
    if not has_teacher:
        raise ValueError("teacher: null: distillation compares with a teacher; name one, or several")
