"""What stands under a figure, as text: the numbers that it shows, and of how many seeds they are the mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opd_lib.report.tables import number, places
from opd_lib.report.verdicts import JudgedInterval, percent

SEEDS = "seeds"
IN_ORDER = 3
"""From so many names on that all parts share, the names are said once; each part gives its numbers in their order."""
END = "at the end (last three points)"
"""The mean of the last three points (`end_of`), as the column \"end\" of a table has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """`parts`: heading (empty: the only part) → name → its number as text. `n`: how many seeds stand behind means.

    `point`: which point of the curves the numbers are; `marks`: what those marks mean that need saying.
    """

    parts: Mapping[str, Mapping[str, str]]
    n: frozenset[int] = frozenset()
    point: str = ""
    marks: str = ""

    def text(self, repeats: str = SEEDS) -> str:
        """The caption as sentences; `repeats`: what a mean is over. Without a number there is nothing to say."""
        parts = {heading: numbers for heading, numbers in self.parts.items() if numbers}
        if not parts:
            return ""
        shared = _shared(parts)
        order = f"in the order {', '.join(shared)}" if shared else ""
        of = ", ".join(words for words in (self.point, counted(self.n, repeats), order) if words)
        listed = {name: ", ".join(found.values()) if shared else _listed(found) for name, found in parts.items()}
        said = "; ".join(f"{heading}: {numbers}" if heading else numbers for heading, numbers in listed.items())
        line = f"{of}: {said}." if of else f"{said}."
        if line[1].isalpha():  # not a unit of one letter
            line = f"{line[0].upper()}{line[1:]}"
        return f"{line} {self.marks}".rstrip()


def shown(name: str) -> str:
    """An arm's name as it stands in a figure."""
    return name.replace("_", " ")


def counted(n: Iterable[int], repeats: str = SEEDS) -> str:
    """Over how many seeds a mean is; a single value of anything else is no mean.

    >>> counted({5}), counted({1}), counted({3, 5}, "steps"), counted({1}, "steps")
    ('mean of 5 seeds', 'one seed', 'mean of 3 to 5 steps', '')
    """
    found = sorted(set(n))
    if found in ([], [1]):
        return "one seed" if found and repeats == SEEDS else ""
    return f"mean of {found[0]} to {found[-1]} {repeats}" if len(found) > 1 else f"mean of {found[0]} {repeats}"


def joined(parts: Iterable[Caption]) -> Caption:
    """One caption of several that are of the same point."""
    each = list(parts)
    return Caption(
        parts={heading: numbers for caption in each for heading, numbers in caption.parts.items()},
        n=frozenset().union(*(caption.n for caption in each)),
        point=each[0].point if each else "",
    )


def figure(value: float) -> str:
    """A number with three decimals, more where it is small, fewer where it is large.

    >>> figure(0.5), figure(0.00021), figure(81.4744), figure(12440.2)
    ('0.500', '0.00021', '81.47', '12440')
    """
    large = math.floor(math.log10(abs(value))) if math.isfinite(value) and abs(value) >= 1 else 0
    return number(value, max(0, places(value) - large))


def of_verdicts(judged: Mapping[str, JudgedInterval]) -> str:
    """Which line is which interval, and of which claim; nothing where no verdict's is drawn."""
    drawn = {name: each for name, each in judged.items() if each.is_known}
    if not drawn:
        return ""
    level = percent(min(each.confidence for each in drawn.values()))
    claims = "; ".join(f"{shown(name)}: {each.claim}" for name, each in drawn.items())
    return f"Thick: the mean's own 95 %; thin: the verdict's {level} ({claims}), with a tick at the claimed bound."


def legend(repeats: str = SEEDS) -> str:
    """What the strokes of a figure are; `repeats`: what a mean is over."""
    return (
        f"How to read the figures. Thick line, bar, large dot: the mean over {repeats}. Faint line, small dot: one "
        f"{repeats.removesuffix('s')}. Band, thick whisker: the 95 % interval of that mean alone."
    )


def _shared(parts: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """The names that every one of several parts has, in one order; none where to say them once would save nothing."""
    (first, *others) = (tuple(numbers) for numbers in parts.values())
    is_one_list = bool(others) and all(parts) and all(names == first for names in others)
    return first if is_one_list and len(first) >= IN_ORDER and not any("," in name for name in first) else ()


def _listed(numbers: Mapping[str, str]) -> str:
    between = "; " if any("," in name for name in numbers) else ", "
    return between.join(f"{name} {text}" if name else text for name, text in numbers.items())
