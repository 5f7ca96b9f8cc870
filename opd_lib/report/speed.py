"""What `opd bench` measured, as tables: who is how fast, in how much memory, and whether the targets are met.

A ratio is ours divided by theirs, of medians over all steps of one size, measured in turns; below 1 is better for us.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from opd_lib import paths

FOLDER, STEPS, STAGES, WHOLE = "90_speed", "steps.csv", "stages.csv", "whole.csv"
CPU, MEMORY, PEAK = "cpu_s", "step_mib", "peak_mib"
TRL, NAIVE_PUBLISHED = "TRL DistillationTrainer", "naive, published objective"
OWN_RESPONSES = "reverse KL on own responses"
"""The objective of whole steps, in which everybody samples responses of their own."""
LARGEST = (151_936, 4096)
LONGEST = (151_936, 16_384)
TINY, WIDER = (128, 4096), (128, 16_384)


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


def place(profile: str, results: str | Path | None) -> Path:
    """The folder of the measurements: the one named, else the committed one."""
    return paths.RESULTS / profile / FOLDER if results is None else Path(results)


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
    first = first[first["objective"] != OWN_RESPONSES]
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
    return _of_size(frame, at).groupby("entrant", sort=False)[[CPU, "wall_s", MEMORY, PEAK, "cpu_per_token"]].median()


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
        low, high = spread(frame, target, peer)
        values = (found[target.ours], there[peer], target.target)
        rows.append(_row(target.measure, peer, *values, f"{low:.2f} to {high:.2f}"))
    return pd.DataFrame(rows)


def against_itself(frame: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """The targets without a peer, in the same columns: growth with response tokens, and the time of one seed.

    Time should grow in proportion: an exponent of 1 ± .1. Memory should grow by the same bytes per token whatever the
    vocabulary: those are the bodies' activations. `whole`: columns measure and seconds, of one seed from nothing.
    """
    found = growth(frame)
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
    minutes = float(whole.set_index("measure")["seconds"]["wall"]) / 60
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
    here = _of_size(frame, target.at)
    by_round = here.pivot_table(index="round", columns="entrant", values=target.column, aggfunc="median")
    found = by_round[target.ours] / by_round[peer]
    return float(found.min()), float(found.max())


def at(frame: pd.DataFrame, size: tuple[int, int]) -> pd.DataFrame:
    """The steps at one vocabulary and number of response tokens, as figures want them: arm, seed and the quantities."""
    return _numbered(_of_size(frame, size).rename(columns={"entrant": "arm"}), ["arm"])


def _of_size(frame: pd.DataFrame, size: tuple[int, int]) -> pd.DataFrame:
    return frame[(frame["vocabulary"] == size[0]) & (frame["tokens"] == size[1])]


def growing(frame: pd.DataFrame, vocabulary: int) -> pd.DataFrame:
    """The steps at one vocabulary for whoever took part in more than one size: series, seed, tokens, the quantities."""
    here = frame[frame["vocabulary"] == vocabulary].rename(columns={"entrant": "series"})
    several = here.groupby("series")["tokens"].transform("nunique") > 1
    return _numbered(here[several], ["series", "tokens"])


def by_vocabulary(frame: pd.DataFrame) -> pd.DataFrame:
    """The steps of 1,024 or 2,048 response tokens, at every vocabulary: series, seed, vocabulary, the quantities."""
    here = frame[frame["tokens"].isin((1024, 2048))].rename(columns={"entrant": "series"})
    several = here.groupby("series")["vocabulary"].transform("nunique") > 2
    return _numbered(here[several], ["series", "vocabulary"])


def _numbered(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """With a number for each repetition, in the place of a seed; as many at each of an entrant's sizes."""
    numbered = frame.assign(seed=frame.groupby(keys, sort=False).cumcount())
    counts = numbered.groupby(keys)["seed"].transform("count")
    return numbered[numbered["seed"] < counts.groupby(numbered[keys[0]]).transform("min")]


