"""What a run's parameters become: in a branch of a step, and where a method changes a setting between steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opd_lib import methods
from opd_lib.params import dotted
from opd_lib.params.schema import Sampled

if TYPE_CHECKING:
    from opd_lib.engine.setup import Run
    from opd_lib.params.spec import RunSpec


def changed(spec: RunSpec, method: methods.Method, key: str, value: float) -> tuple[RunSpec, Any]:
    """The run with one setting changed, and its method's options. Identity and record stay those of the file.

    Raises ValueError for a key that stays as it is while a run goes on, and for a value that it cannot have.
    """
    params, (section, _, name) = spec.params, key.partition(".")
    if section == "method" and name in params.method:
        value = int(value) if isinstance(params.method[name], int) and value == int(value) else value
        params = params.model_copy(update={"method": params.method | {name: value}})
    elif key == "train.lr":
        params = params.model_copy(update={"train": params.train.model_copy(update={"lr": float(value)})})
    elif key == "source.max_new_tokens" and isinstance(params.source, Sampled):
        longest = getattr(spec.origin.arms[spec.arm].source, "longest", 0)
        if params.source.schedule or not 1 <= value <= longest:
            raise ValueError(f"set: {key}: {value:g}: from 1 to the file's own, {longest}, and without source.schedule")
        params = params.model_copy(update={"source": params.source.model_copy(update={"max_new_tokens": int(value)})})
    else:
        raise ValueError(
            f"set: {key!r} stays as it is while a run goes on; there are source.max_new_tokens (of sampled responses), "
            "train.lr and the method's own options as method.NAME"
        )
    return replace(spec, params=params), dotted.options(method, params, f"set: {key}: {value!r}")


def branches(run: Run) -> Iterator[tuple[float, Run]]:
    """The coefficient and the run of each further part of a step; none where a coefficient is 0.

    Raises ValueError for changes that parameters cannot have, and for those of anything but task, source and method.
    """
    for branch in run.method.branches(run.options) if run.method.branches else ():
        where = f"method {run.method.name}, branch {branch.name}"
        params = dotted.with_changes(run.spec.params, branch.changes, ("task", "source", "method"), where)
        method = methods.load(str(params.method["name"]))
        options = dotted.options(method, params, where)
        if branch.coef:
            spec = replace(run.spec, params=params)
            yield branch.coef, replace(run, spec=spec, method=method, options=options, name=branch.name, branches=())
