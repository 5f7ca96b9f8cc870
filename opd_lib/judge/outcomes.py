"""What came of runs: one row per arm and seed, from the tables that the runs wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from opd_lib.judge.quantities import end_of
from opd_lib.maths import stats

RUN = ["arm", "seed"]
STRATA = 3  # response lengths: short, middle, long
ONSET_DEVIATIONS = 3.0
FEWEST_TOKENS = 32  # of a depth bucket that has an onset


def accuracy(evals: pd.DataFrame) -> pd.DataFrame:
    """arm, seed, start, end, gain: accuracy averaged over the test sets.

    `start` is the first evaluation (step 0), `end` the mean of the last three after it, `gain` end − start.
    """
    rows = []
    for (arm, seed), curve in _curves(evals):
        start, end = float(curve.iloc[0]), end_of(curve)
        rows.append({"arm": arm, "seed": seed, "start": start, "end": end, "gain": end - start})
    return pd.DataFrame(rows, columns=[*RUN, "start", "end", "gain"])


def recovery(evals: pd.DataFrame, model_evals: pd.DataFrame, teachers: Mapping[str, str]) -> pd.DataFrame:
    """`accuracy` with the columns teacher (its accuracy with the same seed) and recovery, the share of its lead gained.

    `model_evals` are the checkpoints' evaluations (arm = checkpoint), `teachers` maps arm → checkpoint. nan: no
    teacher, or one that is no better than the start. Raises ValueError for a teacher without evaluations.
    Source: §3.2 of arXiv 2604.13016, gap recovery rate.
    """
    scores = {key: float(curve.iloc[-1]) for key, curve in _curves(model_evals)}
    known = {name for name, _ in scores}
    missing = sorted(set(teachers.values()) - known)
    if missing:
        raise ValueError(
            f"teachers {missing} have no evaluations; there are {', '.join(sorted(known)) or 'none'}; give those of "
            "launch.parents(experiment)"
        )
    table = accuracy(evals)
    names = table["arm"].map(teachers)
    table["teacher"] = [scores.get((name, seed), math.nan) for name, seed in zip(names, table["seed"], strict=True)]
    numbers = zip(table["start"], table["end"], table["teacher"], strict=True)
    table["recovery"] = [stats.gap_recovery(*row) for row in numbers]
    return table


def initial(steps: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """arm, seed and these columns at the first training step: what could be known before training.

    Raises ValueError for a column that the steps have not.
    """
    if missing := [name for name in columns if name not in steps]:
        raise ValueError(f"steps: no column {', '.join(missing)}; ask for it with diagnose.ks, or run again")
    first = steps["step"] == steps.groupby(RUN)["step"].transform("min")
    return steps.loc[first, [*RUN, *columns]].reset_index(drop=True)


def auroc(probe: pd.DataFrame) -> pd.DataFrame:
    """How well the mean token reward of a response tells right ones from wrong ones, per arm and seed.

    `probe` has columns arm, seed, reward_mean (nats/token), correct (0 or 1) and length (tokens), a row per response.
    Where `correct` is not known the response counts nowhere.
    auroc: the share of (right, wrong) pairs in which the right one has the larger reward, ties half; nan without pairs.
    auroc_within_length: the same over pairs from one third of the response lengths only.
    mean_correct, mean_wrong: nats/token. Source: §6.2 and Fig. 14 of arXiv 2604.13016.
    """
    rows = []
    for (arm, seed), every in probe.groupby(RUN, sort=False):
        found = every[every["correct"].notna()]
        right = found["correct"] > 0
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "auroc": area(found["reward_mean"], right),
                "auroc_within_length": area_within(found["reward_mean"], right, thirds(every["length"])[found.index]),
                "mean_correct": found["reward_mean"][right].mean(),
                "mean_wrong": found["reward_mean"][~right].mean(),
                "n_correct": int(right.sum()),
                "n_wrong": int((~right).sum()),
            }
        )
    return pd.DataFrame(rows)


def area(score: pd.Series, right: pd.Series) -> float:
    """The area under the receiver operating characteristic; nan if all are right or all are wrong."""
    above, below = score[right], score[~right]
    if above.empty or below.empty:
        return math.nan
    return float(mannwhitneyu(above, below).statistic / (len(above) * len(below)))


def area_within(score: pd.Series, right: pd.Series, stratum: pd.Series) -> float:
    """The mean of `area` over strata, weighted by their number of (right, wrong) pairs; nan if no stratum has any."""
    pairs, total = 0, 0.0
    for value in stratum.unique():
        here = stratum == value
        n_pairs = int((right & here).sum()) * int((~right & here).sum())
        if n_pairs:
            pairs, total = pairs + n_pairs, total + n_pairs * area(score[here], right[here])
    return total / pairs if pairs else math.nan


def thirds(length: pd.Series) -> pd.Series:
    """0, 1 or 2: the third of the lengths that each belongs to; equal lengths are never parted."""
    borders = np.quantile(length, np.arange(1, STRATA) / STRATA)
    return pd.Series(np.searchsorted(borders, length, side="left"), index=length.index)


def onset(depth: pd.DataFrame, column: str) -> pd.DataFrame:
    """arm, seed, step, onset: the first response position (tokens) at which a quantity has risen since the first step.

    A rise is more than 3 standard deviations above what the same position had at the first recorded step; the deviation
    is that of the first step over positions. Buckets of fewer than FEWEST_TOKENS tokens are left out, at the first
    step too. onset is nan while no position has risen.
    Source: §6.1 and Fig. 13 of arXiv 2604.13016; the paper gives no rule, this one is ours.
    """
    rows = []
    for (arm, seed), found in depth[depth["n_tokens"] >= FEWEST_TOKENS].groupby(RUN, sort=False):
        table = found.pivot(index="step", columns="depth", values=column).sort_index()
        limit = table.iloc[0] + ONSET_DEVIATIONS * table.iloc[0].std(ddof=1)
        for step, values in table.iterrows():
            above = values.index[values > limit]
            rows.append({"arm": arm, "seed": seed, "step": step, "onset": float(above[0]) if len(above) else math.nan})
    return pd.DataFrame(rows, columns=[*RUN, "step", "onset"])


def cumulative(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps with a column tokens: how many tokens the loss has seen up to and including each step."""
    ordered = steps.sort_values("step", kind="stable")
    return ordered.assign(tokens=ordered.groupby(RUN)["n_tokens"].cumsum())


def caps(caps_frame: pd.DataFrame) -> pd.DataFrame:
    """arm, seed, cap, step, accuracy (mean over test sets) and when: first evaluation "before", last one "after"."""
    mean = caps_frame.groupby([*RUN, "cap", "step"], sort=False)["accuracy"].mean().reset_index()
    steps = mean.groupby(RUN)["step"]
    before, after = mean["step"] == steps.transform("min"), mean["step"] == steps.transform("max")
    chosen = mean[before | after].assign(when=np.where(before[before | after], "before", "after"))
    return chosen.reset_index(drop=True)


def _curves(evals: pd.DataFrame) -> list[tuple[tuple[str, int], pd.Series]]:
    means = evals.groupby([*RUN, "step"], sort=False)["accuracy"].mean()
    runs = means.groupby(level=RUN, sort=False)
    return [(key, curve.droplevel(RUN).sort_index()) for key, curve in runs]
