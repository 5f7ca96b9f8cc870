"""Ask a checkpoint something, and read its answer token by token with what a teacher says of it.

pair = talk.meet("run:00_models/distill-small", "run:00_models/justrl-small")
pair.ask("7 + 5 * 3 - 2")             # the explorer of its answer, in a notebook
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from opd_lib import params, paths
from opd_lib.report import explore, tables
from opd_lib.report.explore import Explorer
from opd_lib.run import beforehand, check

if TYPE_CHECKING:
    from opd_lib.engine.conversation import Manner
    from opd_lib.engine.sources import Model
    from opd_lib.params.schema import RunParams

FIRST = 3
"""How many of each model's most likely tokens stand beside a token of the answer."""
OTHER = "≠"


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """A student that answers, a teacher that listens (the student itself if there is none), and what was said."""

    student: Model
    teacher: Model
    settings: RunParams
    manner: Manner
    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, question: str) -> Explorer:
        """The answer, as the token explorer shows it. Raises ValueError for words that a tiny world does not have."""
        return explore.answers([self.answer(question)], self.name, self.manner.seed)

    def answer(self, question: str) -> dict[str, Any]:
        """The answer as a row of `tokens.jsonl`; it is remembered."""
        from opd_lib.engine import conversation

        row = conversation.answer(self.settings, self.student, self.teacher, question, self.manner)
        self.rows.append(row)
        return row


def meet(
    student: str,
    teacher: str | None = None,
    profile: str = "tiny",
    *,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    results: Path | None = None,
    root: Path = paths.PARAMS,
) -> Meeting:
    """Load two checkpoints: folders, hub names or run:NOTEBOOK/ARM. The limit is that of the profile's evaluation.

    Raises ValueError for a checkpoint that is not there, tokenizers that differ, too little memory, and settings out of
    range.
    """
    from opd_lib.engine import conversation

    if not (temperature > 0 and 0 < top_p <= 1):
        raise ValueError(f"temperature {temperature:g}, top_p {top_p:g}: above 0, and at most 1 for top_p")
    pair = check.Pair(
        student=student, teacher=teacher or student, profile=profile, seed=seed, results=results, root=root
    )
    settings = beforehand.here(check.common(params.load(check.NOTEBOOK, profile, results=results, root=root).source))
    limit = settings.evaluate.max_new_tokens if max_new_tokens is None else max_new_tokens
    names = (pair.student, pair.teacher)
    places = {name: check.locate(name, pair) for name in names}
    beforehand.of_talk(settings, places, names, limit).require()
    loaded = check.loaded(settings, dict.fromkeys(places.values()))
    conversation.prepare(loaded[0], loaded[-1])
    manner = conversation.Manner(max_new_tokens=limit, temperature=temperature, top_p=top_p, seed=seed)
    return Meeting(student=loaded[0], teacher=loaded[-1], settings=settings, manner=manner, name=student)


def text(row: dict[str, Any], has_teacher: bool) -> str:
    """An answer as text: what it says, then a line for each token with probabilities and both lists.

    OTHER stands where the teacher's most likely token is another than the one that was drawn.
    """
    said = " ".join(row["tokens"]) + ("" if row["finished"] else "   (cut off)")
    frame = pd.DataFrame({"token": row["tokens"], "student": _p(row["student_logp"])})
    frame["student's first"] = _lists(row, "top_student")
    if has_teacher:
        frame["teacher"] = _p(row["teacher_logp"])
        firsts = zip(row["tokens"], _lists(row, "top_teacher"), strict=True)
        frame["teacher's first"] = [
            f"{' ' if first.startswith(f'{token} ') else OTHER} {first}" for token, first in firsts
        ]
        frame["reverse KL"] = row["reverse_kl"]
    return f"{said}\n\n{tables.show(frame, digits=2)}\n"


def _p(logp: Iterable[float | None]) -> list[float]:
    return [math.nan if value is None else math.exp(value) for value in logp]


def _lists(row: dict[str, Any], column: str) -> list[str]:
    """At each position the FIRST tokens of a list with their probabilities."""
    shown = []
    for words, values in zip(row["top"], row[column], strict=True):
        ranked = sorted(((p or 0.0, word) for word, p in zip(words, values, strict=True)), key=lambda x: -x[0])
        shown.append("  ".join(f"{word} {p:.2f}" for p, word in ranked[:FIRST]))
    return shown
