"""Which colour an arm has, the same in every figure, for readers with any colour vision.

Single arms have one of Okabe and Ito's colours: cool ones where success is expected, warm ones where failure is. Arms
of an ordered family, limit-6 to limit-171 for instance, share a ramp of falling lightness: a larger number is darker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import cycle
from typing import Literal

import numpy as np

LineStyle = Literal["solid"] | tuple[float, tuple[float, ...]]

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#777777"
FREE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
ARM_COLOURS = {
    "compatible": BLUE, "incompatible": VERMILLION,
    "justrl-small": BLUE, "skywork-large": GREEN, "nt-large-rl": SKY, "distill-large": VERMILLION, "nt-large": ORANGE,
    "same_size": GREEN, "larger": PURPLE,
    "success": BLUE, "failure": VERMILLION, "large_success": SKY, "large_failure": ORANGE,
    "student": BLUE, "overlap": GREEN, "non_overlap": VERMILLION, "non_overlap_normalised": ORANGE,
    "sft": BLUE, "sft_nucleus": SKY, "base": VERMILLION, "sft_continued": BLACK,
    "original": BLUE, "aligned": GREEN,
    "growing": PURPLE, "limit-12-matched": SKY,
    "reward-success": BLUE, "reward-failure": VERMILLION, "lower of the two": GREY,
    "gradient-success": BLUE, "gradient-failure": VERMILLION,
    "sampled": VERMILLION, "eq5": PURPLE,
}  # fmt: skip
FAMILIES = {
    "seen-": (0.5, 2.0, 5.0, 15.0),
    "other-": (0.0, 25.0, 50.0, 100.0),
    "limit-": (6.0, 12.0, 34.0, 80.0, 114.0, 171.0),
    "k": (1.0, 4.0, 16.0, 64.0),
}
"""prefix of an ordered family → the numbers at equal distances along the ramp"""
SOLID: LineStyle = "solid"
DASHES: tuple[LineStyle, ...] = (SOLID, (0, (4, 1.6)), (0, (1.2, 1.2)))
RAMP = ("#C9B400", "#6FAE3A", "#1E9082", "#22597A", "#2B1B4D")

_NUMBERED = re.compile(r"(\D+?)(\d+(?:\.\d+)?)")
_NOTEBOOK = re.compile(r"^\d\d-")


def colours_of(arms: Sequence[str]) -> dict[str, str]:
    """arm → colour: its own for a known arm; a new arm takes the next colour that no arm here has.

    What stands after a comma does not count: "teacher, before" and "teacher, after" have one colour.
    """
    own = {_name(arm): own_colour(arm) for arm in arms}
    free = cycle([colour for colour in FREE_COLOURS if colour not in own.values()] or FREE_COLOURS)
    chosen = {name: colour or next(free) for name, colour in own.items()}
    return {arm: chosen[_name(arm)] for arm in arms}


def dashes_of(arms: Sequence[str]) -> dict[str, LineStyle]:
    """arm → line style: solid, but where arms here share a colour only the last of them; those before it are broken."""
    colours = colours_of(arms)
    later = {arm: [other for other in arms[i + 1 :] if colours[other] == colours[arm]] for i, arm in enumerate(arms)}
    return {arm: DASHES[min(len(others), len(DASHES) - 1)] for arm, others in later.items()}


def own_colour(arm: str) -> str | None:
    """The colour of this arm in every figure, also as NOTEBOOK-ARM or "ARM, which"; None for an arm not known here."""
    name = _name(arm)
    if name in ARM_COLOURS:
        return ARM_COLOURS[name]
    numbered = _NUMBERED.fullmatch(name)
    if numbered is None or numbered[1] not in FAMILIES:
        return None
    members = FAMILIES[numbered[1]]
    return shade(float(np.interp(float(numbered[2]), members, np.linspace(0, 1, len(members)))))


def shade(place: float) -> str:
    """The colour at a place between 0 (light) and 1 (dark) of the ramp."""
    channels = np.array([_channels(colour) for colour in RAMP]).T
    return _hexadecimal([float(np.interp(place, np.linspace(0, 1, len(RAMP)), channel)) for channel in channels])


def tint(colour: str, share: float = 0.35) -> str:
    """This share of the colour in white: pale, and nothing behind it shows through."""
    return _hexadecimal([255 + share * (channel - 255) for channel in _channels(colour)])


def _name(arm: str) -> str:
    return _NOTEBOOK.sub("", arm).partition(", ")[0]


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _hexadecimal(channels: Sequence[float]) -> str:
    return "#" + "".join(f"{round(channel):02X}" for channel in channels)
