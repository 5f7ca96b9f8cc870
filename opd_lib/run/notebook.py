"""The front of a notebook: its experiment, and outputs that know the verdicts of its claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd_lib import params
from opd_lib.judge import claims, preconditions
from opd_lib.judge.quantities import MODELS
from opd_lib.judge.register import Register
from opd_lib.params import Experiment
from opd_lib.report import Outputs, outputs
from opd_lib.report import parameters as parameter_tables
from opd_lib.report.verdicts import Verdicts
from opd_lib.run import evidence, launch
from opd_lib.run.compare import registers

if TYPE_CHECKING:
    import pandas as pd


def begin(
    name: str,
    profile: str = "tiny",
    overrides: Mapping[str, Any] | str | None = None,
    seeds: Sequence[int] | str | None = None,
    results: Path | str | None = None,
) -> tuple[Experiment, Outputs]:
    """The experiment of a notebook and where its figures, tables and verdicts go; nothing is run yet.

    Says what the notebook's claims presuppose and the records lack. The arguments are those of the cell `parameters`;
    see `params.load`, which raises ValueError for wrong ones; a notebook shows its message alone (`report/refusal`).
    """
    experiment = params.load(name, profile, overrides, seeds, results)
    register = register_of(experiment)
    presupposed = None if register is None else states(experiment, register)
    if presupposed is not None and (lacks := preconditions.warning(presupposed)):
        print(lacks)
    return experiment, Outputs(
        experiment.output,
        judge=cache(partial(verdicts, experiment, register)),
        presupposed=cache(partial(states, experiment, register)),
    )


def parameters(experiment: Experiment, leave_out: Sequence[str] = ()) -> None:
    """Show the parameters that determine the runs: first those in which arms differ, then the rest, in a page folded.

    `leave_out`: parameters that are not shown. Raises ValueError for one that no run has.
    """
    table = experiment.table()
    if unknown := sorted(set(leave_out) - set(table.index)):
        raise ValueError(f"{experiment.name}: no run has a parameter {', '.join(unknown)} to leave out")
    shown = table.drop(list(leave_out))
    outputs.tell(parameter_tables.text(shown), parameter_tables.html(shown))


def verdicts(experiment: Experiment, register: Register | None) -> Verdicts | None:
    """The verdicts of an experiment's claims from its runs and those of its models; None if no file has claims of it.

    Missing runs are trained first.
    """
    if register is None:
        return None
    runs, models = launch.with_models(experiment)
    seen = evidence.of((*runs.records, *models.records), experiment.profile)
    judged = claims.judge(register, seen, notebook=experiment.name, states=states(experiment, register))
    return Verdicts(register=register, judged=judged, profile=experiment.profile)


def judged(experiment: Experiment) -> pd.DataFrame | None:
    """The verdicts of an experiment's claims from the runs that are finished; None if no file has claims of it."""
    register = register_of(experiment)
    if register is None:
        return None
    seen = evidence.around(experiment, [])
    return claims.judge(register, seen, notebook=experiment.name, states=states(experiment, register))


def states(experiment: Experiment, register: Register | None = None) -> pd.DataFrame | None:
    """The preconditions that a notebook's claims rest on, judged on its runs and on those of the notebooks they name.

    For the notebook of the models: all of them. None if its claims file names none. `register`: its claims file, where
    that has been read.
    """
    if register is None and experiment.name == MODELS:
        register = next((each for each in registers(experiment.profile) if each.is_about(MODELS)), None)
    register = register or register_of(experiment)
    if register is None or not register.preconditions:
        return None
    notebook = None if experiment.name == MODELS else experiment.name
    others = {each.notebook for each in register.preconditions_of(notebook)}
    return preconditions.judge(register, evidence.around(experiment, sorted(others)), notebook)


def register_of(experiment: Experiment) -> Register | None:
    """The claims file that has claims of this notebook; None if none has. Raises ValueError if two have."""
    found = [register for register in registers(experiment.profile) if register.of(experiment.name)]
    if len(found) > 1:
        files = ", ".join(register.source for register in found)
        raise ValueError(f"{experiment.name} has claims in {files}; keep those of one notebook in one file")
    return found[0] if found else None
