"""The objectives of `opd`, and of `sft`, a second time: slow, explicit, in plain Python floats and without autograd.

Per position the gradient is Σ_v c_v ∇log p_v. The closed forms of c_v on a set of categories (tokens, perhaps a tail):

    reverse, score form   w r               r = log(p/q)
    reverse, raw or both  w (r + 1)
    reverse, weights      w (r − Σ w r + 1)
    forward               −w
    jsd                   (1−β) p log(p/m)  m = βq + (1−β)p

Probabilities renormalised on S cannot change its mass: from c_v goes p̄_v Σ c. A tail of mass τ hands its c to the
tokens v outside S in shares p_v/τ. At the logits, dL/dz_j = c_j − p_j Σ_v c_v.
"""

from __future__ import annotations

from math import fsum, log
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from opd_lib.methods.opd import Params

Floats = list[float]


def of_opd(
    student_logits_NV: Tensor, teacher_logits_NV: Tensor, token_N: Tensor, params: Params
) -> tuple[float, Tensor]:
    """Sum over positions of the objective (nats) and its exact gradient at the student's logits (N, V), in float64."""
    p_NV, q_NV = (x_NV.detach().double().softmax(-1).tolist() for x_NV in (student_logits_NV, teacher_logits_NV))
    values, rows = [], []
    for p, q, token in zip(p_NV, q_NV, token_N.tolist(), strict=True):
        value, c = _sampled(p, q, token) if params.estimator == "sampled" else _on_support(p, q, params)
        values.append(value)
        rows.append([c_v - p_v * fsum(c) for c_v, p_v in zip(c, p, strict=True)])
    return fsum(values), torch.tensor(rows, dtype=torch.float64)


def _sampled(p: Floats, q: Floats, token: int) -> tuple[float, Floats]:
    r = log(p[token] / q[token])
    return r, [r if v == token else 0.0 for v in range(len(p))]


def _on_support(p: Floats, q: Floats, params: Params) -> tuple[float, Floats]:
    inside = _support(p, q, params)
    outside = [v for v in range(len(p)) if v not in inside]
    groups = [[v] for v in inside] + ([outside] if params.tail == "bucket" else [])
    p_groups, q_groups = ([fsum(x[v] for v in group) for group in groups] for x in (p, q))
    if params.normalize == "both":
        p_groups, q_groups = _shares(p_groups), _shares(q_groups)
    value, c_groups = _terms(p_groups, q_groups, params)
    if params.normalize == "both":
        total = fsum(c_groups)
        c_groups = [c - p_g * total for c, p_g in zip(c_groups, p_groups, strict=True)]
    c = [0.0] * len(p)
    for group, c_g in zip(groups, c_groups, strict=True):
        mass = fsum(p[v] for v in group)
        for v in group:
            c[v] = c_g * p[v] / mass
    return value, c


def _support(p: Floats, q: Floats, params: Params) -> list[int]:
    k = len(p) if params.estimator == "full" else params.k
    ours, theirs = (set(sorted(range(len(x)), key=lambda v: -x[v])[:k]) for x in (p, q))
    sets = {"student": ours, "teacher": theirs, "intersection": ours & theirs, "union": ours | theirs}
    return sorted(sets.get(params.support, ours ^ theirs))


def _terms(p: Floats, q: Floats, params: Params) -> tuple[float, Floats]:
    r = [log(a / b) for a, b in zip(p, q, strict=True)]
    if params.direction == "jsd":
        b = params.beta
        m = [b * q_v + (1 - b) * p_v for p_v, q_v in zip(p, q, strict=True)]
        c = [(1 - b) * p_v * log(p_v / m_v) for p_v, m_v in zip(p, m, strict=True)]
        return fsum(c) + fsum(b * q_v * log(q_v / m_v) for q_v, m_v in zip(q, m, strict=True)), c
    w = {"student_p": p, "teacher_p": q, "uniform": [1.0] * len(p)}[params.weight]
    w = w if params.normalize == "raw" else _shares(w)
    value = fsum(w_v * r_v for w_v, r_v in zip(w, r, strict=True))
    if params.direction == "forward":
        return -value, [-w_v for w_v in w]
    bonus = 0.0 if params.stop_gradient else 1.0 - value if params.normalize == "weights" else 1.0
    return value, [w_v * (r_v + bonus) for w_v, r_v in zip(w, r, strict=True)]


def _shares(x: Floats) -> Floats:
    return [x_v / fsum(x) for x_v in x]


def of_sft(student_logits_NV: Tensor, teacher_logits_NV: Tensor | None, token_N: Tensor) -> tuple[float, Tensor]:
    """Cross-entropy, summed, and its exact gradient at the logits (N, V): softmax minus one-hot."""
    gradient_NV = student_logits_NV.detach().double().softmax(-1)
    total = 0.0
    for n, token in enumerate(token_N.tolist()):
        total -= log(float(gradient_NV[n, token]))
        gradient_NV[n, token] -= 1.0
    return total, gradient_NV
