"""A file of one's own as two sets of questions, those that are trained on and those that are held out.

A hash of a prompt's text deals it to one of the two, so the same text is on the same side in every file and whatever
the seed. Of rows with one text the first is kept; blanks at the ends of a message make no difference. The held-out
questions stand in the order of their hashes: the first n are drawn from the whole file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from opd_lib.tasks import prompt_files
from opd_lib.types import Chat


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which rows: a file, its column of prompts, that of answers (None: none), and the share that is held out."""

    file: Path
    column: str
    answer: str | None
    held_out: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt of the file. `text` is its last user message, `id` its line or row; `answer` is empty without one."""

    id: str
    chat: Chat
    answer: str

    @property
    def text(self) -> str:
        return self.chat[-1][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a file holds, counted.

    `prompts` are distinct, `repeats` the rows that were dropped; `conflicting`: repeats with another answer than the
    row that was kept. `chats`: prompts of more than one message. `longest`: characters of the longest prompt. `digest`:
    that of prompts and answers in their order, whatever kind of file they stand in.
    """

    file: str
    rows: int
    prompts: int
    repeats: int
    conflicting: int
    chats: int
    longest: int
    training: int
    held_out: int
    digest: str

    @property
    def in_words(self) -> str:
        """All of it in a sentence."""
        return (
            f"{self.file}: rows: {self.rows}, distinct prompts: {self.prompts}, repeats dropped: {self.repeats} (with "
            f"another answer: {self.conflicting}), chats of several messages: {self.chats}, longest prompt: "
            f"{self.longest} characters, to train on: {self.training}, held out: {self.held_out}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """The questions to train on in the order of the file, those held out in that of their hashes, and the counts."""

    training: tuple[Question, ...]
    held_out: tuple[Question, ...]
    summary: Summary


@lru_cache(maxsize=8)
def load(origin: Origin, digest: str) -> PromptSet:
    """The questions of a file whose digest is this one; read once.

    Raises ValueError as `read` does; if the file holds other rows, naming their digest; and if a side is empty.
    """
    found = read(origin)
    if found.summary.digest != digest:
        raise ValueError(
            f"task.digest: {digest!r}, but the rows of {origin.file} have {found.summary.digest}: they are not those "
            f"that the params file means; if they are to be, write digest: {found.summary.digest}"
        )
    for side, questions, remedy in (
        ("held out", found.held_out, "a larger share"),
        ("left to train on", found.training, "a smaller share"),
    ):
        if not questions:
            raise ValueError(
                f"task.held_out: {origin.held_out:g} of the {found.summary.prompts} prompts of {origin.file}, and none "
                f"is {side}; use {remedy}, or more prompts"
            )
    return found


def read(origin: Origin) -> PromptSet:
    """The questions of a file as it stands. Raises ValueError for whatever cannot be read (`prompt_files`)."""
    whole, n_rows, conflicting = blake2b(digest_size=16), 0, 0
    kept: dict[str, Question] = {}
    for row in prompt_files.rows(origin.file, origin.column, origin.answer):
        n_rows += 1
        whole.update(json.dumps([row.chat, row.answer]).encode() + b"\n")
        question = Question(id=row.place.replace(" ", "-"), chat=row.chat, answer=row.answer)
        conflicting += kept.setdefault(key(row.chat), question).answer != row.answer
    sides: dict[bool, list[tuple[float, Question]]] = defaultdict(list)
    for text, question in kept.items():
        place = dealt(text)
        sides[place < origin.held_out].append((place, question))
    training, held_out = sides[False], sorted(sides[True], key=lambda pair: pair[0])
    return PromptSet(
        training=tuple(question for _, question in training),
        held_out=tuple(question for _, question in held_out),
        summary=Summary(
            file=str(origin.file),
            rows=n_rows,
            prompts=len(kept),
            repeats=n_rows - len(kept),
            conflicting=conflicting,
            chats=sum(len(question.chat) > 1 for question in kept.values()),
            longest=max(sum(len(content) for _, content in question.chat) for question in kept.values()),
            training=len(training),
            held_out=len(held_out),
            digest=whole.hexdigest(),
        ),
    )


def key(chat: Chat) -> str:
    """The text by which a prompt is known: its messages without blanks at their ends.

    >>> key((("user", "Why? "),)) == key((("user", "Why?"),))
    True
    """
    return json.dumps([[role, content.strip()] for role, content in chat])


def dealt(text: str) -> float:
    """Where a hash puts a text in [0, 1): the same on every machine."""
    return float(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 11) / 2.0**53
