"""What a run's parameters become where a method changes a setting between steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opd_lib.params import dotted
from opd_lib.params.schema import Sampled

if TYPE_CHECKING:
    from opd_lib.methods import Method
    from opd_lib.params.spec import RunSpec


def changed(spec: RunSpec, method: Method, key: str, value: float) -> tuple[RunSpec, Any]:
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
