"""Labelled operations, chains of them as questions, and a step of the reasoning in either pattern."""

from __future__ import annotations

from dataclasses import dataclass

from opd_lib.tasks.labelled_words import LABELS, SPOKEN
from opd_lib.tasks.world import part


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its digits: one, two for `~`."""

    operator: str
    digits: tuple[int, ...]

    def __call__(self, value: int) -> int:
        """The result, modulo 10.

        >>> Operation("-", (5,))(2), Operation("~", (3, 4))(2)
        (7, 0)
        """
        first = self.digits[0]
        match self.operator:
            case "+":
                return (value + first) % 10
            case "-":
                return (value - first) % 10
            case "*":
                return value * first % 10
        return (value * first + self.digits[1]) % 10

    @property
    def words(self) -> list[str]:
        """The operator, then its digits."""
        return [self.operator, *map(str, self.digits)]


@dataclass(frozen=True, slots=True)
class Question:
    """A start digit and operations on it."""

    start: int
    operations: tuple[Operation, ...]

    @property
    def id(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        asked = zip(LABELS, self.operations, strict=False)
        return " ".join([str(self.start), *(word for label, each in asked for word in (label, *each.words))])

    @property
    def values(self) -> list[int]:
        """The start and the result of each operation."""
        values = [self.start]
        for operation in self.operations:
            values.append(operation(values[-1]))
        return values

    @property
    def answer(self) -> str:
        return str(self.values[-1])

    @property
    def solution(self) -> str:
        """The steps without a slip in pattern A, and the answer."""
        words = [
            word
            for label, operation, value in zip(LABELS, self.operations, self.values, strict=False)
            for word in (*step("A", label, operation, value), str(operation(value)), STOPS["A"])
        ]
        return " ".join([*words, "<ans>", self.answer])

    @property
    def part(self) -> int:
        """Where the hash deals this question: the same on every machine, whatever the seed."""
        return part(self.text)


STOPS = {"A": ";", "B": "."}
"""What ends a step of a pattern."""


def step(pattern: str, label: str, operation: Operation, value: int) -> list[str]:
    """A step up to its result, in a pattern's syntax.

    >>> " ".join(step("A", "s2", Operation("~", (3, 4)), 2)), " ".join(step("B", "s1", Operation("+", (5,)), 7))
    ('s2 2 ~ 3 4 =', 'take s1 7 plus 5 get')
    """
    digits = [str(digit) for digit in operation.digits]
    if pattern == "A":
        return [label, str(value), operation.operator, *digits, "="]
    return ["take", label, str(value), SPOKEN[operation.operator], *digits, "get"]
