"""What a claims file says: claims, and the preconditions that they rest on, as predicates on records.

A quantity names what the tiny world has. `elsewhere` says, per profile, what differs: another quantity, where the same
statement is about other checkpoints, test sets, caps or depths; or `not_part` with the reason, where the profile makes
no runs of it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from opd_lib import names
from opd_lib.judge import vocabulary
from opd_lib.judge.quantities import Evidence, NoRecordError, SeedView


class Strict(BaseModel):
    """Frozen, an unknown key is an error, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Paper(Strict):
    """The paper's own evidence: a number where it has one, the words of our table, and where it was read."""

    value: float | None
    text: str
    source: str


STANDS_FOR = {"rehearsal": "paper", "gpu-math": "paper", "tiny-next": "tiny"}
"""Profiles of the same task as another: the papers' at another size, the next tiny world beside the present one."""


def _readable(quantity: str) -> str:
    vocabulary.calls(quantity)
    return quantity


def _is_notebook(name: str) -> str:
    return names.require(name, "notebook")


def _ascending(bounds: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = bounds
    if low is None and high is None:
        raise ValueError("[null, null] bounds nothing; write [low, high], with null for a side that is open")
    if low is not None and high is not None and low >= high:
        raise ValueError(f"[{low:g}, {high:g}] is empty; write the lower bound first")
    return bounds


Quantity = Annotated[str, AfterValidator(_readable)]
Notebook = Annotated[str, AfterValidator(_is_notebook)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,15}$")]
Words = Annotated[str, Field(pattern=r"\S")]
Elsewhere = Literal["smoke", "gpu", "paper", "gpu-math", "rehearsal"]
Range = Annotated[tuple[float | None, float | None], AfterValidator(_ascending)]
"""Between two bounds, neither of which belongs to it; a side without a bound is None."""


class Threshold(Strict):
    """The bound of the quantity at each profile, in the quantity's unit."""

    tiny: float
    smoke: float
    paper: float
    gpu: float


class Ranges(Strict):
    """Where the quantity is to lie at each profile, in its unit."""

    tiny: Range
    smoke: Range
    paper: Range
    gpu: Range


class Difference(Strict):
    """What a statement is at one profile: judged by another quantity, or not a part of it for the reason given."""

    quantity: Quantity | None = None
    not_part: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Difference:
        if (self.quantity is None) == (not self.not_part):
            raise ValueError("say either quantity or not_part, the reason why the profile has none")
        return self


class Statement(Strict):
    """What claims and preconditions have in common. `note`: how it is restated for the tiny world."""

    KIND: ClassVar[str] = "statement"

    id: Name
    statement: Words
    paper: Paper
    notebook: Notebook
    quantity: Quantity
    elsewhere: dict[Elsewhere, Difference] = {}
    note: str

    def at(self, profile: str) -> Difference:
        """What judges it at a profile: what `elsewhere` says of the profile or of the one it stands in for."""
        for name in (profile, STANDS_FOR.get(profile, profile)):
            if name in self.elsewhere:
                return self.elsewhere[name]
        return Difference(quantity=self.quantity)

    def per_seed(self, evidence: Evidence) -> dict[int, float]:
        """seed → the quantity at this profile, for the seeds that have every run it names."""
        values: dict[int, float] = {}
        quantity = self.at(evidence.profile).quantity
        if quantity is None:
            return values
        for seed in evidence.seeds(self.notebook):
            try:
                values[seed] = vocabulary.value_of(quantity, self.view(evidence, seed))
            except NoRecordError:
                continue
            except ValueError as error:
                raise ValueError(f"{self.KIND} {self.id}: {error}") from error
        return values

    def view(self, evidence: Evidence, seed: int) -> SeedView:
        """One seed of the runs that it is about."""
        return SeedView(evidence=evidence, experiment=self.notebook, seed=seed)

    def _at(self, profile: str, bounds: Threshold | Ranges, what: str) -> str:
        """The name of this profile among the bounds."""
        name = STANDS_FOR.get(profile, profile)
        if name not in type(bounds).model_fields:
            raise ValueError(f"{self.KIND} {self.id}: no {what} for profile {profile!r}; add it to the claims file")
        return name


class Claim(Statement):
    """One statement of the paper that runs can contradict.

    `comparison`: the quantity is above the threshold, below it, or `within` it of zero on either side: two runs are the
    same if the interval of their difference lies within the bounds (equivalence). `seeds`: how many it was planned for;
    with fewer it is not decided. `rests_on`: the preconditions without which it asks about something that is not there.
    """

    KIND: ClassVar[str] = "claim"

    figure: Words
    comparison: Literal[">", "<", "within"]
    threshold: Threshold
    statistic: Literal["seeds", "problems"]
    seeds: Annotated[int, Field(ge=2, le=100)]
    rests_on: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _statistic_fits(self) -> Claim:
        others = [difference.quantity for difference in self.elsewhere.values() if difference.quantity]
        if {vocabulary.is_paired(quantity) for quantity in (self.quantity, *others)} != {self.statistic == "problems"}:
            paired = " or ".join(vocabulary.PAIRED)
            raise ValueError(f"statistic: {self.statistic}: a quantity is over problems if and only if it is {paired}")
        return self

    def bound(self, profile: str) -> float:
        """The threshold at a profile, or at the one it stands in for. Raises ValueError for a profile without one."""
        return float(getattr(self.threshold, self._at(profile, self.threshold, "threshold")))

    def asked(self, profile: str) -> str:
        """What is claimed of the quantity, in signs: `> 0.02`, `< 0`, `within ±0.03`."""
        return f"{self.comparison} {'±' if self.comparison == 'within' else ''}{self.bound(profile):g}"

    def bounds(self, profile: str) -> tuple[float, ...]:
        """Where the claimed side ends: at the threshold, or at both sides of zero."""
        bound = self.bound(profile)
        return (-bound, bound) if self.comparison == "within" else (bound,)

    def margin(self, value: float, profile: str) -> float:
        """How far a value of the quantity lies on the claimed side of the threshold; negative on the other side."""
        if self.comparison == "within":
            return self.bound(profile) - abs(value)
        return (value - self.bound(profile)) * (1 if self.comparison == ">" else -1)

    def margins(self, low: float, high: float, profile: str) -> tuple[float, float]:
        """The least and the greatest margin of the values from low to high; nan for bounds that are."""
        least, most = sorted(self.margin(bound, profile) for bound in (low, high))
        return least, self.margin(0.0, profile) if self.comparison == "within" and low <= 0 <= high else most


class Precondition(Statement):
    """What the paper's models and data bring with them, so that its claims are about something. Never a claim.

    The world is calibrated to it, so that it is present is no finding. `mean`: where the mean over seeds is to lie;
    `each_seed`: where every seed is to lie, for example [0, null] for a sign; `sd`: below which the standard deviation
    over seeds is to lie; all in the quantity's unit. `seeds`: for how many it was planned; with fewer it is open.
    """

    KIND: ClassVar[str] = "precondition"

    seeds: Annotated[int, Field(ge=2, le=100)]
    mean: Ranges
    each_seed: Range | None = None
    sd: Annotated[float, Field(gt=0)] | None = None

    def wanted(self, profile: str) -> tuple[float | None, float | None]:
        """Where the mean is to lie at a profile, or at the one it stands in for. Raises ValueError as `Claim.bound`."""
        bounds: tuple[float | None, float | None] = getattr(self.mean, self._at(profile, self.mean, "mean"))
        return bounds
