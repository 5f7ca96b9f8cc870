"""What a claims file may hold: the paper's statements as predicates, and how they differ from profile to profile.

A quantity names what the tiny world has. `elsewhere` says, per profile, what differs: another quantity, where the same
statement is about other checkpoints, test sets, caps or depths; or `not_part` with the reason, where the profile makes
no runs of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from opd_lib import names, yaml_files
from opd_lib.judge import vocabulary
from opd_lib.maths import stats


class Strict(BaseModel):
    """Frozen, an unknown key is an error, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Paper(Strict):
    """The paper's own evidence: a number where it has one, the words of our table, and where it was read."""

    value: float | None
    text: str
    source: str


STANDS_FOR = {"rehearsal": "paper", "gpu-math": "paper"}  # profiles of the papers' task at another size


class Threshold(Strict):
    """The bound of the quantity at each profile, in the quantity's unit."""

    tiny: float
    smoke: float
    paper: float
    gpu: float


def _readable(quantity: str) -> str:
    vocabulary.calls(quantity)
    return quantity


def _is_notebook(name: str) -> str:
    return names.require(name, "notebook")


Quantity = Annotated[str, AfterValidator(_readable)]
Notebook = Annotated[str, AfterValidator(_is_notebook)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,15}$")]
Words = Annotated[str, Field(pattern=r"\S")]
Elsewhere = Literal["smoke", "gpu", "paper", "gpu-math", "rehearsal"]


class Difference(Strict):
    """What a claim is at one profile: judged by another quantity, or not a part of it for the reason given."""

    quantity: Quantity | None = None
    not_part: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Difference:
        if (self.quantity is None) == (not self.not_part):
            raise ValueError("say either quantity or not_part, the reason why the profile has none")
        return self


class Claim(Strict):
    """One statement of the paper that runs can contradict.

    `seeds`: how many it was planned for; with fewer it is not decided. `note`: how it is restated for the tiny world.
    """

    id: Name
    figure: Words
    statement: Words
    paper: Paper
    notebook: Notebook
    quantity: Quantity
    elsewhere: dict[Elsewhere, Difference] = {}
    comparison: Literal[">", "<"]
    threshold: Threshold
    statistic: Literal["seeds", "problems"]
    seeds: Annotated[int, Field(ge=2, le=100)]
    note: str

    @model_validator(mode="after")
    def _statistic_fits(self) -> Claim:
        others = [difference.quantity for difference in self.elsewhere.values() if difference.quantity]
        if {vocabulary.is_paired(quantity) for quantity in (self.quantity, *others)} != {self.statistic == "problems"}:
            paired = " or ".join(vocabulary.PAIRED)
            raise ValueError(f"statistic: {self.statistic}: a quantity is over problems if and only if it is {paired}")
        return self

    def at(self, profile: str) -> Difference:
        """What judges it at a profile: what `elsewhere` says of the profile or of the one it stands in for."""
        for name in (profile, STANDS_FOR.get(profile, profile)):
            if name in self.elsewhere:
                return self.elsewhere[name]
        return Difference(quantity=self.quantity)

    def bound(self, profile: str) -> float:
        """The threshold at a profile, or at the one it stands in for. Raises ValueError for a profile without one."""
        name = STANDS_FOR.get(profile, profile)
        if name not in Threshold.model_fields:
            raise ValueError(f"claim {self.id}: no threshold for profile {profile!r}; add it to the claims file")
        return float(getattr(self.threshold, name))


class Register(Strict):
    """All claims of one paper. `confidence` is that of all verdicts together."""

    paper: Words
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)]
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
    _source: Path | None = PrivateAttr(default=None)

    @property
    def source(self) -> str:
        """The file it was read from, for errors."""
        return str(self._source or self.paper)

    @model_validator(mode="after")
    def _ids_differ(self) -> Register:
        ids = [claim.id for claim in self.claims]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        if repeated:
            raise ValueError(f"claim ids appear twice: {', '.join(repeated)}")
        return self

    @property
    def simultaneous(self) -> float:
        """The confidence of each interval such that all of the file are right together."""
        return stats.simultaneous_confidence(self.confidence, len(self.claims))

    def of(self, notebook: str | None) -> tuple[Claim, ...]:
        """The claims of one notebook, or all."""
        return tuple(claim for claim in self.claims if notebook in (None, claim.notebook))


def load(path: Path) -> Register:
    """The claims of one file. Raises ValueError naming the file and the key of whatever is wrong in it."""
    raw = yaml_files.plain(yaml_files.read(path))
    try:
        register = Register.model_validate(raw)
    except ValidationError as error:
        lines = [f"{_claim(raw, e['loc'])}{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise ValueError("\n".join(f"{path}: {line}" for line in lines)) from error
    register._source = path
    return register


def _claim(raw: Any, location: tuple[int | str, ...]) -> str:
    """`claim ID: ` where the location lies in a claim that has one."""
    if len(location) < 2 or location[0] != "claims" or not isinstance(location[1], int):
        return ""
    claim = raw["claims"][location[1]]
    return f"claim {claim['id']}: " if isinstance(claim, dict) and isinstance(claim.get("id"), str) else ""
