"""Who takes part: this package, the plain way, and its peers, each computing the loss of the same responses.

Of the same objective (`objective`) all must find the same loss and the same gradient norm, or their times say nothing:
`compare.require_same_work` sees to it. Peers are called at their own loss function, with settings that make it the
exact reverse KL over the full vocabulary, token mean; where one does more than is asked (logits of the prompt, an
entropy), `extra` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opd_lib import methods
from opd_lib.bench import peers
from opd_lib.bench.workload import LossOf, Size, Workload, word_tokenizer
from opd_lib.engine import score
from opd_lib.engine.sampling import rollout
from opd_lib.forecast import footprint

K = 16
OPD = {"estimator": "topk", "k": K, "support": "student", "weight": "student_p", "tail": "drop", "beta": 0.5}
WHOLE = "reverse KL on own responses"
OBJECTIVES: dict[str, dict[str, Any]] = {
    "reverse KL": OPD | {"estimator": "full", "normalize": "raw", "stop_gradient": False, "direction": "reverse"},
    "published": OPD | {"normalize": "weights", "stop_gradient": True, "direction": "reverse"},
    "Eq. 5": OPD | {"normalize": "both", "stop_gradient": False, "direction": "reverse"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """Somebody who can do the step. `make` prepares everything that is not part of it."""

    name: str
    objective: str
    make: Callable[[Workload], LossOf]
    extra: str = ""
    logits: int = 0  # bytes per response token and entry of the vocabulary, about; measured

    def needs(self, size: Size) -> float:
        """Bytes of memory, about: the framework, weights with gradients and moments, what is held of all logits."""
        weights = 4.0 * size.vocabulary * (8 * size.student + 2 * size.teacher)
        return 1.5e9 + weights + self.logits * float(size.vocabulary) * size.tokens


def ours(objective: str, logits_gib: float = 0.5) -> Callable[[Workload], LossOf]:
    """This package, diagnostics off."""

    def make(work: Workload) -> LossOf:
        method = methods.load("opd")
        chunk = footprint.chunk(logits_gib * footprint.GIB, work.size.vocabulary)
        chosen = score.Objective(method=method, options=method.Params(**OBJECTIVES[objective]), k=0, chunk=chunk)
        rows = torch.arange(work.size.sequences)

        def loss() -> tuple[float, Callable[[], None]]:
            scale = 1 / float(work.rollouts.length_B.sum())
            scaled, _, _ = chosen(work.student, work.teacher, work.rollouts, rows, scale=scale, measured=False)
            return scaled.item(), scaled.backward

        return loss

    return make


def plain(objective: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Workload], LossOf]:
    """All logits at once, log-softmaxes, autograd."""

    def make(work: Workload) -> LossOf:
        def loss() -> tuple[float, Callable[[], None]]:
            with torch.no_grad():
                teacher_logp_NV = work.logits(work.teacher).log_softmax(-1)
            value = objective(work.logits(work.student).log_softmax(-1), teacher_logp_NV).mean()
            return value.item(), value.backward

        return loss

    return make


def reverse_kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """Σ p log(p/q) at each token."""
    return (logp_NV.exp() * (logp_NV - logq_NV)).sum(-1)


def published(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """Weights p renormalised on the student's 16 most likely tokens, log-ratio over the vocabulary, score form."""
    top = logp_NV.detach().topk(K, dim=-1)
    logp_NK, logq_NK = logp_NV.gather(1, top.indices), logq_NV.gather(1, top.indices)
    advantage_NK = (top.values.softmax(-1) * (logp_NK - logq_NK)).detach()
    return (advantage_NK * (1 + logp_NK - logp_NK.detach())).sum(-1)


def our_whole_step(compiled: bool = False) -> Callable[[Workload], LossOf]:
    """Sampling the responses as well, by a compiled pass or by the model as it is."""

    def make(work: Workload) -> LossOf:
        own, size, words = ours("reverse KL"), work.size, word_tokenizer(work.size.vocabulary)
        sample: rollout.Sample = rollout.sample
        if compiled:
            from opd_lib.engine.sampling import rollout_compiled  # imports torch's compiler, which takes memory

            longest = size.prompt + size.response
            sample = rollout_compiled.Sampler(work.student, work.student.dtype, footprint.GIB, longest).sample

        def loss() -> tuple[float, Callable[[], None]]:
            uniform_BT = torch.rand(size.sequences, size.response)
            drawn = sample(work.student, words, work.rollouts.prompts, uniform_BT, 1.0, 1.0)
            work.student.train()
            sampled = copy(work)
            sampled.rollouts, work.produced = drawn, int(drawn.length_B.sum())
            return own(sampled)()

        return loss

    return make


def compiled_bodies(work: Workload) -> LossOf:
    """Plain torch, the bodies of both models compiled."""
    for model in (work.student, work.teacher):
        model.model.compile(dynamic=False)
    return plain(reverse_kl)(work)


ENTRANTS = {
    entrant.name: entrant
    for entrant in (
        Entrant(name="ours", objective="reverse KL", make=ours("reverse KL")),
        Entrant(name="ours, published objective", objective="published", make=ours("published")),
        Entrant(name="ours, Eq. 5", objective="Eq. 5", make=ours("Eq. 5")),
        Entrant(name="naive", objective="reverse KL", make=plain(reverse_kl), logits=24),
        Entrant(name="naive, published objective", objective="published", make=plain(published), logits=16),
        Entrant(
            name="TRL DistillationTrainer",
            objective="reverse KL",
            make=peers.distillation,
            extra="student entropy",
            logits=11,
        ),
        Entrant(name="TRL GKDTrainer", objective="reverse KL", make=peers.gkd, extra="logits of the prompt", logits=44),
        Entrant(
            name="TRL GOLDTrainer", objective="reverse KL", make=peers.gold, extra="logits of the prompt", logits=44
        ),
        Entrant(name="Liger fused JSD", objective="reverse KL", make=peers.liger, extra="cross-entropy"),
        Entrant(name="naive, compiled", objective="reverse KL", make=compiled_bodies, logits=24),
        Entrant(name="ours, with rollout", objective=WHOLE, make=our_whole_step()),
        Entrant(name="ours, with compiled rollout", objective=WHOLE, make=our_whole_step(compiled=True)),
        Entrant(name="TRL, with rollout", objective=WHOLE, make=peers.whole_step_of_trl, extra="student entropy"),
    )
}
