"""The vocabulary in which a claim is written, and its reading: one number of one seed from an expression.

A claim's quantity is an expression such as `end('success', 'overlap_k16') - start('success', 'overlap_k16')`. Its
functions are FUNCTIONS: those of `quantities.SeedView`, on training curves and accuracies, and those here, on the other
tables. PAIRED compares two conditions problem by problem; such a claim is judged over problems instead of seeds.

A number in an expression (a cap, a depth) or a name of a test set belongs to a profile: where a profile does not have
it, the quantity is nan, undefined.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import simpleeval
from scipy.stats import spearmanr

from opd_lib.judge import expressions, moments, outcomes, prognosis
from opd_lib.judge.paired import paired_accuracy, paired_gain
from opd_lib.judge.quantities import FEWEST_POINTS, MODELS, EmptyTableError, SeedView

REWARDS = ("reward_mean", "correct", "length")  # columns of a reward probe


def auroc(view: SeedView, arm: str) -> float:
    """How well the mean token reward tells right responses from wrong ones, from 0 to 1 (probe of rewards).

    nan if all are right or all are wrong. Source: §6.2 and Fig 14 of arXiv 2604.13016.
    """
    rows = view.table("probe", arm, *REWARDS)
    return outcomes.area(rows["reward_mean"], rows["correct"] > 0)


def auroc_within_length(view: SeedView, arm: str) -> float:
    """`auroc` among responses of like length (thirds), so that length alone cannot be what tells (probe of rewards)."""
    rows = view.table("probe", arm, *REWARDS)
    return outcomes.area_within(rows["reward_mean"], rows["correct"] > 0, outcomes.thirds(rows["length"]))


def probe(view: SeedView, arm: str, column: str) -> float:
    """The mean over the rows of a measurement that trains nothing, in the column's unit (probe)."""
    return float(view.table("probe", arm, column)[column].mean(skipna=False))


def probe_where(view: SeedView, arm: str, column: str, *conditions: str | float) -> float:
    """`probe` over the rows in which columns have these values: key, value, key, value … (probe).

    nan if there is no such row. Raises ValueError for a key without a value.
    """
    if not conditions or len(conditions) % 2:
        raise ValueError(f"probe_where({arm!r}, {column!r}, …): conditions are pairs of a column and its value")
    keys, values = [str(key) for key in conditions[::2]], conditions[1::2]
    rows = view.table("probe", arm, column, *keys)
    for key, value in zip(keys, values, strict=True):
        rows = rows[rows[key] == value]
    return float(rows[column].mean(skipna=False)) if len(rows) else math.nan


def onset_trend(view: SeedView, arm: str, column: str) -> float:
    """Spearman's correlation of training step and onset (the position where a rise is first seen), −1 to 1 (depth).

    Negative: the rise moves from the back of the responses to the front. nan with fewer than three onsets, or none
    that differ. Source: §6.1 and Figs 13, 23 of arXiv 2604.13016; the rule for an onset is `outcomes.onset`'s.
    """
    found = outcomes.onset(view.table("depth", arm, "step", "depth", "n_tokens", column), column).dropna()
    if len(found) < FEWEST_POINTS or found["onset"].nunique() < 2:
        return math.nan
    return float(spearmanr(found["step"], found["onset"]).statistic)


def cap_gain(view: SeedView, arm: str, cap: float) -> float:
    """Accuracy gained from the first to the last evaluation if no response may be longer than `cap` tokens (caps).

    A share; nan where that cap was not looked at.
    """
    found = outcomes.caps(view.table("caps", arm, "step", "test_set", "cap", "accuracy"))
    accuracy = found[found["cap"] == cap].set_index("when")["accuracy"]
    return float(accuracy.get("after", math.nan) - accuracy.get("before", math.nan))


def rank_correlation(view: SeedView, feature: str, outcome: str) -> float:
    """Spearman's correlation, over all arms, of what is known before training with what came of it, −1 to 1.

    `feature` is one of prognosis.FEATURES (first training step, or teacher_gap), `outcome` of prognosis.OUTCOMES
    (steps, evals, the teachers' evals). Arms without the outcome are left out. Source: §3.1, §5; hypothesis H3.
    """
    for name, known in ((feature, prognosis.FEATURES), (outcome, prognosis.OUTCOMES)):
        if name not in known:
            raise ValueError(f"rank_correlation: {name!r} is unknown; choose from {', '.join(known)}")
    teachers = view.evidence.teachers.get(view.experiment, {})
    if not teachers and (feature == prognosis.GAP or outcome == "recovery"):
        raise ValueError(f"evidence: it names no teachers of {view.experiment}, which {feature}, {outcome} need")
    for name in sorted(set(teachers.values())):
        view.checkpoint(name)  # without it there is nothing to compare with: NoRecordError
    frame = view.evidence.once(("features", view.experiment, view.seed), lambda: _features(view, teachers))
    return float(prognosis.correlations(frame, outcome, features=(feature,))["correlation"].iloc[0])


