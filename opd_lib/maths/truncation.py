"""What an objective that looks at a few tokens does to a softmax, exactly: one context, no sampling, no network.

Every divergence between student p and teacher q that is summed over a support S has the gradient

    Σ_S p_v a_v ∇log p_v,   by logits   ∂/∂z_j = p_j (a_j [j ∈ S] − Σ_S p_u a_u)

so it is its coefficients a (V): where a_v < 0 the token gains. With r = log(p/q), M = Σ_S p, p̄ and q̄ renormalised on S:

    full           r, with S the vocabulary                             also what `sampled` expects to be
    plain          r + 1                                                Σ_S p log(p/q), differentiated as it stands
    held           r                                                    weight and log-ratio held constant
    published      r / M                                                the code of 2604.13016: held, weights p / M
    renormalised   (log(p̄/q̄) − KL(p̄ ‖ q̄)) / M                           KL(p̄ ‖ q̄)
    bucket         r − log((1 − M)/(1 − Σ_S q))                         what lies outside S is one more token
    jsd            (1 − β) log(p/m), m = βq + (1 − β)p                  Jensen–Shannon, summed over S
    skew           log(p/m) + 1 − α p/m, m = αp + (1 − α)q              Σ_S p log(p/m)
    forward        −q/p                                                 Σ_S q log(q/p)
    filled         (r + 1), r = 0 off the teacher's own list            plain, as the code of 2605.11182 fills it in
    filled-held    r, 0 off the teacher's own list                      held, filled in likewise

Over the whole vocabulary Σ p ∇log p = 0, so the 1 of `plain` does nothing; on a support it is ∇M, and descent takes
mass out of S whatever the teacher says. `methods/opd` trains with these; that it has these gradients is a test.

Source: arXiv 2605.11182 (mechanism 2) and its code; derivations here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BETA, ALPHA = 0.5, 0.1
"""Of `jsd` and `skew`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Log-probabilities of student and teacher (…, V), the support and the teacher's own list (…, V bool)."""

    logp: Tensor
    logq: Tensor
    support: Tensor
    listed: Tensor

    @property
    def ratio(self) -> Tensor:
        """r = log p − log q."""
        return self.logp - self.logq

    def on_support(self, values: Tensor) -> Tensor:
        """Σ_S of them (…, 1)."""
        return values.masked_fill(~self.support, 0.0).sum(-1, keepdim=True)

    def log_mass(self, logp: Tensor) -> Tensor:
        """log Σ_S (…, 1)."""
        return mass(logp, self.support).log()[..., None]

    def log_tail(self, logp: Tensor) -> Tensor:
        """log of what lies outside S (…, 1), summed there."""
        return mass(logp, ~self.support).log()[..., None]


def renormalised(pair: Pair) -> Tensor:
    """Of KL(p̄ ‖ q̄)."""
    log_mass = pair.log_mass(pair.logp)
    logp = pair.logp - log_mass
    ratio = logp - (pair.logq - pair.log_mass(pair.logq))
    return (ratio - pair.on_support(logp.exp() * ratio)) * (-log_mass).exp()


def bucket(pair: Pair) -> Tensor:
    """Of the KL of S and one more token."""
    return pair.ratio - (pair.log_tail(pair.logp) - pair.log_tail(pair.logq))


def jsd(pair: Pair) -> Tensor:
    """Of Jensen–Shannon, summed over S: it has no 1."""
    mixture = torch.logaddexp(math.log(BETA) + pair.logq, math.log1p(-BETA) + pair.logp)
    return (1.0 - BETA) * (pair.logp - mixture)


def skew(pair: Pair) -> Tensor:
    """Of Σ_S p log(p/m): a part of the 1 is left."""
    ratio = pair.logp - torch.logaddexp(math.log(ALPHA) + pair.logp, math.log1p(-ALPHA) + pair.logq)
    return ratio + 1.0 - ALPHA * ratio.exp()


def filled(pair: Pair) -> Tensor:
    """r where the teacher's own list has the token, 0 elsewhere."""
    return pair.ratio.masked_fill(~pair.listed, 0.0)


OBJECTIVES: dict[str, Callable[[Pair], Tensor]] = {
    "full": lambda pair: pair.ratio,
    "plain": lambda pair: pair.ratio + 1.0,
    "held": lambda pair: pair.ratio,
    "published": lambda pair: pair.ratio * (-pair.log_mass(pair.logp)).exp(),
    "renormalised": renormalised,
    "bucket": bucket,
    "jsd": jsd,
    "skew": skew,
    "forward": lambda pair: -(-pair.ratio).exp(),
    "filled": lambda pair: filled(pair) + 1.0,
    "filled-held": filled,
}


def coefficients(objective: str, pair: Pair) -> Tensor:
    """a (…, V), 0 off the support. Raises ValueError for an unknown objective."""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: {objective!r} is unknown; choose from {', '.join(OBJECTIVES)}")
    return OBJECTIVES[objective](pair).masked_fill(~pair.support, 0.0)


def gradient(objective: str, logits: Tensor, logq: Tensor, support: Tensor, listed: Tensor) -> Tensor:
    """By the student's logits (…, V); of several teachers (T, …, V) the mean. Descent subtracts it."""
    logp = logits.log_softmax(-1)
    pair = Pair(logp=logp, logq=logq, support=support, listed=listed)
    pulled = logp.exp() * coefficients(objective, pair)
    by_teacher = pulled - logp.exp() * pulled.sum(-1, keepdim=True)
    return by_teacher.mean(0) if logq.dim() > logits.dim() else by_teacher


def top(logits: Tensor, k: int) -> Tensor:
    """Mask (…, V) of the k largest; of equals those that stand first."""
    first = logits.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, first, True)


def mass_at_rest(objective: str, logits: Tensor, logq: Tensor, support: Tensor) -> Tensor:
    """Σ_S p (…) where descent from `logits` on a fixed S rests, of teachers (T, …, V) that may disagree.

    g = exp(mean of log q) is the teachers' unnormalised geometric mean; with one teacher it is q. `renormalised` fixes
    no mass: where it rests is said for SGD, which leaves the sum of the logits on S as it was. Raises ValueError for an
    objective whose place is not known in closed form.
    """
    log_mean = logq.mean(0)
    geometric = mass(log_mean, support)
    if objective in ("held", "published") or (objective == "jsd" and len(logq) == 1):
        return geometric
    if objective == "plain":
        return geometric / math.e
    if objective == "full":
        return geometric / log_mean.logsumexp(-1).exp()
    if objective == "bucket":
        return geometric / (geometric + mass(logq, ~support).log().mean(0).exp())
    if objective == "renormalised":
        shift = (logits - log_mean).masked_fill(~support, 0.0).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
        return mass(torch.where(support, log_mean + shift, logits).log_softmax(-1), support)
    raise ValueError(f"objective: {objective}: where it rests is not known in closed form for {len(logq)} teachers")


def mass(logp: Tensor, support: Tensor) -> Tensor:
    """Σ_S of exp(log p) (…)."""
    return logp.masked_fill(~support, -math.inf).logsumexp(-1).exp()
