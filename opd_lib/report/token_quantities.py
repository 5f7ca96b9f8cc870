"""What a token of a kept response may be coloured by: what each quantity says, where it rests, how far it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from opd_lib.records.record import RunRecord

Row = Mapping[str, Any]
Column = list[float | None]

DEFAULT = "teacher_minus_student"
DECIMALS = 4
EXTENT = 0.98
"""The share of tokens whose colour is not at its strongest."""
BEFORE = 5
"""How many words stand before a token that is listed."""
NOT_QUANTITIES = ("tokens", "top", "top_student", "top_teacher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number per token. `rest`: the value that needs no colour. `signed`: below and above rest are different things.

    `worst`: far (the furthest from rest) or low (the lowest value).
    """

    key: str
    title: str
    unit: str = ""
    about: str = ""
    rest: float = 0.0
    signed: bool = False
    worst: str = "far"


QUANTITIES = (
    Quantity(
        key=DEFAULT, title="teacher − student log-prob", unit="nats", signed=True,
        about="log q − log p of the token that was sampled. Below 0: the teacher likes it less than the student does.",
    ),
    Quantity(
        key="overlap", title="overlap of the two lists", rest=1.0,
        about="Share of the two models' most likely tokens that both lists have (Eq. 6). Coloured where they part.",
    ),
    Quantity(
        key="advantage", title="overlap-token advantage", unit="nats", signed=True,
        about="Eq. 7, over the tokens that both lists have: 0 where the models agree on them, never above.",
    ),
    Quantity(
        key="reverse_kl", title="reverse KL", unit="nats",
        about="KL(student ‖ teacher) over the whole vocabulary at this position.",
    ),
    Quantity(
        key="entropy_gap", title="entropy gap", unit="nats",
        about="|H(teacher) − H(student)| at this position (Eq. 8).",
    ),
    Quantity(key="student_entropy", title="student's entropy", unit="nats", about="How undecided the student is here."),
    Quantity(key="teacher_entropy", title="teacher's entropy", unit="nats", about="How undecided the teacher is here."),
    Quantity(
        key="student_logp", title="student's log-prob", unit="nats",
        about="log p of the token that was sampled: strong colour, an unlikely token.",
    ),
    Quantity(
        key="teacher_logp", title="teacher's log-prob", unit="nats",
        about="log q of the token that was sampled: strong colour, the teacher would not have said it.",
    ),
    Quantity(
        key="coherence", title="coherence of gradients", signed=True, worst="low",
        about="Cosine of this token's gradient with that of the whole batch. Below 0: it pulls the other way.",
    ),
)  # fmt: skip
"""Those we know, in the order in which they are offered."""

DERIVED: Mapping[str, tuple[str, str, Callable[[float, float], float]]] = {
    DEFAULT: ("teacher_logp", "student_logp", lambda teacher, student: teacher - student),
    "entropy_gap": ("teacher_entropy", "student_entropy", lambda teacher, student: abs(teacher - student)),
}
"""key → the two columns that it is made of, and how"""


def column(row: Row, key: str) -> Column | None:
    """One number per token of a kept response, None where it is not known; None if the row has no such quantity."""
    if key not in DERIVED:
        return row.get(key)
    first, second, join = DERIVED[key]
    if first not in row or second not in row:
        return None
    pairs = zip(row[first], row[second], strict=True)
    return [None if a is None or b is None else round(join(a, b), DECIMALS) for a, b in pairs]


def known(rows: Sequence[Row]) -> tuple[Quantity, ...]:
    """The quantities that some of these responses have: ours first, then any other list of one number per token."""
    ours = [each for each in QUANTITIES if any(column(row, each.key) for row in rows)]
    named = {each.key for each in QUANTITIES}
    others = dict.fromkeys(key for row in rows for key in row if key not in named and _is_column(row, key))
    signs = {key: any(v is not None and v < 0 for row in rows for v in row.get(key, ())) for key in others}
    return (*ours, *(Quantity(key=key, title=key.replace("_", " "), signed=signs[key]) for key in others))


def named(key: str, rows: Sequence[Row]) -> Quantity:
    """The quantity of this key. Raises ValueError listing those of these responses if there is none such."""
    present = known(rows)
    for each in present:
        if each.key == key:
            return each
    raise ValueError(f"no quantity {key!r} of these tokens; choose from {', '.join(each.key for each in present)}")


def badness(quantity: Quantity, value: float) -> float:
    """How bad a value is, in the quantity's unit: how far from rest, or how low."""
    return -value if quantity.worst == "low" else abs(value - quantity.rest)


def worst(records: Iterable[RunRecord], key: str = DEFAULT, n: int = 5, step: int | None = None) -> pd.DataFrame:
    """The n worst tokens of each arm (at this step; by default at any), with the words before them, worst first.

    Columns arm, step, test_set, place (from 1), before, token, value (the quantity's unit). No rows for runs that kept
    no responses. Raises ValueError for a quantity that there is not.
    """
    columns = ["arm", "step", "test_set", "place", "before", "token", "value"]
    frames = [pd.DataFrame(columns=columns)]
    for record in records:
        rows = [row for row in record.tokens() if step in (None, row["step"])]
        if not rows:
            continue
        quantity = named(key, rows)
        found = [
            (
                record.arm,
                row["step"],
                row["test_set"],
                place + 1,
                " ".join(row["tokens"][:place][-BEFORE:]),
                word,
                value,
            )
            for row in rows
            for place, (word, value) in enumerate(zip(row["tokens"], column(row, key) or (), strict=False))
            if value is not None
        ]
        found.sort(key=lambda line: -badness(quantity, line[-1]))
        frames.append(pd.DataFrame(found[:n], columns=columns))
    return pd.concat([each for each in frames if len(each)] or frames, ignore_index=True)


def extent(quantity: Quantity, rows: Iterable[Row]) -> float:
    """How far from rest the colour is at its strongest: what EXTENT of the tokens keep, as 1, 2 or 5 times 10ⁿ."""
    values = [value for row in rows for value in column(row, quantity.key) or () if value is not None]
    far = sorted(abs(value - quantity.rest) for value in values)
    reached = far[math.ceil(EXTENT * len(far)) - 1] if far else 0.0
    if reached <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(reached))
    return next(round(step * power, 8) for step in (1, 2, 5, 10) if step * power >= reached * (1 - 1e-9))


def _is_column(row: Row, key: str) -> bool:
    values = row[key]
    return (
        key not in NOT_QUANTITIES
        and isinstance(values, list)
        and len(values) == len(row["tokens"])
        and all(value is None or isinstance(value, int | float) for value in values)
    )
