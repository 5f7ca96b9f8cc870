"""A claims file as a whole: the claims of one paper, judged together, and the preconditions that they rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from opd_lib import yaml_files
from opd_lib.judge.statement import Claim, Precondition, Strict, Words
from opd_lib.maths import stats

__all__ = ["Claim", "Precondition", "Register", "load"]


class Register(Strict):
    """All claims of one paper. `confidence` is that of all verdicts together; preconditions have no part in it."""

    paper: Words
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)]
    preconditions: tuple[Precondition, ...] = ()
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
    _source: Path | None = PrivateAttr(default=None)

    @property
    def source(self) -> str:
        """The file it was read from, for errors."""
        return str(self._source or self.paper)

    @model_validator(mode="after")
    def _ids_differ(self) -> Register:
        ids = [said.id for said in (*self.preconditions, *self.claims)]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        if repeated:
            raise ValueError(f"ids of claims or preconditions appear twice: {', '.join(repeated)}")
        return self

    @model_validator(mode="after")
    def _claims_rest_on_what_is_there(self) -> Register:
        known = [precondition.id for precondition in self.preconditions]
        for claim in self.claims:
            if unknown := [name for name in claim.rests_on if name not in known]:
                there = ", ".join(known) or "none; write it under preconditions"
                raise ValueError(f"claim {claim.id}: rests_on: no precondition {', '.join(unknown)}; there are {there}")
            if len(set(claim.rests_on)) < len(claim.rests_on):
                raise ValueError(f"claim {claim.id}: rests_on: a precondition appears twice; name each once")
        return self

    @property
    def simultaneous(self) -> float:
        """The confidence of each interval such that all of the file are right together."""
        return stats.simultaneous_confidence(self.confidence, len(self.claims))

    def of(self, notebook: str | None) -> tuple[Claim, ...]:
        """The claims of one notebook, or all."""
        return tuple(claim for claim in self.claims if notebook in (None, claim.notebook))

    def is_about(self, notebook: str) -> bool:
        """Whether a precondition of it is measured on this notebook."""
        return any(each.notebook == notebook for each in self.preconditions)

    def preconditions_of(self, notebook: str | None) -> tuple[Precondition, ...]:
        """The preconditions that the claims of one notebook rest on, or all."""
        named = {name for claim in self.of(notebook) for name in claim.rests_on}
        return tuple(each for each in self.preconditions if notebook is None or each.id in named)


def load(path: Path) -> Register:
    """The claims of one file. Raises ValueError naming the file and the key of whatever is wrong in it."""
    raw = yaml_files.plain(yaml_files.read(path))
    try:
        register = Register.model_validate(raw)
    except ValidationError as error:
        lines = [f"{_whose(raw, e['loc'])}{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ValueError("\n".join(f"{path}: {line}" for line in lines)) from error
    register._source = path
    return register


def _whose(raw: Any, location: tuple[int | str, ...]) -> str:
    """`claim ID: ` or `precondition ID: ` where the location lies in one that has an id."""
    kinds = {"claims": Claim.KIND, "preconditions": Precondition.KIND}
    if len(location) < 2 or location[0] not in kinds or not isinstance(location[1], int):
        return ""
    said = raw[location[0]][location[1]]
    known = isinstance(said, dict) and isinstance(said.get("id"), str)
    return f"{kinds[str(location[0])]} {said['id']}: " if known else ""
