"""What `opd bench` measured, as tables: who is how fast, in how much memory, and whether the targets are met.

A ratio is ours divided by theirs, of medians over all steps of one size, measured in turns; below 1 is better for us.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FOLDER, STEPS, STAGES = "90_speed", "steps.csv", "stages.csv"
CPU, MEMORY, PEAK = "cpu_s", "step_mib", "peak_mib"
TRL, NAIVE_PUBLISHED = "TRL DistillationTrainer", "naive, published objective"
LARGEST = (151_936, 4096)
TINY = (128, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A ratio that was promised. `peers`: compared with the best of these; `at`: vocabulary and response tokens."""

    measure: str
    column: str
    ours: str
    peers: tuple[str, ...]
    at: tuple[int, int]
    target: float


FULL_PEERS = (TRL, "TRL GKDTrainer", "TRL GOLDTrainer", "Liger fused JSD", "naive")
TARGETS = (
    Target(
        measure="memory of a step, published objective", column=MEMORY, ours="ours, published objective",
        peers=(TRL,), at=LARGEST, target=0.7,
    ),
    Target(
        measure="memory of a step, published objective", column=MEMORY, ours="ours, published objective",
        peers=(NAIVE_PUBLISHED,), at=LARGEST, target=0.25,
    ),
    Target(measure="CPU seconds, reverse KL", column=CPU, ours="ours", peers=(TRL,), at=LARGEST, target=0.9),
    Target(measure="memory of a step, reverse KL", column=MEMORY, ours="ours", peers=(TRL,), at=LARGEST, target=1.0),
    Target(
        measure="CPU seconds, Eq. 5 against the fastest full-vocabulary peer", column=CPU, ours="ours, Eq. 5",
        peers=FULL_PEERS, at=LARGEST, target=0.6,
    ),
    Target(
        measure="CPU ms per token, whole step of the tiny world", column="cpu_per_token", ours="ours, with rollout",
        peers=("TRL, with rollout",), at=TINY, target=1 / 3,
    ),
)  # fmt: skip


def read(folder: Path) -> pd.DataFrame:
    """The steps measured, a row each, with `cpu_per_token` (ms). Raises ValueError if there are none."""
    path = folder / STEPS
    if not path.exists():
        raise ValueError(f"{path}: no such file; `make bench` measures it")
    frame = pd.read_csv(path)
    return frame.assign(cpu_per_token=1000 * frame[CPU] / frame["produced"])


def agreement(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each objective and size, the largest relative difference of any loss and gradient norm from ours.

    Compared are the first steps of all processes, which start from equal weights. Differences of more than 1e-5 would
    mean that somebody did other work.
    """
    first = frame.drop_duplicates(["entrant", "vocabulary", "tokens", "round"])
    first = first[~first["objective"].str.contains("own responses")]
    rows = []
    for (objective, vocabulary, tokens), group in first.groupby(["objective", "vocabulary", "tokens"], sort=True):
        own = group[group["entrant"].str.startswith("ours")].iloc[0]
        row = {"objective": objective, "V": vocabulary, "tokens": tokens, "entrants": group["entrant"].nunique()}
        for column in ("loss", "norm"):
            row[column] = f"{float((group[column] / own[column] - 1).abs().max()):.0e}"
        rows.append(row)
    return pd.DataFrame(rows)


def medians(frame: pd.DataFrame, at: tuple[int, int]) -> pd.DataFrame:
    """Medians over the steps of one size, by entrant."""
    here = frame[(frame["vocabulary"] == at[0]) & (frame["tokens"] == at[1])]
    return here.groupby("entrant", sort=False)[[CPU, "wall_s", MEMORY, PEAK, "cpu_per_token"]].median()


def ratios(frame: pd.DataFrame, targets: Sequence[Target] = TARGETS) -> pd.DataFrame:
    """measure, peer, ours, theirs, ratio, spread, target, met; the peer is the best of those named that took part.

    `spread`: the lowest and highest ratio of single rounds.
    """
    rows = []
    for target in targets:
        found = medians(frame, target.at)[target.column]
        there = found[[name for name in target.peers if name in found.index]]
        if target.ours not in found.index or there.empty:
            continue
        peer = str(there.idxmin())
        ratio = found[target.ours] / there[peer]
        low, high = spread(frame, target, peer)
        rows.append({
            "measure": target.measure, "peer": peer, "ours": found[target.ours], "theirs": there[peer], "ratio": ratio,
            "spread": f"{low:.2f} to {high:.2f}", "target": target.target,
            "met": "yes" if ratio <= target.target else "no",
        })  # fmt: skip
    return pd.DataFrame(rows)


def spread(frame: pd.DataFrame, target: Target, peer: str) -> tuple[float, float]:
    """The lowest and the highest ratio of the rounds' medians."""
    here = frame[(frame["vocabulary"] == target.at[0]) & (frame["tokens"] == target.at[1])]
    by_round = here.pivot_table(index="round", columns="entrant", values=target.column, aggfunc="median")
    found = by_round[target.ours] / by_round[peer]
    return float(found.min()), float(found.max())


def growth(frame: pd.DataFrame, vocabulary: int) -> pd.DataFrame:
    """How time and memory grow with response tokens at one vocabulary, by entrant: between the two largest sizes.

    `exponent`: log of the ratio of CPU seconds over log of the ratio of tokens, 1 where time is proportional.
    `kib_per_token`: memory that each further token takes; `seconds_per_1000`: and time.
    """
    rows = []
    here = frame[(frame["vocabulary"] == vocabulary) & (frame["entrant"].str.contains("rollout") == False)]  # noqa: E712
    for entrant, group in here.groupby("entrant", sort=False):
        found = group.groupby("tokens")[[CPU, MEMORY]].median()
        if len(found) < 2:
            continue
        (less, more), (small, large) = found.index[-2:], (found.iloc[-2], found.iloc[-1])
        rows.append({
            "entrant": entrant, "from": less, "to": more,
            "exponent": math.log(large[CPU] / small[CPU]) / math.log(more / less),
            "seconds_per_1000": 1000 * (large[CPU] - small[CPU]) / (more - less),
            "kib_per_token": 1024 * (large[MEMORY] - small[MEMORY]) / (more - less),
        })  # fmt: skip
    return pd.DataFrame(rows)


def stages(folder: Path) -> pd.DataFrame:
    """Where the seconds of a whole experiment went: notebook, stage, seconds (processor time of one seed)."""
    return pd.read_csv(folder / STAGES)
