"""Finished records of runs that were never made: the tables and columns of real ones, invented numbers.

Columns and the rows of probes are those of committed records of the tiny world, so what the engine does not write is
not invented. Steps, test sets, caps, list lengths and depths are those that the run's own parameters ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import micro
import numpy as np
import pandas as pd

from opd_lib import paths
from opd_lib.forecast.hours import TEST_SIZES
from opd_lib.params import RunSpec
from opd_lib.params.schema import Sampled
from opd_lib.records import files, record
from opd_lib.records.record import LINES

TINY = paths.RESULTS / "tiny"
PATTERN = TINY / "04_success_and_failure" / "large_success" / "seed0"
MEASURED = {
    "teachers": TINY / "03_reverse_distillation" / "teachers" / "seed0",
    "continuation": TINY / "08_response_length" / "continuation" / "seed0",
    "reward": TINY / "09_reward_geometry" / "reward-success" / "seed0",
    "gradient": TINY / "09_reward_geometry" / "gradient-success" / "seed0",
}
"""kind of probe → a record of one"""
AT_K = "_k16"


def write(specs: Iterable[RunSpec]) -> None:
    """A finished record of each run, in its folder."""
    for spec in specs:
        micro.write_record(spec)
        (spec.folder / "steps.csv").unlink()
        for name, table in tables(spec).items():
            table.to_csv(spec.folder / f"{name}.csv", index=False)
        if spec.params.trains:
            for name in LINES:
                if (content := files.read(PATTERN, f"{name}.jsonl")) is not None:
                    (spec.folder / f"{name}.jsonl").write_bytes(content)


def tables(spec: RunSpec) -> dict[str, pd.DataFrame]:
    """table → frame."""
    kind = spec.params.probe.kind if spec.params.probe else None
    if kind is not None:
        return {"probe": measured(spec)} if kind in MEASURED else {}
    found = {"evals": evals(spec), "problems": problems(spec)}
    if spec.params.evaluate.caps:
        found["caps"] = caps(spec)
    return found | ({"steps": steps(spec), "depth": depth(spec)} if spec.params.trains else {})


def steps(spec: RunSpec) -> pd.DataFrame:
    """Every step; shares drift from one half on, lengths follow the limit."""
    n = spec.params.train.steps
    frame = invented(spec, columns("steps", spec.params.diagnose.ks), n).assign(step=range(1, n + 1))
    limits = [spec.params.source.limit(step) if isinstance(spec.params.source, Sampled) else 512 for step in frame.step]
    per_step = spec.params.source.prompts_per_step * getattr(spec.params.source, "per_prompt", 1)
    return frame.assign(response_length=limits, n_tokens=[limit * per_step for limit in limits])


def depth(spec: RunSpec) -> pd.DataFrame:
    """A row per bucket at step 1 and every `depth_every` steps, with ever fewer tokens."""
    asked, train = spec.params.diagnose, spec.params.train
    longest = spec.params.source.longest if isinstance(spec.params.source, Sampled) else 1024
    buckets = range(0, longest, asked.depth_bucket)
    index = pd.MultiIndex.from_product([[1, *range(asked.depth_every, train.steps + 1, asked.depth_every)], buckets])
    frame = invented(spec, columns("depth", asked.ks), len(index))
    frame["step"], frame["depth"] = index.get_level_values(0), index.get_level_values(1)
    return frame.assign(n_tokens=100_000 // (1 + frame["depth"] // asked.depth_bucket))


def evals(spec: RunSpec) -> pd.DataFrame:
    """A row per evaluation and test set; a checkpoint of 00_models is better than what a student begins with."""
    found = problems(spec).groupby(["step", "test_set"], sort=False, as_index=False)
    counts = found.agg(n_correct=("n_correct", "sum"), n_problems=("problem", "size"))
    frame = invented(spec, columns("evals", ()), len(counts)).assign(n_samples=spec.params.evaluate.n_samples)
    frame["step"], frame["test_set"], frame["n_problems"] = counts["step"], counts["test_set"], counts["n_problems"]
    return frame.assign(accuracy=counts["n_correct"] / counts["n_problems"] / frame["n_samples"])


def problems(spec: RunSpec) -> pd.DataFrame:
    """A row per evaluation, test set and problem."""
    asked, last = spec.params.evaluate, spec.params.train.steps
    rows = [
        (step, test_set, problem)
        for step in sorted({*range(0, last + 1, asked.every), last})
        for test_set in spec.params.task.test_sets
        for problem in range(min(asked.n_problems, TEST_SIZES.get(test_set, asked.n_problems)))
    ]
    frame = pd.DataFrame(rows, columns=["step", "test_set", "problem"])
    share = 0.7 if spec.experiment == micro.MODELS else 0.2 + 0.3 * frame["step"] / last
    right = chance(spec).binomial(asked.n_samples, share, len(frame))
    return frame.assign(n_correct=right, n_samples=asked.n_samples)


def caps(spec: RunSpec) -> pd.DataFrame:
    """A row per evaluation, test set and cap."""
    asked = [{"cap": cap, "finished_share": 0.5} for cap in spec.params.evaluate.caps]
    return evals(spec)[["step", "test_set", "accuracy"]].merge(pd.DataFrame(asked), how="cross")


def measured(spec: RunSpec) -> pd.DataFrame:
    """What a probe of the tiny world found, at this probe's depths."""
    assert spec.params.probe is not None
    frame = committed(MEASURED[spec.params.probe.kind], "probe")
    if spec.params.probe.kind != "continuation":
        return frame
    theirs = dict(zip(sorted(frame["depth"].unique()), spec.params.probe.depths, strict=False))
    return frame.assign(depth=frame["depth"].map(theirs)).dropna().astype({"depth": int})


def committed(run: Path, table: str) -> pd.DataFrame:
    """A table of a committed run."""
    present = record.read(run)
    assert present is not None
    return present.frame(table)


@cache
def columns(table: str, ks: tuple[int, ...]) -> tuple[str, ...]:
    """The columns of a committed table, those of a list length once for each of `ks`."""
    names = list(committed(PATTERN, table))
    at_k = [name.removesuffix(AT_K) for name in names if name.endswith(AT_K)]
    plain = [name for name in names if not name.rpartition("_k")[2].isdigit()]
    return (*plain, *(f"{name}_k{k}" for k in ks for name in at_k))


def invented(spec: RunSpec, names: tuple[str, ...], n: int) -> pd.DataFrame:
    """Numbers between 0 and 1 that wander, n rows of these columns."""
    wander = chance(spec).normal(0, 0.02, (n, len(names))).cumsum(0)
    return pd.DataFrame(0.5 + 0.4 * np.tanh(wander), columns=list(names))


def chance(spec: RunSpec) -> np.random.Generator:
    """Random numbers that are this run's."""
    return np.random.default_rng(int(spec.identity, 16))
