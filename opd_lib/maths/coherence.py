"""Do the gradients of single tokens add up or cancel? Read off their Gram matrix K, K_st = ⟨g_s, g_t⟩ (N, N).

For the head weight the gradient of a token is the outer product δ hᵀ of the loss's gradient δ at its logits and its
last hidden state h, so K_st = (δ_s · δ_t)(h_s · h_t): nothing of the size of the weights is ever built.
Everything is computed in float64; what is undefined (all gradients zero) is NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def gram(delta_NV: Tensor, hidden_NH: Tensor) -> Tensor:
    """Inner products (N, N) of the tokens' head gradients δ hᵀ."""
    delta_NV, hidden_NH = delta_NV.double(), hidden_NH.double()
    return (delta_NV @ delta_NV.T) * (hidden_NH @ hidden_NH.T)


def coherence(gram_NN: Tensor) -> float:
    """‖Σ g‖² / Σ ‖g‖²: 1 for orthogonal gradients, N for identical ones, 0 when they cancel.

    It grows with N wherever the gradients share a direction: compare it at equal N only.
    """
    gram_NN = gram_NN.double()
    return float(gram_NN.sum() / gram_NN.trace())


def mean_cosine(gram_NN: Tensor) -> float:
    """Mean cosine over all pairs of different tokens, each pair counting alike however small its gradients.

    Does not depend on N in expectation. Gradients of length zero have no direction and are left out.
    """
    gram_NN = gram_NN.double()
    norm_N = gram_NN.diagonal().clamp(min=0.0).sqrt()
    kept_N = norm_N > 0
    cosine_NN = (gram_NN / norm_N[:, None] / norm_N)[kept_N][:, kept_N]
    n = len(cosine_NN)
    return float((cosine_NN.sum() - cosine_NN.trace()) / n / (n - 1)) if n > 1 else float("nan")


def effective_rank(gram_NN: Tensor) -> float:
    """(tr K)² / ‖K‖²_F (participation ratio): 1 if all gradients lie on one line, N if orthogonal and equally long."""
    gram_NN = gram_NN.double()
    return float(gram_NN.trace() ** 2 / gram_NN.square().sum())


def with_sum(delta_MV: Tensor, hidden_MH: Tensor, delta_NV: Tensor, hidden_NH: Tensor) -> Tensor:
    """Cosine (M) of each of M tokens' head gradients with the sum of N tokens' head gradients.

    Positive: the token pulls where the batch goes. NaN where one of the two is zero.
    """
    dot_M = ((delta_MV.double() @ delta_NV.double().T) * (hidden_MH.double() @ hidden_NH.double().T)).sum(1)
    norm_M = delta_MV.double().norm(dim=1) * hidden_MH.double().norm(dim=1)
    cosine_M: Tensor = dot_M / norm_M / gram(delta_NV, hidden_NH).sum().sqrt()
    return cosine_M


def cosine(left_W: Tensor, right_W: Tensor) -> float:
    """Cosine of two gradients over all W weights; NaN if one of them is zero."""
    left_W, right_W = left_W.double(), right_W.double()
    return float((left_W / left_W.norm()) @ (right_W / right_W.norm()))
