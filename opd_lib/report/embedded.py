"""What the token explorer embeds in a page: kept responses with words, problems and steps by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from opd_lib.report import token_quantities
from opd_lib.report.token_quantities import Quantity, Row, column

PARTS = 10_000
"""Embedded numbers are whole multiples of 1/PARTS; so are, but for the smallest, those of the records."""


def content(
    rows: Mapping[str, Sequence[Row]],
    seeds: Mapping[str, int],
    steps: Sequence[int],
    known: Sequence[Quantity],
    first: int,
) -> dict[str, Any]:
    """What is embedded: words, problems and steps by number, every value in whole parts of 1/PARTS."""
    every = [row for found in rows.values() for row in found]
    words = list(dict.fromkeys(word for row in every for word in _words(row)))
    problems = {(row["test_set"], row["problem"], row["prompt"]): row for row in every}
    numbers = {word: number for number, word in enumerate(words)}
    places = {place: number for number, place in enumerate(problems)}
    return {
        "parts": PARTS,
        "first": {"quantity": first, "problem": _telling(every, problems)},
        "runs": [{"arm": arm, "seed": seeds[arm], "label": f"{arm} · seed {seeds[arm]}"} for arm in rows],
        "quantities": [asdict(each) | {"extent": token_quantities.extent(each, every)} for each in known],
        "problems": [_problem(row) for row in problems.values()],
        "steps": list(steps),
        "words": words,
        "rows": [
            {
                "run": run,
                "problem": places[row["test_set"], row["problem"], row["prompt"]],
                "step": steps.index(row["step"]),
            }
            | _row(row, numbers, known)
            for run, found in enumerate(rows.values())
            for row in found
        ],
    }


def _telling(rows: Sequence[Row], problems: Iterable[tuple[Any, ...]]) -> int:
    """Which problem is shown first: one that is not answered alike by every run and at every step, if there is one."""
    rewards: dict[tuple[Any, ...], set[float]] = {}
    for row in rows:
        rewards.setdefault((row["test_set"], row["problem"], row["prompt"]), set()).add(row["reward"])
    return next((number for number, place in enumerate(problems) if len(rewards[place]) > 1), 0)


def _problem(row: Row) -> dict[str, Any]:
    """How a problem is named and what it asks."""
    place = {"test_set": row["test_set"], "problem": row["problem"]}
    return place | {"label": f"{row['test_set']}, problem {row['problem']}"} | {k: row[k] for k in ("prompt", "answer")}


def _row(row: Row, numbers: Mapping[str, int], known: Sequence[Quantity]) -> dict[str, Any]:
    """A response: words by number, a column per quantity (None: this run has it not), lists with both probabilities."""
    return {
        "reward": row["reward"],
        "finished": row["finished"],
        "tokens": [numbers[word] for word in row["tokens"]],
        "values": [None if values is None else _whole(values) for values in (column(row, each.key) for each in known)],
        "top": [[numbers[word] for word in position] for position in row.get("top", ())],
        "student": [_whole(position) for position in row.get("top_student", ())],
        "teacher": [_whole(position) for position in row.get("top_teacher", ())],
    }


def _words(row: Row) -> Iterable[str]:
    yield from row["tokens"]
    for position in row.get("top", ()):
        yield from position


def _whole(values: Sequence[float | None]) -> list[int | None]:
    return [None if value is None else round(value * PARTS) for value in values]
