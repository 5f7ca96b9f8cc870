"""Do the gradients of single tokens add up or cancel (H1), and does another objective pull the same way (H5)?

The paper supposes that a teacher of large token advantages may move the student little because its gradients are
anisotropic and cancel, and leaves it unverified (§6.2). Measured here on the student's responses, at its weights:

    `tokens` random tokens    coherence, mean cosine and effective rank of their gradients of the head weight
    all tokens                gradients of all weights: cosine of those of two halves of the batch, and with `against`

A token's gradient is that of its own term of the loss, through its own logits. Its part in the head weight leaves out
what it does to the layers below; the cosine of the halves leaves out nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from opd_lib.engine import batches, tokens
from opd_lib.engine.model import models
from opd_lib.maths import coherence
from opd_lib.maths.head import Head

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opd_lib.engine.running import ActiveRun
    from opd_lib.params.schema import GradientProbe
    from opd_lib.types import Rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """Of a batch: what its chosen tokens do to the head, its halves to all W weights, and |log q − log p| (N).

    `delta_NV` is the gradient of the loss at a chosen token's logits, `hidden_NH` its last hidden state; `own_2W` sums
    the loss's gradients over the tokens of each half; `against_W` is the other objective's, zero if there is none.
    """

    delta_NV: Tensor
    hidden_NH: Tensor
    own_2W: Tensor
    against_W: Tensor
    advantage_N: Tensor


KEPT = 3
"""Prompts whose first response is kept token by token."""


def rows(run: ActiveRun, probe: GradientProbe, rollouts: Rollouts, batch: int) -> list[dict[str, Any]]:
    """One row; of the first batch some responses are kept. No gradient stays behind in the student's parameters.

    coherence, mean_cosine, effective_rank: of `n_tokens` tokens (see maths/coherence); half_batch_cosine: responses to
    the first half of the prompts against the others; against_cosine: empty if there is nothing to compare with;
    mean_abs_advantage: mean |log q − log p| over the batch's tokens (nats); grad_norm: token mean, as in steps.csv.
    """
    against = run.method.Params(**run.spec.params.method_options | probe.against) if probe.against else None
    chosen_BT = choose(rollouts, probe.tokens, models.generator(run.spec.seed, "gradient", batch))
    found = gradients(run, rollouts, against, chosen_BT)
    gram_NN = coherence.gram(found.delta_NV, found.hidden_NH)
    whole_W = found.own_2W.sum(0)
    if run.writer and batch == 1:
        run.writer.append_lines("tokens", kept(run, rollouts, found))
    return [
        {
            "coherence": coherence.coherence(gram_NN),
            "mean_cosine": coherence.mean_cosine(gram_NN),
            "effective_rank": coherence.effective_rank(gram_NN),
            "n_tokens": len(gram_NN),
            "half_batch_cosine": coherence.cosine(*found.own_2W),
            "against_cosine": None if against is None else coherence.cosine(whole_W, found.against_W),
            "mean_abs_advantage": float(found.advantage_N.mean()),
            "grad_norm": float(whole_W.norm()) / len(found.advantage_N),
        }
    ]


def gradients(run: ActiveRun, rollouts: Rollouts, against: Any, chosen_BT: Tensor) -> Gradients:
    """The batch's gradients, micro-batch by micro-batch; the groups of one prompt lie in one half."""
    source, student, teacher = run.spec.params.source, run.student[0].train(), run.teacher
    assert source.kind == "student" and teacher is not None  # params refuses any other probe
    weights = list(student.parameters())
    half = len(rollouts.prompts) // source.per_prompt // 2 * source.per_prompt
    against_W = torch.zeros_like(flat(weights))
    own_2W = against_W.repeat(2, 1)
    pieces: list[tuple[Tensor, Tensor]] = []
    advantages: list[Tensor] = []
    groups = batches.micro_batches(rollouts, run.spec.params.train.micro_tokens)
    parts = [part for group in groups for part in (group[group < half], group[group >= half])]
    for rows in filter(len, parts):
        kept_N = torch.cat([chosen_BT[row, : rollouts.length_B[row]] for row in rows.tolist()])

        def keep(head: Head, part: slice, delta_NV: Tensor, kept_N: Tensor = kept_N) -> None:
            pieces.append((delta_NV[kept_N[part]], head.hidden_NH[part][kept_N[part]]))

        total, _, scores = run.objective(student, teacher[0], rollouts, rows, watch=keep)
        own_2W[int(rows[0] >= half)] += flat(torch.autograd.grad(total, weights))
        if against is not None:
            other = replace(run.objective, options=against, k=max(run.k, run.method.reads(against).k))
            against_W += flat(torch.autograd.grad(other(student, teacher[0], rollouts, rows)[0], weights))
        assert scores.teacher_logp_N is not None
        advantages.append((scores.teacher_logp_N - scores.student_logp_N).abs())
    delta_NV, hidden_NH = (torch.cat(part) for part in zip(*pieces, strict=True))
    return Gradients(
        delta_NV=delta_NV, hidden_NH=hidden_NH, own_2W=own_2W, against_W=against_W, advantage_N=torch.cat(advantages)
    )


def kept(run: ActiveRun, rollouts: Rollouts, found: Gradients) -> list[dict[str, Any]]:
    """Responses token by token (engine/tokens), with the cosine of each token's head gradient and the batch's."""
    assert run.spec.params.source.kind == "student" and run.teacher is not None  # as above
    places = list(range(0, len(rollouts.prompts), run.spec.params.source.per_prompt))[:KEPT]
    rollouts = batches.beginnings(rollouts, run.spec.params.train.micro_tokens)
    described = []
    for place, row in zip(places, tokens.described(run, rollouts, places), strict=True):
        pieces: list[tuple[Tensor, Tensor]] = []

        def keep(head: Head, part: slice, delta_NV: Tensor, pieces: list[tuple[Tensor, Tensor]] = pieces) -> None:
            pieces.append((delta_NV, head.hidden_NH[part].detach()))

        run.objective(run.student[0], run.teacher[0], rollouts, torch.tensor([place]), watch=keep)
        own_NV, own_NH = (torch.cat(part) for part in zip(*pieces, strict=True))
        cosine_N = coherence.with_sum(own_NV, own_NH, found.delta_NV, found.hidden_NH)
        where = {"step": 0, "test_set": "training", "problem": place}
        described.append(where | row | {"coherence": tokens.rounded(cosine_N.tolist())})
    return described


def choose(rollouts: Rollouts, n: int, generator: torch.Generator) -> Tensor:
    """Which n of the responses' tokens are looked at (B, T), all if there are no more, each as likely as the others."""
    valid_BT = torch.arange(rollouts.response_BT.shape[1]) < rollouts.length_B[:, None]
    place_N2 = valid_BT.nonzero()
    place_n2 = place_N2[torch.randperm(len(place_N2), generator=generator)[:n]]
    chosen_BT = torch.zeros_like(valid_BT)
    chosen_BT[place_n2[:, 0], place_n2[:, 1]] = True
    return chosen_BT


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Weights, or their gradients, as one vector (W) in float64, in the machine's memory: several fill no device."""
    return torch.cat([tensor.detach().flatten().cpu() for tensor in tensors]).double()
