"""What a site is made of: the committed results, or those of a folder of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from opd_lib import paths
from opd_lib.judge import register
from opd_lib.judge.register import Claim, Register
from opd_lib.records import files, reading
from opd_lib.site import notebooks
from opd_lib.site.notebooks import COMMITTED, PROFILE, Notebook

CLAIMS = "rethinking_opd"
NUMBERS = ("estimate", "low", "high", "detectable")
COLUMNS = ("id", *NUMBERS, "threshold", "verdict", "precondition")
FILE = "claims.csv"
REMEDY = "`opd claims` writes it again from the records"


@dataclass(frozen=True)
class Source:
    """Executed notebooks, the verdicts of their claims, and where their records, figures and tables lie.

    `root` is RESULTS/PROFILE. `judged`: the verdicts as `claims.csv` has them, read from there where it is None.
    `notice`: a line at the top of every page, empty for the committed results.
    """

    notebooks: tuple[Notebook, ...]
    root: Path = COMMITTED
    profile: str = PROFILE
    judged: pd.DataFrame | None = None
    notice: str = ""

    @property
    def is_committed(self) -> bool:
        """Whether it is what README tells of."""
        return self.root == COMMITTED

    @cached_property
    def register(self) -> Register:
        """The claims file in force at its profile."""
        return register.load(self.claims_file)

    @property
    def claims_file(self) -> Path:
        """Where that is."""
        return paths.claims_file(CLAIMS, self.profile)

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """The claims of its notebooks."""
        shown = {notebook.name for notebook in self.notebooks}
        return tuple(claim for claim in self.register.claims if claim.notebook in shown)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """The row of each of its claims, by id. Raises ValueError if there is none, or half a table."""
        asked = [claim.id for claim in self.claims]
        if self.judged is not None:
            return self.judged.set_index("id").loc[asked]
        return require(self.register, self.root / FILE).set_index("id").loc[asked]

    def arms_of(self, notebook: str) -> tuple[str, ...]:
        """The arms of which records lie under a notebook."""
        return tuple(sorted({run.parent.name for run in files.of_notebook(self.root / notebook)}))

    @cached_property
    def arms(self) -> frozenset[str]:
        """NOTEBOOK/ARM of all records that are shown."""
        return frozenset(f"{each.name}/{arm}" for each in self.notebooks for arm in self.arms_of(each.name))


def committed(folder: Path = paths.NOTEBOOKS) -> Source:
    """What is committed."""
    return Source(notebooks=notebooks.read(folder))


def read(path: Path = COMMITTED / FILE) -> pd.DataFrame:
    """The verdicts of a file. Raises ValueError if there are none, or half a table."""
    if not path.exists():
        raise ValueError(f"{path}: not there; `opd claims` writes it from the records")
    empty = {name: [""] for name in NUMBERS}
    found = reading.frame(path, COLUMNS, REMEDY, keep_default_na=False, na_values=empty)
    return reading.numbers(path, found, NUMBERS, REMEDY)


def require(register: Register, path: Path = COMMITTED / FILE) -> pd.DataFrame:
    """The verdicts of a file (`read`). Raises ValueError unless they are those of these claims, each once."""
    found = read(path)
    judged, asked = list(found["id"]), [claim.id for claim in register.claims]
    if sorted(judged) != sorted(asked):
        odd = sorted({*judged, *asked} - ({*judged} & {*asked})) or ["an id that stands there twice"]
        raise ValueError(f"{path}: its rows are not those of the claims file ({', '.join(odd)}); {REMEDY}")
    return found
