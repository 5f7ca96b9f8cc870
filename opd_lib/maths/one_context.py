"""What `truncation`, `descent` and `self_distillation` say of single contexts, as tidy frames for figures and tables.

A context is a head of likely tokens and a tail that is spread evenly over all others. Nothing is estimated: a column
`seed` counts contexts drawn at random where there are several, and is 0 where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from opd_lib.maths import descent, self_distillation, truncation
from opd_lib.maths.truncation import Pair

HEAD = (0.4, 0.2, 0.12, 0.1, 0.07, 0.05, 0.04, 0.02)
"""Shares of the likely tokens: where nothing else is said, K is their number."""
BY_RATIO = ("plain", "held", "jsd", "skew", "forward")
"""Objectives whose coefficient depends on q/p alone."""
RESTING = ("full", "plain", "held", "published", "renormalised", "bucket")
"""Objectives of which it is known where they rest, with teachers that disagree too."""


def coefficients(ratios: Sequence[float]) -> pd.DataFrame:
    """series, seed, ratio (log q − log p, nats) and coefficient a of one token: where it is below 0 the token gains."""
    logp = torch.full((len(ratios), 1), math.log(0.1), dtype=torch.float64)
    whole = torch.ones_like(logp, dtype=torch.bool)
    pair = Pair(logp=logp, logq=logp + torch.tensor(ratios, dtype=torch.float64)[:, None], support=whole, listed=whole)
    frames = [
        pd.DataFrame({"series": name, "seed": 0, "ratio": list(ratios), "coefficient": found[:, 0].tolist()})
        for name in BY_RATIO
        for found in [truncation.coefficients(name, pair)]
    ]
    return pd.concat(frames, ignore_index=True)


def at_rest(contexts: int, spread: float = 0.7) -> pd.DataFrame:
    """arm, seed, predicted and descended mass on a fixed support, of two teachers that disagree, and the error.

    Teachers are the start with Gaussian noise of `spread` nats; four tokens of six are the support; SGD.
    """
    generator = torch.Generator().manual_seed(0)
    start = descent.head_and_tail([0.5, 0.2, 0.2, 0.1], [0.1] * contexts, 6)
    noise = spread * torch.randn(2, contexts, 6, generator=generator, dtype=torch.float64)
    logq, support = (start + noise).log_softmax(-1), truncation.top(start, 4)
    frames = []
    for name in RESTING:
        course = descent.descend(name, start, logq, 4, [4.0] * contexts, 800, "sgd", is_fixed=True)
        predicted = truncation.mass_at_rest(name, start, logq, support)
        error = (course.mass_TR[-1] - predicted).abs()
        columns = {"predicted": predicted, "descended": course.mass_TR[-1], "error": error}
        frames.append(
            pd.DataFrame({"arm": name, "seed": range(contexts)} | {k: v.tolist() for k, v in columns.items()})
        )
    return pd.concat(frames, ignore_index=True)


def courses(
    objectives: Sequence[str], tail: float, lr: float, steps: int, vocabulary: int = 256, optimiser: str = "adam"
) -> pd.DataFrame:
    """arm, seed, step and mass on the student's K likeliest tokens, from a student that equals its teacher."""
    start = descent.head_and_tail(HEAD, [tail], vocabulary)
    frames = []
    for name in objectives:
        course = descent.descend(name, start, start, len(HEAD), [lr], steps, optimiser)
        frames.append(pd.DataFrame({"arm": name, "seed": 0, "step": range(steps + 1), "mass": course.mass_TR[:, 0]}))
    return pd.concat(frames, ignore_index=True)


def onsets(
    tails: Sequence[float], rates: Sequence[float], steps: int, optimiser: str, vocabulary: int = 256
) -> pd.DataFrame:
    """series (the rate), seed, tail and the step at which `plain` has lost `descent.SPILT` of its mass (nan: not yet).

    `scaled`: that step times the learning rate.
    """
    pairs = [(rate, tail) for rate in rates for tail in tails]
    rows = descent.head_and_tail(HEAD, [tail for _, tail in pairs], vocabulary)
    course = descent.descend("plain", rows, rows, len(HEAD), [rate for rate, _ in pairs], steps, optimiser)
    found = pd.DataFrame(pairs, columns=["rate", "tail"]).assign(seed=0, onset=descent.onsets(course))
    return found.assign(series="rate " + found["rate"].map("{:g}".format), scaled=found["onset"] * found["rate"])


