"""What a distillation run is doing, position by position: overlap, mass, advantage, entropy gap (Eqs 6–10).

A teacher with another tokenizer stands behind the same text only where a unit begins: what compares distributions token
by token is undefined there, and what is known at some tokens is the mean over these.

Any k up to the length of the candidate lists may be asked for, whatever k the objective trains on, sampled-token runs
included. A metric is a value and a weight per token; its mean is Σ value / Σ weight, so sums add over micro-batches,
depth buckets and processes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from opd_lib.spelling import Units
from opd_lib.types import NEGLIGIBLE, TokenScores

Metric = tuple[Tensor, Tensor]  # value_N (already multiplied by its weight) and weight_N
AT_K = (
    "overlap", "student_mass", "teacher_mass", "student_support_mass", "advantage_paper", "advantage_reference_code",
    "advantage_verl", "empty_overlap", "delta_p",
)  # fmt: skip
"""The metrics of top-k lists (`at_k`)."""
BY_DEPTH = ("overlap", "student_entropy", "teacher_entropy", "reverse_kl", "advantage_paper")  # columns of depth.csv

UNITS = {
    "step": ("", "optimiser step, counted from 1"),
    "loss": ("nats/token", "value of the objective, summed over tokens and divided by their number"),
    "grad_norm": ("", "gradient norm over all parameters, before clipping"),
    "n_tokens": ("tokens", "response tokens of the step, over all processes"),
    "response_length": ("tokens", "mean length of the step's responses, end token included"),
    "truncated_share": ("share", "responses cut at the length limit"),
    "reward": ("share", "responses of the step with the right answer"),
    "sampler_gap": (
        "nats",
        "largest difference of sampler and trainer log-probabilities; 0 for a corpus",
    ),
    "student_entropy": ("nats", "full-vocabulary entropy of the student, token mean"),
    "teacher_entropy": ("nats", "full-vocabulary entropy of the teacher on the student's prefixes, token mean"),
    "entropy_gap": ("nats", "mean of |H(q) − H(p)| (Eq. 8)"),
    "entropy_gap_of_means": ("nats", "|mean H(q) − mean H(p)|"),
    "reverse_kl": ("nats/token", "exact KL(student ‖ teacher), token mean"),
    "sampled_reverse_kl": ("nats/token", "log p − log q at the sampled tokens, token mean"),
    "overlap": ("share", "student's and teacher's top-k in common (Eq. 6)"),
    "student_mass": ("probability", "student mass on the overlap (Eq. 9)"),
    "teacher_mass": ("probability", "teacher mass on the overlap (Eq. 10)"),
    "student_support_mass": ("probability", "student mass on its own top-k"),
    "advantage_paper": ("nats", "overlap-token advantage, renormalised on the overlap (Eq. 7)"),
    "advantage_reference_code": ("nats", "the published code's: weights on the student's top-k, full log-ratio"),
    "advantage_verl": ("nats", "verl's: teacher-weighted, not renormalised"),
    "empty_overlap": ("share", "positions whose top-k lists share nothing"),
    "delta_p": ("probability", "p − q at the student's top-k token of largest |advantage| (Fig 19)"),
    "taught_share": ("share", "tokens in units that are taught, with a teacher of another tokenizer"),
    "hedge_share": ("share", "response tokens that are one of the words of diagnose.hedges"),
    "repeat_share": ("share", "response tokens that end a run of three which stood earlier in the response"),
    "repeated_advantage": ("nats", "log q − log p at such tokens, their mean"),
    "other_advantage": ("nats", "log q − log p at the other tokens, their mean"),
    "looping_share": ("share", "responses that end in a loop: their last 64 tokens pack to less than a third"),
}
"""Column of steps.csv (a trailing _k16 left out) → (unit, meaning)."""


def signals(scores: TokenScores, names: Collection[str]) -> dict[str, Tensor]:
    """The named metrics (N each) of these tokens, NaN where one is undefined: `reverse_kl`, `overlap_k16`, …

    `sampled_reverse_kl@NAME` is that under one of several teachers.

    Raises ValueError for a name that there is not.
    """
    if not names:
        return {}
    metrics = per_token(scores, sorted({length(name) for name in names} - {0}))
    one_N = torch.ones_like(scores.student_logp_N)
    for teacher, logp_N in (scores.named_logp_N or {}).items():
        metrics[f"sampled_reverse_kl@{teacher}"] = (scores.student_logp_N.detach() - logp_N, one_N)
    unknown = sorted(set(names) - set(metrics))
    if unknown:
        raise ValueError(f"signal {unknown[0]!r} is unknown; there are {', '.join(sorted(metrics))}")
    return {name: metrics[name][0] / metrics[name][1].to(metrics[name][0]) for name in sorted(names)}


def length(name: str) -> int:
    """How long the lists must be for a metric: the k at the end of its name; 0 if it needs none.

    >>> length("overlap_k16"), length("reverse_kl")
    (16, 0)
    """
    digits = name.rpartition("_k")[2]
    return int(digits) if "_k" in name and digits.isdecimal() else 0


def per_token(scores: TokenScores, ks: Sequence[int]) -> dict[str, Metric]:
    """Every metric of these tokens, at each k. Without a teacher: the student's entropy alone.

    What a served teacher cannot know weighs nothing.
    """
    one_N = torch.ones_like(scores.student_logp_N)
    assert scores.student_entropy_N is not None  # it was measured
    metrics = {"student_entropy": (scores.student_entropy_N, one_N)}
    if scores.teacher_logp_N is None:
        return metrics
    unknown: Metric = (torch.zeros_like(one_N), torch.zeros_like(one_N))
    metrics |= {"teacher_entropy": unknown, "entropy_gap": unknown, "reverse_kl": unknown}
    if scores.units is not None:
        return metrics | across(scores, scores.units) | {f"{name}_k{k}": unknown for k in ks for name in AT_K}
    if scores.teacher_entropy_N is not None and scores.reverse_kl_N is not None:
        gap_N = scores.teacher_entropy_N - scores.student_entropy_N
        metrics["teacher_entropy"] = (scores.teacher_entropy_N, one_N)
        metrics["entropy_gap"] = (gap_N.abs(), one_N)
        metrics["reverse_kl"] = (scores.reverse_kl_N, one_N)
    metrics["sampled_reverse_kl"] = (scores.student_logp_N.detach() - scores.teacher_logp_N, one_N)
    for k in ks:
        metrics |= {f"{name}_k{k}": metric for name, metric in at_k(scores, k).items()}
    return metrics


def across(scores: TokenScores, units: Units) -> dict[str, Metric]:
    """What is defined between two tokenizers, at the tokens where it is."""
    found = {"taught_share": (units.taught_N.to(scores.student_logp_N), torch.ones_like(scores.student_logp_N))}
    ratio_N = None if scores.teacher_logp_N is None else scores.student_logp_N.detach() - scores.teacher_logp_N
    for name, value_N, known_N in (
        ("teacher_entropy", scores.teacher_entropy_N, units.place_N == 0),
        ("sampled_reverse_kl", ratio_N, units.length_N == 1),
    ):
        if value_N is not None:
            found[name] = (torch.where(known_N, value_N, 0.0), known_N.to(value_N))
    return found


def at_k(scores: TokenScores, k: int) -> dict[str, Metric]:
    """The overlap metrics of top-k lists of length k. Raises ValueError if the candidates' lists are shorter.

    delta_p, for which the teacher must have scored all of the student's list, is unknown with a served teacher: at the
    positions that happen to be known it would be the mean of another population.
    """
    c = scores.candidates
    if c is None or (len(c.id_NC) and not 1 <= k <= c.length):
        raise ValueError(f"k = {k}: the scores hold no top-k lists of that length; score with this k or a larger one")
    logp_NC, logq_NC = c.student_logp_NC.detach(), c.teacher_logp_NC
    mine_NC = c.student_rank_NC < k
    shared_NC = mine_NC & (c.teacher_rank_NC < k)
    n_shared_N = shared_NC.sum(1).to(logp_NC.dtype)
    one_N, some_N = torch.ones_like(n_shared_N), n_shared_N.clamp(max=1)
    p_NC, q_NC = logp_NC.exp(), logq_NC.exp()
    ratio_NC = logp_NC - logq_NC
    published_NC = -_log_softmax(logp_NC, mine_NC).exp() * ratio_NC
    extreme_N1 = published_NC.abs().masked_fill(~mine_NC, -1.0).argmax(1, keepdim=True)
    delta_N, all_known_N = (p_NC - q_NC).gather(1, extreme_N1)[:, 0], one_N
    if scores.teacher_entropy_N is None:
        delta_N = all_known_N = torch.zeros_like(one_N)
    return {
        "overlap": (n_shared_N / k, one_N),
        "student_mass": (_sum(p_NC, shared_NC), one_N),
        "teacher_mass": (_sum(q_NC, shared_NC), one_N),
        "student_support_mass": (_sum(p_NC, mine_NC), one_N),
        "advantage_paper": (_paper(logp_NC, logq_NC, shared_NC), some_N),
        "advantage_reference_code": (_sum(published_NC, shared_NC), n_shared_N),
        "advantage_verl": (_sum(q_NC * ratio_NC, shared_NC) / n_shared_N.clamp(min=1), one_N),
        "empty_overlap": (1.0 - some_N, one_N),
        "delta_p": (delta_N, all_known_N),
    }


def _paper(logp_NC: Tensor, logq_NC: Tensor, shared_NC: Tensor) -> Tensor:
    """Eq. 7 at each position: mean over the overlap I of p̄(log q̄ − log p̄), both renormalised on I."""
    own_NC, other_NC = _log_softmax(logp_NC, shared_NC), _log_softmax(logq_NC, shared_NC)
    return _sum(own_NC.exp() * (other_NC - own_NC), shared_NC) / shared_NC.sum(1).clamp(min=1)


def _log_softmax(logp_NC: Tensor, mask_NC: Tensor) -> Tensor:
    return logp_NC.masked_fill(~mask_NC, NEGLIGIBLE).log_softmax(1)


def _sum(value_NC: Tensor, mask_NC: Tensor) -> Tensor:
    return torch.where(mask_NC, value_NC, 0.0).sum(1)


def bucket_sums(metrics: dict[str, Metric], position_N: Tensor, bucket: int, n_buckets: int) -> tuple[Tensor, Tensor]:
    """Sums of values and of weights (metric, depth bucket), in float64 on the CPU. Positions beyond count in the last.

    They add: over micro-batches, buckets and processes.
    """
    bucket_N = (position_N // bucket).clamp(max=n_buckets - 1).cpu()
    empty_MD = torch.zeros(len(metrics), n_buckets, dtype=torch.float64)
    values_MN, weights_MN = (torch.stack(list(part)).cpu().double() for part in zip(*metrics.values(), strict=True))
    return empty_MD.index_add(1, bucket_N, values_MN), empty_MD.index_add(1, bucket_N, weights_MN)


class Tally:
    """Adds up metrics by depth over the micro-batches of a step.

    A depth bucket is `bucket` response positions; positions beyond `n_positions` count in the last one.
    `sums_MD` and `weights_MD` (metric, bucket) may be summed over processes before they are read.
    """

    def __init__(self, ks: Sequence[int], bucket: int, n_positions: int) -> None:
        self.ks, self.bucket = ks, bucket
        self.n_buckets = -(-n_positions // bucket)
        self.names: tuple[str, ...] = ()
        self.sums_MD = self.weights_MD = torch.zeros(0)

    def add(self, scores: TokenScores, more: Mapping[str, Metric] = MappingProxyType({})) -> None:
        """Count these tokens in, with `more` metrics of theirs."""
        metrics = per_token(scores, self.ks) | dict(more)
        sums_MD, weights_MD = bucket_sums(metrics, scores.position_N, self.bucket, self.n_buckets)
        self.sums_MD = self.sums_MD + sums_MD if self.names else sums_MD
        self.weights_MD = self.weights_MD + weights_MD if self.names else weights_MD
        self.names = tuple(metrics)

    def means(self) -> dict[str, float]:
        """Each metric over all tokens; NaN where it is nowhere defined."""
        means_M = (self.sums_MD.sum(1) / self.weights_MD.sum(1)).tolist()
        row = dict(zip(self.names, means_M, strict=True))
        if "teacher_entropy" in row:
            gap = abs(row["teacher_entropy"] - row["student_entropy"])
            row["entropy_gap_of_means"] = math.nan if math.isnan(row["entropy_gap"]) else gap
        return row

    def by_depth(self) -> list[dict[str, Any]]:
        """One row per bucket that holds tokens: `depth` is its first position, `n_tokens` the number of its tokens."""
        means_DM = (self.sums_MD / self.weights_MD).T.tolist()
        counts_D = self.weights_MD[0].tolist()
        return [
            {"depth": index * self.bucket, "n_tokens": int(count)}
            | {name: mean for name, mean in zip(self.names, means, strict=True) if name.startswith(BY_DEPTH)}
            for index, (count, means) in enumerate(zip(counts_D, means_DM, strict=True))
            if count > 0
        ]
