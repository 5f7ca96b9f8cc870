"""How far two teachers are from each other at the states a student visits, beside the student's distance to each.

If the two teachers are much closer to one another than the student is to either, the student cannot tell them apart
(H2, the paper's reading of its reverse distillation, §3.3). Divergences are exact, over the full vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches
from opd_lib.engine import teacher as teachers
from opd_lib.engine.model.models import require_finite_logits
from opd_lib.maths import chunks, diagnostics, logprobs

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import TeachersProbe
    from opd_lib.types import Rollouts

K = 16  # length of the top-k lists compared
PAIRS = (("teacher", "other"), ("student", "teacher"), ("student", "other"))


@torch.no_grad()
def rows(run: ActiveRun, probe: TeachersProbe, rollouts: Rollouts, batch: int) -> list[dict[str, Any]]:
    """One row per pair: means over all response tokens of js, kl, kl_reverse (nats/token) and overlap_k16 (share).

    kl is KL(first ‖ second), kl_reverse KL(second ‖ first).
    """
    assert run.teacher is not None and run.other is not None
    models = {"student": run.student[0], "teacher": run.teacher[0], "other": run.other[0]}
    sums: dict[tuple[str, str], dict[str, float]] = {pair: {} for pair in PAIRS}
    for rows in batches.micro_batches(rollouts, run.spec.params.train.micro_tokens):
        heads = {name: teachers.head(model, rollouts, rows) for name, model in models.items()}
        for part in chunks.parts(int(rollouts.length_B[rows].sum()), run.chunk):
            logits = {name: head.logits(part).double() for name, head in heads.items()}
            for name, model in models.items():
                require_finite_logits(model, logits[name].logsumexp(-1))
            for pair, found in sums.items():
                for name, value_N in distances(logits[pair[0]], logits[pair[1]]).items():
                    found[name] = found.get(name, 0.0) + float(value_N.sum())
    n_tokens = int(rollouts.length_B.sum())
    return [
        {"pair": "-".join(pair)} | {name: total / n_tokens for name, total in found.items()} | {"n_tokens": n_tokens}
        for pair, found in sums.items()
    ]


def distances(first_NV: Tensor, second_NV: Tensor) -> dict[str, Tensor]:
    """The distances (N) between two models at each position, from their logits."""
    logp_NV, logq_NV = logprobs.log_softmax(first_NV), logprobs.log_softmax(second_NV)
    unread_N = torch.zeros(len(first_NV), dtype=torch.long, device=first_NV.device)  # which token was drawn, and where
    scores = logprobs.score(first_NV, second_NV, unread_N, unread_N, unread_N, k=K)
    metrics = diagnostics.per_token(scores, (K,))
    return {
        "js": logprobs.jensen_shannon(logp_NV, logq_NV),
        "kl": metrics["reverse_kl"][0],
        "kl_reverse": logprobs.expected(logq_NV, logq_NV - logp_NV),
        f"overlap_k{K}": metrics[f"overlap_k{K}"][0],
    }
