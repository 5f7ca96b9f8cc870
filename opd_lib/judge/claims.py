"""What the paper says, and whether our runs say it too.

A claims file is written before its runs. Each claim has a quantity, a direction and a threshold. Its verdict comes
from an interval, at a level that keeps the whole file right together:

    statistic: seeds      the quantity is one number per seed; Student-t interval over seeds
    statistic: problems   two conditions on the same test problems; paired cluster bootstrap over problems, each
                          problem averaged over seeds: sure of these models, says nothing about other seeds

    holds           the whole interval is on the claimed side of the threshold, or within it where that is claimed
    does not hold   the whole interval is on the other side
    inconclusive    the interval holds the threshold, or fewer seeds were run than the claim was planned for, or a
                    seed's quantity is undefined
    not run         no seed has all the runs that the quantity names
    not part of profile NAME: REASON
                    the claims file says that this profile makes no runs of it

Beside the verdict stand `margin`, how far the estimate lies beyond the threshold, and `detectable`, the smallest
distance that these seeds decide with probability .8 if the standard deviation is the one observed. It says what an
open verdict is worth: how large an effect would be found four times in five. What is left open is the interval.

A claim that rests on a precondition which is absent keeps interval and verdict and is marked (`judge/preconditions`).

The level is Bonferroni's over all claims of the file, whichever of them a notebook shows. That is deliberate: every
claim that is added widens the interval of every other one, and nothing is gained by looking at a part of them.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from opd_lib.judge import preconditions, vocabulary
from opd_lib.judge.preconditions import ABSENT, NOT_PART, NOT_RUN
from opd_lib.judge.quantities import Evidence
from opd_lib.judge.register import Claim, Register, load
from opd_lib.maths import stats

__all__ = ["NOT_PART", "NOT_RUN", "Claim", "Register", "judge", "load", "paper_number", "summary", "verdict"]

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold"
INCONCLUSIVE = "inconclusive"


def judge(
    register: Register, evidence: Evidence, notebook: str | None = None, states: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per claim: the paper's value beside our estimate, its interval and the verdict.

    `notebook` chooses rows only; the level of the intervals is that of the whole register. `states`: what
    `preconditions.judge` found; without it they are judged on the same evidence, in which those that are read from
    other notebooks' runs may be not run.
    """
    found_of = preconditions.judge(register, evidence) if states is None else states
    state_of = dict(zip(found_of["id"], found_of["state"], strict=True))
    rows = []
    for claim in register.of(notebook):
        try:
            values = claim.per_seed(evidence)
            interval = _interval(list(values.values()), register.simultaneous)
            if claim.statistic == "problems" and values:
                interval = _over_problems(claim, evidence, tuple(values), register.simultaneous)
        except ValueError as error:
            raise ValueError(f"{register.source}: {error}") from error
        found = verdict(claim, interval, len(values), evidence.profile)
        rows.append(
            {
                "id": claim.id,
                "figure": claim.figure,
                "statement": claim.statement,
                "paper": claim.paper.text,
                "paper_number": paper_number(claim, found),
                "verdict": found,
                "estimate": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "threshold": claim.asked(evidence.profile),
                "margin": claim.margin(interval.estimate, evidence.profile),
                "detectable": detectable(claim, interval, len(values), register.simultaneous),
                "n_seeds": len(values),
                "statistic": claim.statistic,
                "precondition": preconditions.mark(claim, state_of),
            }
        )
    return pd.DataFrame(rows)


def verdict(claim: Claim, interval: stats.Interval, n_seeds: int, profile: str) -> str:
    """Where the whole interval lies: see the top of this file."""
    if reason := claim.at(profile).not_part:
        return f"{NOT_PART} {profile}: {reason}"
    if n_seeds == 0:
        return NOT_RUN
    least, most = claim.margins(interval.low, interval.high, profile)
    if n_seeds < claim.seeds or math.isnan(least) or math.isnan(most):
        return INCONCLUSIVE
    if least > 0:
        return HOLDS
    return DOES_NOT_HOLD if most < 0 else INCONCLUSIVE


def detectable(claim: Claim, interval: stats.Interval, n_seeds: int, confidence: float) -> float:
    """The distance from the threshold that so many seeds decide with probability .8, in the quantity's unit.

    Over seeds it is exact for normal values of the standard deviation observed (noncentral t). Over problems the
    estimate is taken for normal with the standard deviation of its bootstrap. nan with fewer seeds than the claim was
    planned for: they decide nothing, whatever the distance.
    """
    if n_seeds < claim.seeds:
        return math.nan
    return stats.detectable(
        interval.standard_error, confidence, df=n_seeds - 1 if claim.statistic == "seeds" else math.inf
    )


def paper_number(claim: Claim, found: str) -> str:
    """Does the paper's own number lie on the side of the threshold where our verdict puts the quantity?

    inside, outside, or open while our verdict is; empty where the paper gives words and no number.
    """
    if claim.paper.value is None:
        return ""
    if found not in (HOLDS, DOES_NOT_HOLD):
        return "open"
    claimed_side = claim.margin(claim.paper.value, "paper") > 0
    return "inside" if claimed_side == (found == HOLDS) else "outside"


def summary(judged: pd.DataFrame) -> str:
    """How many claims hold, fail and stay open, and where the paper's own numbers lie; two sentences.

    Those that rest on an absent precondition are counted beside the verdicts where there are any. A third sentence
    where the profile has no part in some claims.
    """
    verdicts, numbers = judged["verdict"].value_counts(), judged["paper_number"].value_counts()
    counts = {name: int(verdicts.get(name, 0)) for name in (HOLDS, DOES_NOT_HOLD, INCONCLUSIVE, NOT_RUN)}
    sides = {name: int(numbers.get(name, 0)) for name in ("inside", "outside", "open")}
    left_out = int(judged["verdict"].str.startswith(NOT_PART).sum())
    also = f" {left_out} of the claims are no part of this profile." if left_out else ""
    marked = judged["verdict"][judged["precondition"].astype(str).str.startswith(f"precondition {ABSENT}")]
    resting = [int((marked == name).sum()) for name in counts]
    absent = "{}, {}, {} and {}".format(*resting)
    beside = f" (of which {absent} rest on a precondition that is absent)" if len(marked) else ""
    return (
        f"Of {len(judged)} claims {counts[HOLDS]} hold, {counts[DOES_NOT_HOLD]} do not, {counts[INCONCLUSIVE]} are "
        f"inconclusive and {counts[NOT_RUN]} were not run{beside}. The paper gives a number for "
        f"{sum(sides.values())} of them: "
        f"{sides['inside']} lie on the side of the bound that our verdict names, {sides['outside']} on the other, "
        f"{sides['open']} where ours is open.{also}"
    )


def _over_problems(claim: Claim, evidence: Evidence, seeds: tuple[int, ...], confidence: float) -> stats.Interval:
    """Both conditions averaged over these seeds, problem by problem; the draws depend on the claim's id alone."""
    quantity = claim.at(evidence.profile).quantity
    assert quantity is not None  # without one there are no seeds
    found = [vocabulary.pairs_of(quantity, claim.view(evidence, seed)) for seed in seeds]
    mean = pd.concat(found).groupby(level=[0, 1]).mean()
    generator = np.random.default_rng(int.from_bytes(claim.id.encode()))
    return stats.paired_cluster_bootstrap(mean["first"], mean["second"], generator, confidence)


def _interval(values: list[float], confidence: float) -> stats.Interval:
    if not values:
        return stats.Interval(estimate=math.nan, low=math.nan, high=math.nan, n=0)
    return stats.t_interval(values, confidence)
