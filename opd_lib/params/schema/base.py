"""What every section of a params file is: a frozen, strict record; and the kinds of values that come again.

Bounds keep out what no machine could do or float32 could hold, and what would do nothing without a word.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from opd_lib import names

MOST = 10**9
"""Steps, tokens, prompts: no count is larger."""
LONGEST_TEXT = 1000
"""Characters of a reference or a path."""


class Strict(BaseModel):
    """A record that takes nothing it does not know, coerces nothing, and whose numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def as_tuple(value: object) -> object:
    """A list, as YAML has it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def distinct(values: tuple[object, ...]) -> tuple[object, ...]:
    """The values. Raises ValueError if one comes twice."""
    repeated = [value for i, value in enumerate(values) if value in values[:i]]
    if repeated:
        raise ValueError(f"{repeated[0]!r} comes twice; name each once")
    return values


def one_line(text: str) -> str:
    """A path or a name from elsewhere. Raises ValueError if it is blank, or has what no such name has."""
    if not text.strip() or text != text.strip() or not text.isprintable() or len(text) > LONGEST_TEXT:
        raise ValueError(
            f"write a text without blanks at its ends, line breaks and control characters, 1 to {LONGEST_TEXT} long"
        )
    return text


def checkpoint(text: str) -> str:
    """Where a checkpoint is. Raises ValueError for a blank and for a `run:` that refers to nothing."""
    if not text.strip():
        raise ValueError("names no checkpoint; write a folder, org/name, gguf:FILE, or run:NOTEBOOK/ARM")
    return run(text) if text.startswith(names.RUN_PREFIX) else one_line(text)


def run(text: str) -> str:
    """A reference to a run. Raises ValueError if it is none."""
    names.run_reference(one_line(text))
    return text


Text = Annotated[str, AfterValidator(one_line)]
Checkpoint = Annotated[str, AfterValidator(checkpoint)]
RunOf = Annotated[str, AfterValidator(run)]
Words = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1), AfterValidator(distinct)]
Whole = Annotated[int, Field(ge=0, le=MOST)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Integers = Annotated[tuple[Whole, ...], BeforeValidator(as_tuple), AfterValidator(distinct)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(as_tuple), AfterValidator(distinct)]
Size = Annotated[int, Field(ge=1, le=10**6)]
"""How many of what is held at a time: prompts of a step, samples of a prompt, processes."""
Tokens = Annotated[int, Field(ge=1, le=10**7)]
"""The length of a response or of a context."""
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(ge=1e-12, le=1e12)]
Rate = Annotated[float, Field(ge=1e-12)]
"""A learning rate: what is too large diverges in the first steps, which is an error of the run."""
Temperature = Annotated[float, Field(ge=0.01, le=100.0)]
"""Below, logits leave float32 and vLLM samples at 0.01 whatever it is told; above, they are all alike."""
Nucleus = Annotated[float, Field(ge=1e-6, le=1.0)]
Gib = Annotated[float, Field(gt=0.0, le=1e6)]
Hours = Annotated[float, Field(gt=0.0, le=1e5)]