def by_support(sizes: Sequence[int], vocabulary: int, tail: float, lr: float, steps: int) -> pd.DataFrame:
    """A row for each K: K/V, and the share outside the student's K likeliest tokens after these steps of `plain`."""
    rows = []
    for k in sizes:
        start = descent.head_and_tail([1.0] * k, [tail], vocabulary)
        course = descent.descend("plain", start, start, k, [lr], steps)
        rows.append({"K": k, "K / V": k / vocabulary, "outside": 1.0 - course.mass_TR[-1].item()})
    return pd.DataFrame(rows)


def divided(shares: Sequence[float], vocabulary: int = 256, tail: float = 0.001) -> tuple[Tensor, Tensor]:
    """A start (R, V) and two teachers (2, R, V), each of which puts a share on a token of its own; a row per share."""
    start = descent.head_and_tail(HEAD, [tail] * len(shares), vocabulary)
    share_R1 = torch.tensor(shares, dtype=torch.float64)[:, None]
    own = torch.nn.functional.one_hot(torch.arange(2), vocabulary).double()[:, None, :]
    return start, ((1.0 - share_R1) * start.exp() + share_R1 * own).log()


def residuals(logq: Tensor) -> list[float]:
    """The reverse KL that no student gets below (nats), of each row of teachers (T, R, V)."""
    weight = torch.full((len(logq),), 1.0 / len(logq), dtype=torch.float64)
    return [round(self_distillation.geometric(logq[:, row], weight)[1], 4) for row in range(logq.shape[1])]


def disagreement(objectives: Sequence[str], shares: Sequence[float]) -> pd.DataFrame:
    """series, seed, residual (`residuals`) and mass at rest on the head, a series per objective, a row per share."""
    start, logq = divided(shares)
    support, residual = truncation.top(start, len(HEAD)), residuals(logq)
    frames = [
        pd.DataFrame({"series": name, "seed": 0, "residual": residual, "mass": mass.tolist()})
        for name in objectives
        for mass in [truncation.mass_at_rest(name, start, logq, support)]
    ]
    return pd.concat(frames, ignore_index=True)


def leaks(
    objective: str, shares: Sequence[float], rates: Sequence[float], steps: int, spilt: float = 0.1
) -> pd.DataFrame:
    """A row per residual (nats), a column per rate: the step at which a share of `spilt` is lost under Adam, or nan."""
    start, logq = divided(shares)
    residual, n = residuals(logq), len(rates)
    course = descent.descend(
        objective, start.repeat(n, 1), logq.repeat(1, n, 1), len(HEAD), [r for r in rates for _ in shares], steps
    )
    found = torch.tensor(descent.onsets(course, spilt)).view(n, len(shares)).T
    by_rate = pd.DataFrame(found.numpy(), columns=[f"steps at rate {rate:g}" for rate in rates])
    return pd.concat([pd.Series(residual, name="residual"), by_rate], axis=1)


def hedging(answers: Sequence[int], spreads: Sequence[float], hedge: float = 0.01) -> pd.DataFrame:
    """series, seed, answers; the hedge's share and the lowest value (nats) under reverse and under forward KL."""
    rows = []
    for spread in spreads:
        for n in answers:
            logq, weight = self_distillation.answers_and_hedge(n, spread, hedge), torch.full((n,), 1.0 / n).double()
            (reverse, floor), (forward, information) = (
                mean(logq, weight) for mean in (self_distillation.geometric, self_distillation.arithmetic)
            )
            shares = {"reverse": math.exp(reverse[-1]), "forward": math.exp(forward[-1])}
            named = {"series": f"spread {spread:g}", "seed": 0, "answers": n}
            rows.append(named | shares | {"lowest reverse KL": floor, "lowest forward KL": information})
    return pd.DataFrame(rows)