def _features(view: SeedView, teachers: Mapping[str, str]) -> pd.DataFrame:
    """`prognosis.features` of all arms of this seed."""
    steps = view.all_arms("steps", "step", *prognosis.START)
    evals = view.all_arms("evals", "step", "accuracy")
    models = view.evidence.experiments.get(MODELS, {}).get("evals", evals.head(0))
    return prognosis.features(steps, evals, models[models["seed"] == view.seed], teachers)


PAIRED: Mapping[str, Callable[..., pd.DataFrame]] = {"paired_accuracy": paired_accuracy, "paired_gain": paired_gain}


def _difference(pairs: Callable[..., pd.DataFrame], view: SeedView, *arms: str) -> float:
    found = pairs(view, *arms)
    return float((found["first"] - found["second"]).mean())


FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "start": SeedView.start,
    "end": SeedView.end,
    "minimum": SeedView.minimum,
    "maximum": SeedView.maximum,
    "mean": SeedView.mean,
    "slope": SeedView.slope,
    "roughness": SeedView.roughness,
    "correlation": SeedView.correlation,
    "accuracy_start": SeedView.accuracy_start,
    "accuracy_end": SeedView.accuracy_end,
    "accuracy_max_gap": SeedView.accuracy_max_gap,
    "accuracy_mean": moments.accuracy_mean,
    "accuracy_max": moments.accuracy_max,
    "crossing": moments.crossing,
    "tokens_to": moments.tokens_to,
    "checkpoint": SeedView.checkpoint,
    "weakest": SeedView.weakest,
    "recovery": SeedView.recovery,
    "auroc": auroc,
    "auroc_within_length": auroc_within_length,
    "probe": probe,
    "probe_where": probe_where,
    "onset_trend": onset_trend,
    "cap_gain": cap_gain,
    "rank_correlation": rank_correlation,
    **{name: partial(_difference, pairs) for name, pairs in PAIRED.items()},
}
"""name → the function, the seed's view first."""


def _least(*values: float) -> float:
    return float(np.min(values))  # unlike min, nan if any is


def _greatest(*values: float) -> float:
    return float(np.max(values))


ARITHMETIC: Mapping[str, Callable[..., float]] = {"abs": abs, "min": _least, "max": _greatest}


def calls(quantity: str) -> tuple[tuple[str, tuple[str | float, ...]], ...]:
    """Every function call in a quantity with its constant arguments, outermost first.

    Raises ValueError when the quantity cannot be read, names an unknown function or gives one other arguments than it
    takes.
    """
    nodes = [node for node in ast.walk(_read(quantity)) if isinstance(node, ast.Call)]
    found = tuple((ast.unparse(node.func), _constants(node)) for node in nodes)
    for node, (name, constants) in zip(nodes, found, strict=True):
        try:
            if name in FUNCTIONS:
                if len(constants) < len(node.args):
                    raise ValueError(f"{name}: its arguments are texts and numbers")
                expressions.require_arguments(name, PAIRED.get(name, FUNCTIONS[name]), constants)
            elif not node.args or (name == "abs" and len(node.args) > 1):
                raise ValueError(f"{name}: {len(node.args)} arguments; give it {'one' if name == 'abs' else 'some'}")
            elif any(isinstance(constant, str) for constant in constants):
                raise ValueError(f"{name}: it takes numbers, no texts")
        except ValueError as error:
            raise ValueError(f"quantity {quantity!r} cannot be evaluated: {error}") from error
    return found


def is_paired(quantity: str) -> bool:
    """Whether a quantity is one comparison problem by problem. Raises ValueError if it is a part of the quantity."""
    if not any(name in PAIRED for name, _ in calls(quantity)):
        return False
    body = _read(quantity).body
    if not isinstance(body, ast.Call) or ast.unparse(body.func) not in PAIRED:
        raise ValueError(f"quantity {quantity!r}: {' and '.join(PAIRED)} stand alone")
    return True


def value_of(quantity: str, view: SeedView) -> float:
    """The number that this quantity is for one seed; nan where it divides by zero or a run left that table empty.

    Raises ValueError when the expression is wrong and NoRecordError when a run that it names is missing.
    """
    try:
        return float(_evaluated(quantity, view, FUNCTIONS))
    except (ZeroDivisionError, EmptyTableError):
        return math.nan


def pairs_of(quantity: str, view: SeedView) -> pd.DataFrame:
    """The two conditions of a paired quantity for one seed, columns first and second, one row per problem."""
    frame: pd.DataFrame = _evaluated(quantity, view, PAIRED)
    return frame


def _evaluated(quantity: str, view: SeedView, known: Mapping[str, Callable[..., Any]]) -> Any:
    functions: dict[str, Callable[..., Any]] = dict(ARITHMETIC)
    functions |= {name: partial(function, view) for name, function in known.items()}
    try:
        return expressions.evaluated(_read(quantity), functions)
    except (simpleeval.InvalidExpression, TypeError, OverflowError) as error:
        raise ValueError(f"quantity {quantity!r} cannot be evaluated: {error}") from error


def _read(quantity: str) -> ast.Expression:
    return expressions.parse(quantity, (*FUNCTIONS, *ARITHMETIC))


def _constants(call: ast.Call) -> tuple[str | float, ...]:
    return tuple(a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str | int | float))
