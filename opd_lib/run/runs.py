"""What a launch gives: the finished records of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from opd_lib.records import record
from opd_lib.records.record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRuns:
    """The finished records of an experiment, arms first, then seeds."""

    records: tuple[RunRecord, ...]

    def frame(self, table: str) -> pd.DataFrame:
        """A table of all runs as one tidy frame: arm, seed, then the table's columns. Raises ValueError if unknown."""
        if table not in record.TABLES:
            raise ValueError(f"no table {table!r}; choose from {', '.join(record.TABLES)}")
        return record.frame(self.records, table)

    def examples(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """The responses one run kept, with per-token scores. Raises ValueError if there is no such run."""
        for found in self.records:
            if (found.arm, found.seed) == (arm, seed):
                return found.examples()
        present = ", ".join(f"{found.arm}/seed{found.seed}" for found in self.records)
        raise ValueError(f"no run of arm {arm!r} with seed {seed}; there are {present}")
