"""The student that self-distillation leads to when its teacher knows what it does not: exact optima over one context.

A teacher q(· | I) was shown I; the student does not see I and learns one p for all of them, weighed by P(I):

    reverse KL   min_p E_I KL(p ‖ q_I)   p* = exp(E_I log q_I) / Z, the geometric mean    lowest value −log Z
    forward KL   min_p E_I KL(q_I ‖ p)   p* = E_I q_I, the arithmetic mean                lowest value I(Y; I)

Both lowest values are 0 only where all teachers agree. A sequence is no different: at a prefix that the student wrote
the weights are still P(I), since the student's words carry nothing of I.

Source: arXiv 2605.11182 (mechanism 3) for the geometric mean; the rest is derived here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def geometric(logq_IV: Tensor, weight_I: Tensor) -> tuple[Tensor, float]:
    """log p* (V) of the reverse KL, and −log Z (nats)."""
    mean_V = (weight_I[:, None] * logq_IV).sum(0)
    log_z = mean_V.logsumexp(0)
    return mean_V - log_z, -float(log_z)


def arithmetic(logq_IV: Tensor, weight_I: Tensor) -> tuple[Tensor, float]:
    """log p* (V) of the forward KL, and the mutual information of token and I (nats)."""
    mean_V = (weight_I.log()[:, None] + logq_IV).logsumexp(0)
    information = (weight_I[:, None] * logq_IV.exp() * (logq_IV - mean_V)).sum()
    return mean_V, float(information)


def answers_and_hedge(n: int, spread: float, hedge: float) -> Tensor:
    """Log-probabilities (n, n + 1) of teachers that each know another of n answers; the last token is a hedge.

    Each gives its answer 1 − spread − hedge, the other answers `spread` together and the hedge `hedge`.
    """
    others = math.log(spread / (n - 1)) if spread > 0 else -math.inf
    logq = torch.full((n, n + 1), others, dtype=torch.float64)
    logq.fill_diagonal_(math.log(1.0 - spread - hedge))
    logq[:, -1] = math.log(hedge)
    return logq
