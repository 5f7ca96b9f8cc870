"""What every section of a params file is: a frozen, strict record; and the kinds of values that come again."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Strict(BaseModel):
    """A record that takes nothing it does not know and coerces nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def as_tuple(value: object) -> object:
    """A list, as YAML has it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Integers = Annotated[tuple[int, ...], BeforeValidator(as_tuple)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
