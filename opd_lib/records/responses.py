"""Kept responses as they are read: every row whole, with a number, or nothing, for each of its tokens.

A row of rollouts.jsonl is a response of training, a row of tokens.jsonl an answer to a kept problem (engine/tokens).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from opd_lib.records import reading

Row = dict[str, Any]
Kinds = type | tuple[type, ...]

NUMBER = (int, float)
EVERY: dict[str, Kinds] = {"step": int, "prompt": str, "answer": str, "reward": NUMBER, "tokens": list}
"""Field of a response → what it is."""
KEPT: dict[str, Kinds] = EVERY | {"test_set": str, "problem": int, "finished": bool}
"""Field of an answer to a kept problem → what it is."""
PER_TOKEN = (
    "student_logp", "student_entropy", "teacher_logp", "teacher_entropy", "reverse_kl", "overlap", "advantage",
    "coherence",
)  # fmt: skip
"""Columns with a number per token; null where it is not known."""
LISTS, MASSES = "top", ("top_student", "top_teacher")
"""A list of tokens per position, and their probabilities."""


def parse(content: bytes, fields: Mapping[str, Kinds], where: str, remedy: str) -> list[Row]:
    """The rows of a file of this content, each with these fields. Numbers that are not finite are not known: None.

    Raises ValueError naming the file and the line that is damaged, and the field that is missing or no such thing.
    """
    found = [cleaned(row) for row in reading.rows(content, where, fields, remedy)]
    for number, row in enumerate(found, start=1):
        require(row, fields, f"{where}, line {number}", remedy)
    return found


def require(row: Row, fields: Mapping[str, Kinds], where: str, remedy: str) -> None:
    """Raise ValueError unless a row has these fields, and a number, or a list, for each of its tokens."""
    for name, kind in fields.items():
        if not isinstance(row[name], kind):
            reading.refuse(where, f"{name}: {row[name]!r} is no {named(kind)}", remedy)
    n = len(row["tokens"])
    for name in (name for name in (*PER_TOKEN, LISTS, *MASSES) if name in row):
        if not isinstance(row[name], list) or len(row[name]) not in (n, 0 if name in (LISTS, *MASSES) else n):
            reading.refuse(where, f"{name}: not one entry for each of {n} tokens", remedy)
    for name in (name for name in PER_TOKEN if name in row):
        if wrong := [value for value in row[name] if not (value is None or is_number(value))]:
            reading.refuse(where, f"{name}: {wrong[0]!r} is no number", remedy)
    if any(not isinstance(word, str) for word in row["tokens"]):
        reading.refuse(where, "tokens: not all of them are texts", remedy)
    require_lists(row, where, remedy)


def require_lists(row: Row, where: str, remedy: str) -> None:
    """Raise ValueError unless both models' probabilities are of the tokens listed at the same position."""
    listed = row.get(LISTS, [])
    if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in listed):
        reading.refuse(where, f"{LISTS}: not a list of tokens at every position", remedy)
    for name in (name for name in MASSES if row.get(name)):
        for words, values in zip(listed, row[name], strict=False):
            fits = isinstance(values, list) and len(values) == len(words)
            if not fits or not all(value is None or is_number(value) for value in values):
                reading.refuse(where, f"{name}: not one probability for each token of {LISTS}", remedy)


def cleaned(value: Any) -> Any:
    """Without numbers that are not finite (None instead), and without halves of characters (U+FFFD instead)."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [cleaned(entry) for entry in value]
    return {key: cleaned(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def is_number(value: object) -> bool:
    """True for a number that a JSON file may hold."""
    return isinstance(value, NUMBER) and not isinstance(value, bool)


def named(kind: Kinds) -> str:
    """What a kind is called in a message."""
    words = {int: "whole number", NUMBER: "number", str: "text", bool: "true or false", list: "list"}
    return words[kind]
