r"""Prompts of one's own, from a file: what a student is asked that nobody has written a task for.

    file       x.jsonl, x.parquet, x.csv, or a folder that `datasets` has saved; a relative path is relative to the
               folder of the params file, wherever the command is given
    digest     that of the rows: a run is one of these prompts, and another file under the same path is refused;
               `opd prompts FILE` says what to write
    column     a text, or messages {role, content} of which a user's is the last
    held_out   the share of the prompts, dealt by a hash of their text, that is tested on as `held-out`

    grader     right is a response
    none       nobody knows: accuracy stays empty, and methods that need rewards are refused
    exact      that is the answer, but for blanks at the ends
    math       whose stated answer (a box, or a line `Answer: …`) math-verify finds equal to the answer
    contains   in which a word of the answer stands, whatever its case; words are separated by |: "autumn|fall"
    pattern    in which the last match of `pattern` (its group, if it has one) is the answer, blanks at the ends aside

Training takes the prompts in an order that (seed, epoch) shuffles; an epoch of ⌊prompts / n⌋ steps leaves over those
that fill no step. A prompt of more than max_prompt_tokens is left out of its step, and refused where it is held out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from opd_lib.tasks import Grading, graders, prompt_sets
from opd_lib.tasks.math_rows import normalize_gold
from opd_lib.tasks.prompt_sets import Question
from opd_lib.types import Prompt

HELD_OUT = "held-out"
"""The name of the one test set."""
FOLDER = "folder"
"""The key of pydantic's context under which the folder of the params file stands."""


class Params(BaseModel):
    """Which prompts, how they are put and how a response is graded; see the head of this file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    name: Literal["prompts"]
    file: str = Field(description="where the prompts are")
    digest: str = Field(description="that of the prompts and answers in the file")
    column: Annotated[str, Field(min_length=1, description="the column of the prompts")]
    answer: Annotated[str, Field(min_length=1, description="the column of the answers")] | None
    grader: Literal["none", "exact", "math", "contains", "pattern"] = Field(description="when a response is right")
    pattern: str | None = Field(description="with grader pattern: the regular expression that finds an answer")
    system: str | None = Field(description="a system message before each prompt; null: none")
    held_out: Annotated[float, Field(gt=0.0, lt=1.0, description="the share of the prompts that is tested on")]
    thinking: bool = Field(description="handed to the tokenizer's chat template as enable_thinking")
    max_prompt_tokens: Annotated[int, Field(ge=1, le=10**7, description="longer prompts are left out (tokens)")]

    @field_validator("file")
    @classmethod
    def _in_full(cls, file: str, info: ValidationInfo) -> str:
        """The path in full. Raises ValueError for a blank one, for ~, and where no params file says from where."""
        if not file.strip() or not file.isprintable() or file.startswith("~"):
            raise ValueError("write a path, in full or relative to the folder of the params file; ~ is not read")
        folder = (info.context or {}).get(FOLDER)
        if folder is None and not Path(file).is_absolute():
            raise ValueError("is relative, and no params file says to which folder; write it in full")
        return str(Path(folder or "/", file).absolute())

    @property
    def content(self) -> str:
        """The one name of all prompts to train on."""
        return self.name

    @property
    def other_content(self) -> str:
        """The same: nothing is mixed."""
        return self.name

    @property
    def other_share(self) -> float:
        """Nothing is mixed."""
        return 0.0

    @property
    def template(self) -> str:
        """The name of the one way in which a prompt is put: as it stands in the file."""
        return "as-written"

    @property
    def test_template(self) -> str:
        """The same way."""
        return self.template

    @property
    def test_sets(self) -> tuple[str, ...]:
        """The one test set."""
        return (HELD_OUT,)


def prompt_set(params: Params) -> prompt_sets.PromptSet:
    """The prompts of the file, read once. Raises ValueError for a file that is not what these params mean."""
    origin = prompt_sets.Origin(
        file=Path(params.file), column=params.column, answer=params.answer, held_out=params.held_out
    )
    return prompt_sets.load(origin, params.digest)


def prepare(params: Params) -> None:
    """Read the file. Raises ValueError for whatever is wrong in it, and for a second system message."""
    found = prompt_set(params)
    for question in (*found.training, *found.held_out):
        if params.system is not None and question.chat[0][0] == "system":
            raise ValueError(
                f"{params.file}, {question.id.replace('-', ' ')}: {params.column}: begins with a system message, and "
                "task.system is another; leave one of the two out"
            )


def training(params: Params, n: int, seed: int, step: int) -> list[Question]:
    """The n questions of a step (from 1). ValueError if the file has fewer."""
    rows = prompt_set(params).training
    if n > len(rows):
        raise ValueError(
            f"source.prompts_per_step: {n} prompts, but {params.file} has {len(rows)} to train on; ask for fewer"
        )
    epoch, place = divmod(step - 1, len(rows) // n)
    return [asked(params, rows[index]) for index in _order(len(rows), seed, epoch)[place * n : (place + 1) * n]]


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(n))
    random.Random(f"{seed}/prompts/{epoch}").shuffle(order)
    return order


def test(params: Params, test_set: str, n: int) -> list[Question]:
    """The first n held-out questions, fewer if there are fewer."""
    return [asked(params, question) for question in prompt_set(params).held_out[:n]]


def typed(params: Params, text: str) -> Question:
    """A prompt that somebody types in."""
    return asked(params, Question(id=text, chat=(("user", text),), answer=""))


def asked(params: Params, question: Question) -> Question:
    """A prompt with the system message that these params put before each."""
    return question if params.system is None else replace(question, chat=(("system", params.system), *question.chat))


def messages(question: Question, template: str) -> list[dict[str, str]]:
    """The messages of a prompt; there is one way to put it."""
    return [{"role": role, "content": content} for role, content in question.chat]


def chat_options(params: Params) -> dict[str, Any]:
    """Qwen3's chat template thinks unless told not to; templates that do not know the option ignore it."""
    return {"enable_thinking": params.thinking}


