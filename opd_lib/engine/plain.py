"""The loss of a step as one would write it on a blackboard: whole logits, one process, every token at once.

    loss = Σ_n weight_n · value_n / N        n: the tokens of the responses that are trained on, N their number

It is the definition; what trains (engine/train) computes the same a few tokens at a time, in several processes, with
scores it needs for nothing else left out, and is tested against this page.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, score, view
from opd_lib.maths import diagnostics, logprobs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.methods import Method
    from opd_lib.types import Prompt, Rollouts, TokenScores


def loss(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    rollouts: Rollouts,
    method: Method,
    options: Any,
    group: int,
) -> Tensor:
    """The loss (nats per token) of these responses, to be differentiated; `group` of them answer one prompt."""
    seen = scores(student, teacher, rollouts, method, options)
    signals = diagnostics.signals(seen, method.reads(options).signals)
    credit = view.judged(method, options, view.of(rollouts, group, signals))
    if credit.advantage_B is not None:
        seen = replace(seen, advantage_N=credit.advantage_B[seen.row_N])
    value_N = method.value(seen, options)
    if credit.weight_N is not None:
        value_N = credit.weight_N * value_N
    if credit.selected_B is not None:
        value_N = value_N[credit.selected_B[seen.row_N]]
    return value_N.sum() / max(len(value_N), 1)


def scores(
    student: PreTrainedModel, teacher: PreTrainedModel | None, rollouts: Rollouts, method: Method, options: Any
) -> TokenScores:
    """What both models say about every token of the responses; the teacher behind the prompts that it is shown."""
    reads = method.reads(options)
    student_NV = logits(student, rollouts, rollouts.prompts)
    with torch.no_grad():
        teacher_NV = None if teacher is None else logits(teacher, rollouts, rollouts.for_teacher)
    token_N, row_N, position_N = batches.packed(rollouts, torch.arange(len(rollouts.prompts)))
    k = max(reads.k, score.length(reads.signals))
    return logprobs.score(student_NV, teacher_NV, token_N, row_N, position_N, k, whole=reads.distributions)


def logits(model: PreTrainedModel, rollouts: Rollouts, prompts: tuple[Prompt, ...]) -> Tensor:
    """Logits (N, V) from which each token of the responses was drawn, one response after the other."""
    rows = []
    for prompt, response_T, length in zip(prompts, rollouts.response_BT, rollouts.length_B.tolist(), strict=True):
        token_L = torch.tensor([*prompt.token_ids, *response_T[:length].tolist()])
        rows.append(model(token_L[None]).logits[0, len(prompt.token_ids) - 1 : -1])
    return torch.cat(rows)
