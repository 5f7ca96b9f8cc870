"""Real mathematics questions: DAPO-Math, DeepMath or OpenThoughts to train on, AIME and AMC to be tested on.

Training takes a set's rows in file order: step s of n prompts takes rows (s − 1)·n … s·n − 1. An epoch has ⌊rows / n⌋
steps, the rows left over are never asked, and the next epoch begins at row 0 again. In a mixture each place of a step
takes, with probability `other_share`, the row that the other set has there: arms that differ only in the share ask the
same questions at the places they have in common.

Source: arXiv 2604.13016 Table 2 and its code (no shuffling, drop_last). Differs: the code leaves prompts of more than
max_prompt_tokens out before it counts rows; here the engine, which has the tokenizer, leaves them out of their step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from math import nan
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from opd_lib.tasks import graders, math_sets
from opd_lib.tasks.math_rows import TEMPLATES, Question
from opd_lib.types import Prompt


class Params(BaseModel):
    """What is asked and how: sets and templates by name, and where the sets are read from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    name: Literal["math"]
    content: str = Field(description="the set that is trained on")
    other_content: str = Field(description="the set that a share of the training prompts comes from")
    other_share: Annotated[float, Field(ge=0.0, le=1.0, description="that share")]
    template: str = Field(description="how training questions are put: original, boxed or boxed_double")
    test_sets: Annotated[tuple[str, ...], Field(strict=False, min_length=1, description="the sets that are tested on")]
    test_template: str = Field(description="how test questions are put")
    thinking: bool = Field(description="handed to the tokenizer's chat template as enable_thinking")
    max_prompt_tokens: Annotated[int, Field(ge=1, le=10**7, description="longer prompts are left out (tokens)")]
    data: str | None = Field(description="a folder of the sets' files, relative to the repository; null: the hub")


def training(params: Params, n: int, seed: int, step: int) -> list[Question]:
    """The n questions of a step (from 1). The seed matters in mixtures only. ValueError where a set is too small."""
    names = [params.content] * n
    if params.other_share > 0:
        rng = random.Random(f"{seed}/prompts/{step}")
        names = [params.other_content if rng.random() < params.other_share else params.content for _ in range(n)]
    rows = {name: _rows_of_step(math_sets.load(name, params.data), name, n, step) for name in set(names)}
    return [rows[name][place] for place, name in enumerate(names)]


def _rows_of_step(questions: Sequence[Question], name: str, n: int, step: int) -> Sequence[Question]:
    """The rows a step takes from one set in file order, epochs without the rows that fill no step."""
    if n > len(questions):
        raise ValueError(f"source.prompts_per_step: {n} prompts, but {name} has {len(questions)} rows; ask for fewer")
    begin = (step - 1) % (len(questions) // n) * n
    return questions[begin : begin + n]


def test(params: Params, test_set: str, n: int) -> list[Question]:
    """The first n questions of a test set, fewer if it has fewer."""
    return list(math_sets.load(test_set, params.data)[:n])


def messages(question: Question, template: str) -> list[dict[str, str]]:
    """The chat a question is put as: one user message, the template's instruction around the question."""
    before, after = TEMPLATES[template]
    return [{"role": "user", "content": before + question.text + after}]


def chat_options(params: Params) -> dict[str, Any]:
    """Qwen3's chat template thinks unless told not to; templates that do not know the option ignore it."""
    return {"enable_thinking": params.thinking}


def domain(params: Params, question: Question) -> str:
    """The set that a training question was drawn from."""
    is_other = params.other_share > 0 and question.text in _texts(params.other_content, params.data)
    return params.other_content if is_other else params.content


@lru_cache(maxsize=2)
def _texts(name: str, data: str | None) -> frozenset[str]:
    return frozenset(question.text for question in math_sets.load(name, data))


def extract_answer(response: str) -> str | None:
    r"""The answer a response states, in a box or on an `Answer:` line; None if it states none.

    >>> extract_answer(r"So it is \boxed{34}."), extract_answer("Answer: 34"), extract_answer("34")
    ('34', '34', None)
    """
    return graders.stated_answer(response, "box")


def grade(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """1.0 where math-verify finds the stated answer equal to the gold, else 0.0; nan where the set has no gold.

    The answer is read in the form the prompt asks for (a box or a line), and in the other if that one is missing.
    """
    answers = [
        graders.stated_answer(text, _answer_form(prompt)) for text, prompt in zip(responses, prompts, strict=True)
    ]
    verdicts = graders.verify(answers, [prompt.answer for prompt in prompts])
    return [float(verdict is True) if prompt.answer else nan for verdict, prompt in zip(verdicts, prompts, strict=True)]


def _answer_form(prompt: Prompt) -> graders.AnswerForm:
    return "line" if TEMPLATES["original"][1] in prompt.rendered else "box"


def check(params: Params) -> None:
    """Refuse sets and templates this task does not have, and sets that are on no hub where no folder is named."""
    known = [
        ("content", params.content, tuple(math_sets.TRAINING)),
        ("other_content", params.other_content, tuple(math_sets.TRAINING)),
        ("template", params.template, tuple(TEMPLATES)),
        ("test_template", params.test_template, tuple(TEMPLATES)),
        *(("test_sets", name, tuple(math_sets.TEST)) for name in params.test_sets),
    ]
    for key, value, names in known:
        if value not in names:
            raise ValueError(f"task.{key}: {value!r} is unknown; choose from {', '.join(names)}")
    used = [("content", params.content)] + [("other_content", params.other_content)] * (params.other_share > 0)
    for key, name in used:
        try:
            math_sets.require_set(name, params.data)
        except ValueError as error:
            raise ValueError(f"task.{key}: {error}") from error