def growth(frame: pd.DataFrame) -> pd.DataFrame:
    """How time and memory grow with response tokens, by vocabulary and entrant: between the two largest sizes.

    Without the tiny world, whose head is nothing.
    `exponent`: log of the ratio of CPU seconds over log of the ratio of tokens, 1 where time is proportional.
    `seconds_per_1000`: processor time that a thousand further tokens take; `kib_per_token`: memory that each takes.
    """
    rows = []
    for vocabulary in sorted(set(frame["vocabulary"]) - {TINY[0]}):
        for entrant, group in growing(frame, vocabulary).groupby("series", sort=False):
            found = group.groupby("tokens")[[CPU, MEMORY]].median()
            (less, more), (small, large) = found.index[-2:], (found.iloc[-2], found.iloc[-1])
            rows.append({
                "V": vocabulary, "entrant": entrant, "from": less, "to": more,
                "exponent": math.log(large[CPU] / small[CPU]) / math.log(more / less),
                "seconds_per_1000": 1000 * (large[CPU] - small[CPU]) / (more - less),
                "kib_per_token": 1024 * (large[MEMORY] - small[MEMORY]) / (more - less),
            })  # fmt: skip
    return pd.DataFrame(rows)


def targets(folder: Path) -> pd.DataFrame:
    """All that was promised: beside peers, then against itself."""
    measured = read(folder)
    return pd.concat([ratios(measured), against_itself(measured, pd.read_csv(folder / WHOLE))], ignore_index=True)


def bounds(folder: Path) -> pd.DataFrame:
    """What the missed ratios come to if all that is ours to shorten took nothing: columns as below, a row each.

    `counted` is what remains whoever does the step, `amount` what it takes, `theirs` what the peer's whole takes.
    """
    measured, promised = read(folder), targets(folder).set_index("measure")
    largest, here = medians(measured, LARGEST), _of_size(measured, LARGEST)
    ours = largest.loc["ours, published objective"]
    width = int(here["hidden"].iloc[0].split(",")[0])
    gradients = 2 * LARGEST[0] * width * 4 / 2**20  # of embedding and head alone, in float32
    updates = _of_size(measured, TINY)
    fastest = updates[updates["objective"] == "reverse KL"].groupby("entrant")["cpu_per_token"].median().min()
    remaining = {
        "peak of the process, published objective": (
            "framework, weights, moments, gradients; no activation, no logit",
            ours[PEAK] - ours[MEMORY] + gradients,
        ),
        "CPU ms per token, whole step of the tiny world": ("the fastest update of any entrant; no rollout", fastest),
        "minutes for one seed of everything, two cores": (
            "seconds inside the runs, halved; no import, no notebook, no idle core",
            stages(folder)["seconds"].sum() / 2 / 60,
        ),
    }
    rows = []
    for measure, (counted, amount) in remaining.items():
        goal = promised.loc[[measure]].sort_values("target").iloc[0]  # the stricter of several
        rows.append({
            "measure": measure, "counted": counted, "amount": amount, "theirs": goal["theirs"],
            "ratio": amount / goal["theirs"], "target": goal["target"], "reached": goal["ratio"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def stages(folder: Path) -> pd.DataFrame:
    """Where the seconds of a whole experiment went: notebook, stage, seconds (processor time of one seed)."""
    return pd.read_csv(folder / STAGES)


def share_of_stages(found: pd.DataFrame) -> pd.DataFrame:
    """arm (the stage) and share of all seconds."""
    total = found.groupby("stage")["seconds"].sum().sort_values(ascending=False)
    return pd.DataFrame({"arm": total.index, "seed": 0, "share": (total / total.sum()).to_numpy()})


def by_notebook(found: pd.DataFrame) -> pd.DataFrame:
    """Seconds by notebook (rows) and stage (columns), with their sum."""
    table = found.pivot_table(index="notebook", columns="stage", values="seconds", aggfunc="sum", fill_value=0.0)
    table["all"] = table.sum(axis=1)
    table.loc["all"] = table.sum()
    return table.reset_index().rename_axis(columns=None)
