"""The front of a notebook: its experiment, and outputs that know the verdicts of its claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from opd_lib import params
from opd_lib.judge import claims
from opd_lib.params import Experiment
from opd_lib.report import Outputs
from opd_lib.report.verdicts import Verdicts
from opd_lib.run import evidence, launch
from opd_lib.run.compare import registers


def begin(
    name: str,
    profile: str = "tiny",
    overrides: Mapping[str, Any] | str | None = None,
    seeds: Sequence[int] | str | None = None,
    results: Path | str | None = None,
) -> tuple[Experiment, Outputs]:
    """The experiment of a notebook and where its figures, tables and verdicts go; nothing is run yet.

    The arguments are those of the cell `parameters`; see `params.load`, which raises ValueError for wrong ones.
    """
    experiment = params.load(name, profile, overrides, seeds, results)
    return experiment, Outputs(experiment.output, judge=cache(partial(verdicts, experiment)))


def verdicts(experiment: Experiment) -> Verdicts | None:
    """The verdicts of an experiment's claims from its runs and those of its models; None if it has no claims.

    Missing runs are trained first. Raises ValueError if two claims files have claims of it.
    """
    found = [register for register in registers() if register.of(experiment.name)]
    if len(found) > 1:
        files = ", ".join(register.source for register in found)
        raise ValueError(f"{experiment.name} has claims in {files}; keep those of one notebook in one file")
    if not found:
        return None
    runs, models = launch.with_models(experiment)
    seen = evidence.of((*runs.records, *models.records), experiment.profile)
    judged = claims.judge(found[0], seen, notebook=experiment.name)
    return Verdicts(register=found[0], judged=judged, profile=experiment.profile)