def domain(params: Params, question: Question) -> str:
    """The name of all prompts."""
    return params.content


def grading(params: Params) -> Grading | None:
    """How a response is held against its answer; None where nothing is graded."""
    if params.grader == "none":
        return None
    if params.grader == "math":
        return Grading(extract_answer=_stated, grade=_equal)
    if params.grader == "contains":
        return Grading(extract_answer=lambda text: text.strip() or None, grade=_contained)
    extract = str.strip if params.pattern is None else partial(last_match, re.compile(params.pattern))

    def same(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
        return [float(extract(text) == prompt.answer) for text, prompt in zip(responses, prompts, strict=True)]

    return Grading(extract_answer=lambda text: extract(text) or None, grade=same)


def last_match(pattern: re.Pattern[str], text: str) -> str | None:
    r"""What the last match of a pattern holds (its group, if it has one) without blanks at the ends; None if nothing.

    >>> [last_match(re.compile(pattern), "a = 1, so b = 2 .") for pattern in (r"= (\d+)", "so|a", "c")]
    ['2', 'so', None]
    """
    found = None
    for match in pattern.finditer(text):
        found = match
    return None if found is None else (found[min(pattern.groups, 1)] or "").strip() or None


def contains(response: str, answer: str) -> bool:
    """Whether one of the answer's words, or groups of words, stands in a response as a whole, in any case.

    >>> [contains(text, "fall|new delhi") for text in ("In the Fall.", "It falls", "New Delhi", "In New York or Delhi")]
    [True, False, True, False]
    """
    words = [re.escape(word.strip()) for word in answer.split("|") if word.strip()]
    return any(re.search(rf"(?<!\w){word}(?!\w)", response, re.IGNORECASE) for word in words)


def _contained(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    return [float(contains(text, prompt.answer)) for text, prompt in zip(responses, prompts, strict=True)]


def _stated(response: str) -> str | None:
    return graders.stated_answer(response, "box")


def _equal(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """1.0 where math-verify finds the stated answer equal to the prompt's, else 0.0."""
    golds = [normalize_gold(prompt.answer) for prompt in prompts]
    return [float(verdict is True) for verdict in graders.verify([_stated(text) for text in responses], golds)]


def check(params: Params) -> None:
    """Refuse a grader without what it needs, and whatever it does not read; the file itself is left to `prepare`."""
    if params.grader != "none" and params.answer is None:
        raise ValueError(f"task.answer: null, but grader {params.grader} compares with an answer; name its column")
    if params.answer == params.column:
        raise ValueError(f"task.answer: {params.answer!r} is the column of the prompts; name another, or write null")
    if params.system is not None and not params.system.strip():
        raise ValueError("task.system: is empty; write the message, or null for none")
    if (params.grader == "pattern") != (params.pattern is not None):
        remedy = "write null" if params.pattern is not None else "write the regular expression that finds an answer"
        raise ValueError(f"task.pattern: {params.pattern!r} with grader {params.grader}; {remedy}")
    try:
        groups = re.compile(params.pattern or "").groups
    except re.error as error:
        raise ValueError(
            f"task.pattern: {params.pattern!r} is no regular expression of Python's re ({error}); correct it"
        ) from error
    if groups > 1:
        raise ValueError(
            f"task.pattern: {params.pattern!r} has {groups} groups, and one may be the answer; write (?:…) for others"
        )
