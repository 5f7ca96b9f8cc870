"""The loss of a step as one would write it on a blackboard: whole logits, one process, every token at once.

    loss = Σ_n weight_n · value_n / N        n: the tokens of the responses that are trained on, N their number

It is the definition; what trains (engine/train) computes the same a few tokens at a time, in several processes, with
scores it needs for nothing else left out, and is tested against this page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, score, view
from opd_lib.engine.aligning import Foreign
from opd_lib.engine.teacher import Several, heard
from opd_lib.maths import diagnostics, logprobs
from opd_lib.maths.units import Spelt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.methods import Method
    from opd_lib.types import Prompt, Reads, Rollouts, TokenScores


def loss(
    student: PreTrainedModel,
    teacher: PreTrainedModel | Several | Foreign | None,
    rollouts: Rollouts,
    method: Method,
    options: Any,
    group: int,
    uniform_B: Tensor | None = None,
) -> Tensor:
    """The loss (nats per token) of these responses, to be differentiated; `group` of them answer one prompt."""
    student_NV = logits(student, rollouts, rollouts.prompts)
    voices = said(teacher, rollouts)
    seen = scores(student_NV, voices[""], voices, rollouts, method.reads(options))
    looked = view.of(rollouts, group, diagnostics.signals(seen, method.reads(options).signals))
    credit = view.judged(method, options, looked if uniform_B is None else replace(looked, uniform_B=uniform_B))
    value_N = torch.zeros_like(student_NV[:, 0])
    for name, share_N in (credit.shares or {"": torch.ones_like(value_N)}).items():
        taught = scores(student_NV, voices[name], voices, rollouts, method.reads(options))
        value_N = value_N + share_N * method.value(replace(taught, advantage_N=credit.advantage_N), options)
    if credit.weight_N is not None:
        value_N = credit.weight_N * value_N
    if credit.selected_B is not None:
        value_N = value_N[credit.selected_B[seen.row_N]]
    return value_N.sum() / max(len(value_N), 1)


@torch.no_grad()
def said(
    teacher: PreTrainedModel | Several | Foreign | None, rollouts: Rollouts
) -> Mapping[str, Tensor | Spelt | None]:
    """Name → the teacher's logits (N, V) behind the prompts it is shown; "" is the one that speaks for all.

    A teacher of other tokens says what it has to say of units.
    """
    if isinstance(teacher, Foreign):
        given = replace(rollouts, prompts=rollouts.for_teacher)
        return {"": teacher.said(given, torch.arange(len(given.prompts)), heard)}
    if not isinstance(teacher, Several):
        return {"": None if teacher is None else logits(teacher, rollouts, rollouts.for_teacher)}
    named = {name: logits(model, rollouts, rollouts.for_teacher) for name, model in teacher.models.items()}
    together_NV = next(iter(named.values()))
    if teacher.taught:
        together_NV = teacher.taught({name: x_NV.log_softmax(-1) for name, x_NV in named.items()})
    return {"": together_NV, **named}


def scores(
    student_NV: Tensor,
    taught: Tensor | Spelt | None,
    named: Mapping[str, Tensor | Spelt | None],
    rollouts: Rollouts,
    reads: Reads,
) -> TokenScores:
    """What student and teacher say about every token of the responses."""
    places = batches.packed(rollouts, torch.arange(len(rollouts.prompts)))
    if isinstance(taught, Spelt):
        return taught.score(student_NV, slice(0, len(student_NV)), places, None, True, reads.distributions)
    k = max(reads.k, score.length(reads.signals))
    found = logprobs.score(student_NV, taught, *places, k, whole=reads.distributions)
    each = {
        name: logprobs.at(x_NV.log_softmax(-1), places[0][:, None])[:, 0]
        for name, x_NV in named.items()
        if name and not (x_NV is None or isinstance(x_NV, Spelt))
    }
    return replace(found, named_logp_N=each or None)


def logits(model: PreTrainedModel, rollouts: Rollouts, prompts: tuple[Prompt, ...]) -> Tensor:
    """Logits (N, V) from which each token of the responses was drawn, one response after the other."""
    rows = []
    for row, prompt in enumerate(prompts):
        response = rollouts.response_BT[row, : rollouts.length_B[row]].tolist()
        token_L = torch.tensor([*prompt.token_ids, *response])
        rows.append(model(token_L[None]).logits[0, len(prompt.token_ids) - 1 + batches.own_positions(rollouts, row)])
    return torch.cat(rows)
