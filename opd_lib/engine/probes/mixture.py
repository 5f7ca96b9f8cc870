"""What a student who is not told the key can learn at most from a teacher who is: the mean over keys (mechanism 3).

With q_i the teacher that is shown key i of N, at each token of the student's responses, and N keys equally likely:

    geometric   g = exp(mean of log q_i) / Z     minimises the mean reverse KL; what is left of it is −log Z
    arithmetic  a = mean of q_i                  minimises the mean forward KL; what is left of it is I(key; token)

and how far the student's own p is from either. A trained student should be near the mean that its objective asks for.

Source: arXiv 2605.11182 (the optimum of self-distillation); the floors are derived here (maths/self_distillation).
Differs: what the student could infer of the key from its question is taken to be nothing, as keys are dealt by a hash.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, plain
from opd_lib.engine.shown import rendered
from opd_lib.maths import signatures
from opd_lib.methods.opsd import shown_chat
from opd_lib.tasks import tagged

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import MixtureProbe
    from opd_lib.types import Prompt, Rollouts


@torch.no_grad()
def rows(run: ActiveRun, probe: MixtureProbe, rollouts: Rollouts, batch: int) -> list[dict[str, Any]]:
    """One row per response: means over its tokens, and what stands at the token behind its answer's digit (nats).

    `kl_geometric`, `kl_arithmetic`: KL(p ‖ g), KL(p ‖ a); `floor_reverse`, `floor_forward`: what is left at the best;
    the same names with `_behind`: at the token that follows the digit behind <ans>, NaN where `behind` says that there
    is none; there too `hedge_student`, `hedge_geometric`, `hedge_arithmetic`, probabilities of the probe's words.
    """
    task = run.spec.params.task
    assert run.teacher is not None and isinstance(task, tagged.Params)  # params refuses another task
    logp_NV = plain.logits(run.student[0], rollouts, rollouts.prompts).log_softmax(-1)
    mean_logq_NV = torch.zeros_like(logp_NV)
    log_sum_NV = torch.full_like(logp_NV, -math.inf)
    entropy_N = torch.zeros_like(logp_NV[:, 0])
    keys = tagged.every_key(task.keys)
    for key in keys:
        logq_NV = plain.logits(run.teacher[0], rollouts, shown(run, rollouts, probe.shows, key)).log_softmax(-1)
        mean_logq_NV += logq_NV / len(keys)
        log_sum_NV = torch.logaddexp(log_sum_NV, logq_NV)
        entropy_N -= (logq_NV.exp() * logq_NV).sum(1) / len(keys)
    log_z_N1 = mean_logq_NV.logsumexp(1, keepdim=True)
    geometric_NV, arithmetic_NV = mean_logq_NV - log_z_N1, log_sum_NV - math.log(len(keys))
    value_N = {
        "kl_geometric": divergence(logp_NV, geometric_NV),
        "kl_arithmetic": divergence(logp_NV, arithmetic_NV),
        "floor_reverse": -log_z_N1[:, 0],
        "floor_forward": -(arithmetic_NV.exp() * arithmetic_NV).sum(1) - entropy_N,
    }
    hedges = signatures.ids(run.words, probe.hedges, "probe.hedges")
    hedge_N = {
        f"hedge_{name}": logs_NV[:, hedges].exp().sum(1)
        for name, logs_NV in (("student", logp_NV), ("geometric", geometric_NV), ("arithmetic", arithmetic_NV))
    }
    _, row_N, position_N = batches.packed(rollouts, torch.arange(len(rollouts.prompts)))
    found = []
    for row, tokens in enumerate(rollouts.tokens):
        mine_N = row_N == row
        behind_N = mine_N & (position_N == behind_digit([run.words[token] for token in tokens]))
        means = {name: float(value[mine_N].mean()) for name, value in value_N.items()}
        there = {f"{name}_behind": float(value[behind_N].mean()) for name, value in value_N.items()}
        hedged = {name: float(value[behind_N].mean()) for name, value in hedge_N.items()}
        found.append({"row": row, "behind": int(behind_N.any())} | means | there | hedged)
    return found


def shown(run: ActiveRun, rollouts: Rollouts, shows: str, key: str) -> tuple[Prompt, ...]:
    """The prompts as a teacher is shown them that is told this key."""
    told = [replace(prompt, told=(("key", key),)) for prompt in rollouts.prompts]
    chats = [shown_chat(prompt, shows) for prompt in told]
    return rendered(run, told, chats, int(rollouts.length_B.max()))


def divergence(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """KL(p ‖ q) of each row (nats)."""
    return (logp_NV.exp() * (logp_NV - logq_NV)).sum(1)


def behind_digit(words: list[str]) -> int:
    """The place behind the first digit behind the last <ans>; −1 where there is none.

    >>> behind_digit("s1 2 ; <ans> w003 2 wait 1 6 <eos>".split()), behind_digit("s1 2 ; <ans>".split())
    (6, -1)
    """
    if "<ans>" not in words:
        return -1
    start = len(words) - words[::-1].index("<ans>")
    digits = [place for place in range(start, len(words) - 1) if words[place].isdigit()]
    return digits[0] + 1 if digits else -1
