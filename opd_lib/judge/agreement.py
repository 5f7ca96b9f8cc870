"""Does another machine find the same? Each claim's quantity there beside the committed one."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from opd_lib.judge import claims
from opd_lib.judge.quantities import Evidence
from opd_lib.maths import stats

UNKNOWN = stats.Interval(estimate=math.nan, low=math.nan, high=math.nan, n=0)


def compare(register: claims.Register, local: Evidence, committed: Evidence) -> pd.DataFrame:
    """Each quantity of each local seed beside the committed one of the same seed and the committed mean.

    `agrees` is yes when the local seed comes within one between-seed standard deviation of its committed self, or, if
    that seed is not committed, into the 95 % prediction interval of a new one; unknown where a number is undefined.
    """
    rows = []
    for claim in register.claims:
        try:
            known, found = claim.per_seed(committed), claim.per_seed(local)
        except ValueError as error:
            raise ValueError(f"{register.source}: {error}") from error
        values = list(known.values())
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        expected = stats.prediction_interval(values) if values else UNKNOWN
        for seed, value in found.items():
            low, high = (known[seed] - spread, known[seed] + spread) if seed in known else (expected.low, expected.high)
            rows.append(
                {
                    "id": claim.id,
                    "seed": seed,
                    "local": value,
                    "committed": known.get(seed, math.nan),
                    "mean": expected.estimate,
                    "low": low,
                    "high": high,
                    "agrees": _agrees(value, low, high),
                }
            )
    return pd.DataFrame(rows, columns=["id", "seed", "local", "committed", "mean", "low", "high", "agrees"])


def _agrees(value: float, low: float, high: float) -> str:
    if any(math.isnan(number) for number in (value, low, high)):
        return "unknown"
    rounding = 1e-9
    return "yes" if low - rounding <= value <= high + rounding else "no"
