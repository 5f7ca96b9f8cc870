"""The loss of a step as one would write it on a blackboard: whole logits, one process, every token at once.

    loss = Σ_n weight_n · Σ_t share_tn · value_tn / N       n: the N tokens of the responses that are trained on
                                                            t: the teachers; with one of them its share is 1

A method's credit, made of its view of all responses, fills this in: shares say how much of a token's value is taken
against each named teacher, weights multiply values and stay out of N, selection leaves out whole responses, of N too.

This is the definition; what trains (engine/train) computes the same a few tokens at a time, in several processes, with
scores it needs for nothing else left out, and is tested against this page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from opd_lib.engine import batches, score, view
from opd_lib.engine import teacher as teachers
from opd_lib.engine.aligning import Foreign
from opd_lib.engine.teacher import Several
from opd_lib.maths import diagnostics, logprobs
from opd_lib.maths.units import AlignedLogits

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from opd_lib.methods import Method
    from opd_lib.types import Prompt, Reads, Rollouts, TokenScores

ALL = ""
"""The name under which all teachers speak as one: the only one, several combined, or none."""


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
    reads = method.reads(options)
    student_NV = logits(student, rollouts, rollouts.prompts)
    teacher_logits = logits_by_teacher(teacher, rollouts)
    scores_under_all = scores(student_NV, teacher_logits, ALL, rollouts, reads)
    responses = view.of(rollouts, group, diagnostics.signals(scores_under_all, reads.signals))
    if uniform_B is not None:
        responses = replace(responses, uniform_B=uniform_B)
    credit = view.assign(method, options, responses)
    value_N = torch.zeros_like(student_NV[:, 0])
    for name, share_N in (credit.shares or {ALL: torch.ones_like(value_N)}).items():
        scores_under_one = scores(student_NV, teacher_logits, name, rollouts, reads)
        value_N = value_N + share_N * method.value(replace(scores_under_one, advantage_N=credit.advantage_N), options)
    if credit.weight_N is not None:
        value_N = credit.weight_N * value_N
    if credit.selected_B is not None:
        value_N = value_N[credit.selected_B[scores_under_all.row_N]]
    return value_N.sum() / max(len(value_N), 1)


@torch.no_grad()
def logits_by_teacher(
    teacher: PreTrainedModel | Several | Foreign | None, rollouts: Rollouts
) -> Mapping[str, Tensor | AlignedLogits | None]:
    """Name → the teacher's logits (N, V) behind the prompts it is shown; ALL has those of all teachers combined.

    A teacher with a tokenizer of its own has them for its own tokens, in units.
    """
    if isinstance(teacher, Foreign):
        given = replace(rollouts, prompts=rollouts.for_teacher)
        return {ALL: teacher.output(given, torch.arange(len(given.prompts)), teachers.head)}
    if not isinstance(teacher, Several):
        return {ALL: None if teacher is None else logits(teacher, rollouts, rollouts.for_teacher)}
    named = {name: logits(model, rollouts, rollouts.for_teacher) for name, model in teacher.models.items()}
    combined_NV = next(iter(named.values()))
    if teacher.combine:
        combined_NV = teacher.combine({name: logits_NV.log_softmax(-1) for name, logits_NV in named.items()})
    return {ALL: combined_NV, **named}


def scores(
    student_NV: Tensor,
    teacher_logits: Mapping[str, Tensor | AlignedLogits | None],
    name: str,
    rollouts: Rollouts,
    reads: Reads,
) -> TokenScores:
    """The scores of every token of the responses, against the teacher of this name."""
    places = batches.packed(rollouts, torch.arange(len(rollouts.prompts)))
    teacher = teacher_logits[name]
    if isinstance(teacher, AlignedLogits):
        return teacher.score(student_NV, slice(0, len(student_NV)), places, None, True, reads.distributions)
    k = max(reads.k, score.length(reads.signals))
    found = logprobs.score(student_NV, teacher, *places, k, whole=reads.distributions)
    named_logp_N = {
        each: logprobs.at(logits_NV.log_softmax(-1), places[0][:, None])[:, 0]
        for each, logits_NV in teacher_logits.items()
        if each != ALL and isinstance(logits_NV, torch.Tensor)
    }
    return replace(found, named_logp_N=named_logp_N or None)


def logits(model: PreTrainedModel, rollouts: Rollouts, prompts: tuple[Prompt, ...]) -> Tensor:
    """Logits (N, V) from which each token of the responses was drawn, one response after the other."""
    rows = []
    for row, prompt in enumerate(prompts):
        response = rollouts.response_BT[row, : rollouts.length_B[row]].tolist()
        token_L = torch.tensor([*prompt.token_ids, *response])
        rows.append(model(token_L[None]).logits[0, len(prompt.token_ids) - 1 + batches.own_positions(rollouts, row)])
    return torch.cat(rows)
