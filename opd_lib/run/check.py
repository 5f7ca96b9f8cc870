"""`opd check`: two checkpoints measured before training, beside the runs seen here, and what to expect of training.

Any two of one tokenizer are measured, whatever their size or architecture, if the memory holds them (`beforehand`).
Seen are the runs of notebook 11 that were trained as its parameters say (same task, source and method): only their
first step and their outcome compare with what is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from opd_lib import params, paths
from opd_lib.judge import prognosis
from opd_lib.judge.prognosis import Prognosis
from opd_lib.names import RUN_PREFIX, run_reference
from opd_lib.params import Experiment
from opd_lib.params.mistakes import read, validate
from opd_lib.params.schema import FILE_KEYS, RunParams
from opd_lib.params.schema.base import checkpoint
from opd_lib.records import record
from opd_lib.records.record import RunRecord
from opd_lib.report import tables
from opd_lib.run import beforehand, plan

if TYPE_CHECKING:
    from opd_lib.engine.sources import Model

NOTEBOOK = "11_what_predicts_success"
SAME = ("task", "source", "method")
"""The sections of params in which a run must agree with notebook 11 to be compared with."""
OUTCOME = ["arm", "distance", *prognosis.PREDICTORS, "start", *prognosis.OUTCOMES]
ACCURACY = {
    "start": ("share", "accuracy of the student, mean of the test sets"),
    "teacher": ("share", "accuracy of the teacher, mean of the test sets"),
    prognosis.GAP: ("share", "accuracy of the teacher minus that of the student"),
}
"""Quantity → (unit, meaning), as in maths/diagnostics.UNITS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two checkpoints, each a folder, a hub name or run:NOTEBOOK/ARM, and what such a `run:` means.

    `seed` decides the prompts and the samples too.
    """

    student: str
    teacher: str
    profile: str = "tiny"
    seed: int = 0
    results: Path | None = None
    root: Path = paths.PARAMS


def check(pair: Pair, n_prompts: int, say: Callable[[str], object] | None = None) -> str:
    """What the command prints: measurements beside the runs seen, the runs most like them, a prognosis.

    Before anything is loaded `say` is given what will be read, asked and needed, a line each. Raises ValueError for a
    checkpoint that is not there, two vocabularies, too little memory, or what the gates of a run refuse.
    """
    experiment = params.load(NOTEBOOK, pair.profile, results=pair.results, root=pair.root)
    settings = beforehand.here(common(experiment.source))
    names = (pair.student, pair.teacher)
    places = {name: locate(name, pair) for name in names}
    planned = beforehand.of_check(settings, places, names, n_prompts, pair.seed)
    if say is not None:
        for line in planned.lines():
            say(line)
    planned.require()
    measured = features(settings, [places[name] for name in names], n_prompts, pair.seed)
    fitted = {arm: (own.student, own.teacher) for arm, own in experiment.arms.items()}
    return text(pair, n_prompts, settings, measured, runs_seen(experiment, settings), fitted)


def common(source: Path) -> RunParams:
    """What a params file says of a run before any arm changes it."""
    raw = read(source)
    return validate({key: value for key, value in raw.items() if key not in FILE_KEYS}, raw, "", source)


def locate(name: str, pair: Pair) -> str:
    """Where a checkpoint is loaded from. Raises ValueError for none, and for a `run:` whose weights are not there."""
    if not checkpoint(name).startswith(RUN_PREFIX):
        return name
    made = run_reference(name)
    experiment = params.load(made.notebook, pair.profile, results=pair.results, root=pair.root)
    spec = experiment.spec(made.arm, pair.seed if made.seed is None else made.seed)
    weights = spec.weights
    if weights is None:
        options = f" --profile {pair.profile}" + (f" --results {pair.results}" if pair.results else "")
        raise ValueError(
            f"{name}: no weights in {spec.model_folder} (few are committed); `opd run {spec.experiment} "
            f"{spec.arm} {spec.seed}{options}` trains this run"
        )
    return str(weights)


def features(settings: RunParams, places: Sequence[str], n_prompts: int, seed: int) -> dict[str, float]:
    """The measurements of the checkpoints in two places, student first; one that is both is loaded once."""
    from opd_lib.engine import pair_features

    found = loaded(settings, dict.fromkeys(places))
    return pair_features.features(settings, found[0], found[-1], n_prompts, seed)


def loaded(settings: RunParams, places: Iterable[str]) -> list[Model]:
    """The checkpoints in these places, in float32, on the settings' device, which must be there."""
    from transformers.utils import logging

    from opd_lib.engine.model import models

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return [models.load(place, settings.machine.device) for place in places]


