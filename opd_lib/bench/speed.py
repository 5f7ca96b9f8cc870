"""What `opd bench` measured, as tables: who is how fast, in how much memory, and how that grows."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from opd_lib import inputs, names, paths
from opd_lib.records import reading

FOLDER, STEPS, STAGES, WHOLE, SHAPES = "90_speed", "steps.csv", "stages.csv", "whole.csv", "shapes.csv"
SAME = [
    "date", "device", "commit", "torch", "transformers", "trl",
    "student", "teacher", "sequences", "prompt", "response", "overrides", "entrant",
]  # fmt: skip
"""Steps at shapes that agree in these are repetitions."""
SHAPE_STAGES = ["rollout_s", "score_s", "backward_s", "optimize_s", "diagnose_s"]
"""Seconds of a step at shapes, by stage."""
MEASURED = (
    "entrant", "objective", "vocabulary", "tokens", "hidden", "round",
    "produced", "cpu_s", "wall_s", "peak_mib", "step_mib", "loss", "norm",
)  # fmt: skip
"""Columns of STEPS that tables and figures read."""
AGAIN = "take it back from git, or remove what is damaged: it is measured again"
"""The remedy of a damaged table of measurements."""
CPU, MEMORY, PEAK = "cpu_s", "step_mib", "peak_mib"
OWN_RESPONSES = "reverse KL on own responses"
"""The objective of whole steps, in which everybody samples responses of their own."""
LARGEST = (151_936, 4096)
LONGEST = (151_936, 16_384)
TINY, WIDER = (128, 4096), (128, 16_384)


def place(profile: str, results: str | Path | None) -> Path:
    """The folder of the measurements: the one named, else the committed one. Raises ValueError for what is no name."""
    names.require(profile, "profile", "profile")
    return inputs.results(results) or paths.RESULTS / profile / FOLDER


def read(folder: Path) -> pd.DataFrame:
    """The steps measured, a row each, with `cpu_per_token` (ms). Raises ValueError for none, or half a table."""
    path = folder / STEPS
    if not path.exists():
        raise ValueError(f"{path}: no such file; `make bench` measures it")
    frame = reading.frame(path, MEASURED, AGAIN)
    numbers = [name for name in MEASURED if name not in ("entrant", "objective", "hidden")]
    frame = reading.numbers(path, frame, numbers, AGAIN)
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
    return of_size(frame, at).groupby("entrant", sort=False)[[CPU, "wall_s", MEMORY, PEAK, "cpu_per_token"]].median()


def at(frame: pd.DataFrame, size: tuple[int, int]) -> pd.DataFrame:
    """The steps at one vocabulary and number of response tokens, as figures want them: arm, seed and the quantities."""
    return _numbered(of_size(frame, size).rename(columns={"entrant": "arm"}), ["arm"])


def of_size(frame: pd.DataFrame, size: tuple[int, int]) -> pd.DataFrame:
    """The steps at one vocabulary and number of response tokens."""
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


def growth_by_vocabulary(frame: pd.DataFrame) -> pd.DataFrame:
    """`growth` of whoever was measured at several vocabularies: series, seed, vocabulary, the rest."""
    found = growth(frame).rename(columns={"entrant": "series", "V": "vocabulary"}).assign(seed=0)
    return found[found.groupby("series")["vocabulary"].transform("nunique") > 1]


def stages(folder: Path) -> pd.DataFrame:
    """Where the seconds of a whole experiment went: notebook, stage, seconds (processor time of one seed).

    Raises ValueError naming the file if it is not there or damaged.
    """
    found = reading.frame(folder / STAGES, ["notebook", "stage", "seconds"])
    return reading.numbers(folder / STAGES, found, ["seconds"])


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


def shapes(folder: Path) -> pd.DataFrame:
    """What `opd time` measured at the shapes of real models: medians over steps, a row per pair, length and entrant.

    Wall seconds of all stages; `% of floor`: the least that the device could need, of these (nan where its figures are
    not known); response tokens per second; the peak of memory, beside what was planned by arithmetic (GiB). Who has the
    same objective must find the same loss (nats per token) and gradient norm, up to the precision of the passes.
    """
    numbers = [*SHAPE_STAGES, "response", "written", "floor_s", "peak_gib", "planned_gib", "loss", "norm"]
    frame = reading.frame(folder / SHAPES, {*SAME, *numbers}, AGAIN)
    frame = reading.numbers(folder / SHAPES, frame, numbers, AGAIN)
    found = (
        frame.assign(seconds=frame[SHAPE_STAGES].sum(axis=1))
        .groupby(SAME, sort=False)
        .median(numeric_only=True)
        .reset_index()
    )
    short = {role: found[role].str.rpartition("/")[2] for role in ("student", "teacher")}
    return pd.DataFrame({
        "date": found["date"],
        "device": found["device"],
        "pair": short["student"] + " ← " + short["teacher"],
        "response": found["response"],
        "entrant": found["entrant"],
        "seconds": found["seconds"],
        "% of floor": 100 * found["floor_s"] / found["seconds"],
        "tokens/s": found["written"] / found["seconds"],
        "peak": found["peak_gib"],
        "planned": found["planned_gib"],
        **found[["loss", "norm"]],
    })  # fmt: skip
