"""What was promised of speed, what was reached, and what bounds it.

A ratio is ours divided by theirs, of medians over all steps of one size, measured in turns; below 1 is better for us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from opd_lib.bench import speed
from opd_lib.bench.speed import CPU, LARGEST, MEMORY, PEAK, TINY, WIDER
from opd_lib.records import reading

WALL = "wall"
"""The measure of speed.WHOLE that is held against a target."""
TRL, NAIVE_PUBLISHED = "TRL DistillationTrainer", "naive, published objective"


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
    *(
        Target(
            measure=f"{what}, published objective", column=column, ours="ours, published objective",
            peers=(peer,), at=LARGEST, target=bound,
        )
        for what, column in (("memory of a step", MEMORY), ("peak of the process", PEAK))
        for peer, bound in ((TRL, 0.7), (NAIVE_PUBLISHED, 0.25))
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


def ratios(frame: pd.DataFrame, targets: Sequence[Target] = TARGETS) -> pd.DataFrame:
    """measure, peer, ours, theirs, ratio, spread, target, met; the peer is the best of those named that took part.

    `spread`: the lowest and highest ratio of single rounds.
    """
    rows = []
    for target in targets:
        found = speed.medians(frame, target.at)[target.column]
        there = found[[name for name in target.peers if name in found.index]]
        if target.ours not in found.index or there.empty:
            continue
        peer = str(there.idxmin())
        low, high = spread(frame, target, peer)
        values = (found[target.ours], there[peer], target.target)
        rows.append(_row(target.measure, peer, *values, f"{low:.2f} to {high:.2f}"))
    return pd.DataFrame(rows)


def against_itself(frame: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """The targets without a peer, in the same columns: growth with response tokens, and the time of one seed.

    Time should grow in proportion: an exponent of 1 ± .1. Memory should grow by the same bytes per token whatever the
    vocabulary: those are the bodies' activations. `whole`: columns measure and seconds, of one seed from nothing.
    """
    found = speed.growth(frame)
    found = found[found["entrant"].str.startswith("ours")].set_index(["V", "entrant"])
    narrow, wide = sorted(found.index.unique("V"))[:2]
    rows = []
    for entrant in found.index.unique("entrant"):
        exponent = found["exponent"][wide, entrant]
        rows.append(_row(f"exponent of time in tokens, {entrant}", "proportional", exponent, 1.0, 1.1))
        rows[-1]["met"] = "yes" if abs(exponent - 1.0) <= 0.1 else "no"
    for entrant in found.index.unique("entrant"):
        slopes = found["kib_per_token"][wide, entrant], found["kib_per_token"][narrow, entrant]
        rows.append(_row(f"KiB per further token, {entrant}", f"V = {narrow} for {wide}", *slopes, 1.1))
    minutes = float(whole.set_index("measure")["seconds"][WALL]) / 60
    rows.append(_row("minutes for one seed of everything, two cores", "15 minutes", minutes, 15.0, 1.0))
    return pd.DataFrame(rows)


def _row(measure: str, peer: str, ours: float, theirs: float, target: float, spread: str = "") -> dict[str, object]:
    ratio = ours / theirs
    return {
        "measure": measure, "peer": peer, "ours": ours, "theirs": theirs, "ratio": ratio, "spread": spread,
        "target": target, "met": "yes" if ratio <= target else "no",
    }  # fmt: skip


def spread(frame: pd.DataFrame, target: Target, peer: str) -> tuple[float, float]:
    """The lowest and the highest ratio of the rounds' medians."""
    here = speed.of_size(frame, target.at)
    by_round = here.pivot_table(index="round", columns="entrant", values=target.column, aggfunc="median")
    found = by_round[target.ours] / by_round[peer]
    return float(found.min()), float(found.max())


def table(folder: Path) -> pd.DataFrame:
    """All that was promised: beside peers, then against itself."""
    measured, path = speed.read(folder), folder / speed.WHOLE
    whole = reading.numbers(path, reading.frame(path, ["measure", "seconds"]), ["seconds"])
    if WALL not in set(whole["measure"]):
        reading.refuse(path, f"no measure {WALL}; it has {', '.join(whole['measure']) or 'none'}", reading.RESTORE)
    return pd.concat([ratios(measured), against_itself(measured, whole)], ignore_index=True)


def drawn(promised: pd.DataFrame) -> pd.DataFrame:
    """The table as `figures.forest` wants it: label, estimate, low, high, target."""
    ends = promised["spread"].str.extract(r"(?P<low>[\d.]+) to (?P<high>[\d.]+)").astype(float)
    label = promised["measure"] + " / " + promised["peer"]
    return pd.DataFrame({"label": label, "estimate": promised["ratio"], "target": promised["target"]}).join(ends)


def bounds(folder: Path) -> pd.DataFrame:
    """What the missed ratios come to if nothing but `counted` took time or memory; a row each.

    `amount` is what that takes as it is, `theirs` what the peer takes in all, both of the same steps; `ratio` is of
    these two, `reached` of what was measured. Updates are those of the size at which compiled ones take part, if any
    are there.
    """
    measured, promised = speed.read(folder), table(folder).set_index("measure")
    largest, here = speed.medians(measured, LARGEST), speed.of_size(measured, LARGEST)
    ours = largest.loc["ours, published objective"]
    width = int(here["hidden"].iloc[0].split(",")[0])
    head = LARGEST[0] * width * 4 / 2**20  # MiB of it, or of the embedding, in float32
    held = 2 * head + 2 * head  # gradients of both; square root and quotient that AdamW makes of one of them at a time
    at = WIDER if len(speed.of_size(measured, WIDER)) else TINY
    updates, whole = speed.of_size(measured, at), speed.medians(measured, at)["cpu_per_token"]
    fastest = updates[updates["objective"] == "reverse KL"].groupby("entrant")["cpu_per_token"].median().min()
    minutes = speed.stages(folder)["seconds"].sum() / 2 / 60
    remaining = {
        "peak of the process, published objective": (
            "framework, weights, moments, gradients, AdamW's temporaries; no activation, no logit",
            ours[PEAK] - ours[MEMORY] + held, largest[PEAK][NAIVE_PUBLISHED],
        ),
        "CPU ms per token, whole step of the tiny world": (
            f"the fastest update of any entrant, {updates['sequences'].iloc[0]} responses; no rollout",
            fastest, whole["TRL, with rollout"],
        ),
        "minutes for one seed of everything, two cores": (
            "seconds inside the runs, halved; no import, no notebook, no idle core", minutes, 15.0,
        ),
    }  # fmt: skip
    rows = []
    for measure, (counted, amount, theirs) in remaining.items():
        goal = promised.loc[[measure]].sort_values("target").iloc[0]  # the stricter of several
        rows.append({
            "measure": measure, "counted": counted, "amount": amount, "theirs": theirs,
            "ratio": amount / theirs, "target": goal["target"], "reached": goal["ratio"],
        })  # fmt: skip
    return pd.DataFrame(rows)