def runs_seen(experiment: Experiment, settings: RunParams) -> pd.DataFrame:
    """`prognosis.features` of the finished runs that compare; empty if there are none."""
    arms = [
        arm for arm, own in experiment.arms.items() if all(getattr(own, key) == getattr(settings, key) for key in SAME)
    ]
    specs = [experiment.spec(arm, seed) for arm in arms for seed in experiment.seeds]
    runs: list[RunRecord] = []
    teachers: dict[str, RunRecord] = {}
    for spec in specs:
        run = plan.exact(spec)
        teacher = plan.exact(spec.parents["teacher"]) if "teacher" in spec.parents else None
        if run is not None and teacher is not None:
            runs.append(run.renamed(*spec.shown_as))
            teachers[teacher.name] = teacher
    if not runs:
        return pd.DataFrame()
    present = {run.arm for run in runs}
    names = {arm: name for arm, name in experiment.teachers.items() if arm in present}
    evals = record.frame(teachers.values(), "evals")
    return prognosis.features(record.frame(runs, "steps"), record.frame(runs, "evals"), evals, names)


def text(
    pair: Pair,
    n_prompts: int,
    settings: RunParams,
    measured: Mapping[str, float],
    seen: pd.DataFrame,
    fitted: Mapping[str, tuple[object, object]],
) -> str:
    """The whole answer as plain text. `fitted`: arm → its student and teacher."""
    task, source = settings.task, settings.source
    assert source.kind == "student"
    head = (
        f"student  {pair.student}\nteacher  {pair.teacher}\n"
        f"measured with seed {pair.seed} on {n_prompts} prompts x {source.per_prompt} responses of the "
        f"student, at most {source.max_new_tokens} tokens; accuracy on {', '.join(task.test_sets)}"
    )
    parts = [head, tables.show(beside(measured, seen))]
    if math.isnan(measured["start"]):
        parts.append(
            "The vocabulary of these checkpoints is not the tiny world's. They were asked its questions, as text; what "
            "stands beside them is small models of one task. No accuracy was measured, and there is no prognosis: it "
            "is given only for checkpoints of the world it was fitted in."
        )
        return "\n\n".join(parts)
    if seen.empty:
        parts.append(
            f"No runs to compare with: no finished record of {NOTEBOOK} with the parameters of profile {pair.profile}."
        )
        return "\n\n".join(parts)
    n_arms, seeds = seen["arm"].nunique(), seen["seed"].nunique()
    parts.append(
        f"lowest, median, highest: the {n_arms} arms of {NOTEBOOK} with this task, source and method "
        f"(means over {seeds} seeds)"
    )
    similar = prognosis.nearest(seen, measured)[OUTCOME]
    parts.append(f"The arms most like it (distance in standard deviations)\n\n{tables.show(similar)}")
    if itself := [arm for arm in seen["arm"].unique() if fitted.get(arm) == (pair.student, pair.teacher)]:
        parts.append(f"Among these arms is this pair itself: {', '.join(itself)}.")
    parts.append(outlook(prognosis.predict(seen, measured), settings, measured["start"]))
    return "\n\n".join(parts)


def beside(measured: Mapping[str, float], seen: pd.DataFrame) -> pd.DataFrame:
    """One row per measurement: its value, and the lowest, median and highest of the arms seen."""
    from opd_lib.maths.diagnostics import UNITS

    meanings = ACCURACY | {name: UNITS[name.removesuffix("_k16")] for name in prognosis.START}
    spread = pd.DataFrame(index=list(meanings)) if seen.empty else prognosis.by_arm(seen)[list(meanings)].T
    rows = []
    for name in (*prognosis.START, *ACCURACY):
        unit, meaning = meanings[name]
        arms = spread.loc[name]
        row = {"quantity": name, "here": measured[name]}
        row |= {} if seen.empty else {"lowest": arms.min(), "median": arms.median(), "highest": arms.max()}
        rows.append(row | {"unit": unit, "meaning": meaning})
    return pd.DataFrame(rows)


def outlook(found: Prognosis, settings: RunParams, start: float) -> str:
    """The prognosis of a student that starts at this accuracy, or why there is none."""
    errors = (
        f"Leave-one-out error: {tables.number(found.error)} with {', '.join(prognosis.PREDICTORS)}; "
        f"{tables.number(found.error_of_mean)} with the mean gain of the others ({found.n_arms} arms)."
    )
    if math.isnan(found.error):
        return f"No prognosis: {found.n_arms} arms are too few pairs of models to leave one out and fit to the others."
    if not found.is_of_use:
        return (
            "No prognosis: on these arms the measurements predict the gain of a pair left out no better than the "
            f"mean does.\n{errors}"
        )
    is_cut = math.isclose(found.low, -start) or math.isclose(found.high, 1.0 - start)
    cut = "The interval is cut where accuracy would be below 0 or above 1.\n" if is_cut else ""
    beyond = f"Extrapolated: beyond the arms seen in {', '.join(found.outside)}.\n" if found.outside else ""
    return (
        f"Prognosis for {settings.train.steps} steps with the settings of {NOTEBOOK}: accuracy changes by "
        f"{tables.number(found.gain)}, with 95 % probability by {tables.number(found.low)} to "
        f"{tables.number(found.high)}.\n{cut}{beyond}{errors}\n"
        "Fitted in the tiny world, to which both checkpoints belong by their vocabulary. It says nothing about other "
        "models."
    )
