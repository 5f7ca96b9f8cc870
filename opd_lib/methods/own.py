"""An objective of your own, given as text: one Python function `value(scores, params)`, as a notebook cell defines it.

    value(scores, params) -> Tensor (N,)      nats per token, differentiable

`scores` (opd_lib/types.TokenScores) has at every position the student's and the teacher's `k` most likely tokens with
both models' log-probabilities: `scores.candidates`. `params` has `k` and `options`, numbers of your own by name.

The text is all that a run knows: it trains in a process of its own, so imports stand inside the function. The text is
a parameter like any other: it stands in the run's record, and a changed text is another run. It is executed: train on
nobody's text whom you would not let run code here.

A token's value must depend on that token's scores alone: a batch is scored a few tokens at a time, and a mean over
those at hand is not one over the batch. What has no paper and is worth keeping becomes a file of this folder.
Older texts define `loss(scores, params) -> Loss`, a sum over the tokens with their number; they are read as well.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from opd_lib.methods._own_guards import (
    FUNCTION,
    KEY,
    OLDER,
    as_values,
    require_alone,
    require_gradients,
    require_values,
)
from opd_lib.types import Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher"})
MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, RuntimeError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip
"""What goes wrong in a function that somebody has just written."""


def _finite(options: object) -> object:
    for name, value in options.items() if isinstance(options, dict) else ():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}; use a finite number")
    return options


class Params(BaseModel):
    """The objective's text and what it may read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    source: str = Field(description="Python that defines value(scores, params)")
    k: Annotated[int, Field(ge=1, le=10**6, description="length of both models' lists of most likely tokens")]
    options: Annotated[dict[str, float | int | bool | str], BeforeValidator(_finite)] = Field(
        description="numbers of your own: params.options['name']"
    )


def method(function: Callable[[TokenScores, Params], Any], k: int, **options: float | bool | str) -> dict[str, Any]:
    """The section `method` of a params file for a function as a notebook cell has defined it.

    Raises ValueError if the function is not called `value` (older ones: `loss`) or its text is not to be had.
    """
    if function.__name__ not in (FUNCTION, OLDER):
        raise ValueError(f"{function.__name__}: the function of an objective is called {FUNCTION}; rename it")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise ValueError(
            f"{function.__name__}: its text is not to be had ({error}); define it in a cell or a file"
        ) from None
    return {"name": "own", "source": source.rstrip() + "\n", "k": k, "options": options}


def reads(params: Params) -> Reads:
    """Both lists, each token's log-probability as it is: whatever a function may read, its gradient is exact."""
    return Reads(k=params.k, lists=frozenset({"student", "teacher"}))


def value(scores: TokenScores, params: Params) -> Tensor:
    """What the text makes of the scores (N, nats).

    Raises ValueError for a name that the text does not define, for a result that is no value per token, and for one
    that is another, or has another gradient, in half of the batch.
    """
    import torch

    n = len(scores.token_N)
    found_N = require_values(evaluated(scores, params), n)
    halves = [trial(scores.part(rows), params) for rows in (slice(n // 2), slice(n // 2, n))]
    whole_X, halves_X = found_N.detach(), torch.cat([values_N for values_N, _ in halves])
    if function(params.source).__name__ == OLDER:
        whole_X, halves_X = whole_X.sum(), halves_X.sum()
    require_alone(whole_X, halves_X, float(halves_X.abs().sum()))
    if found_N.requires_grad:
        require_gradients(gradients(found_N.sum(), scores), [parts for _, parts in halves])
    return found_N


def trial(scores: TokenScores, params: Params) -> tuple[Tensor, list[Tensor]]:
    """The values of constants like these scores, and their sum's gradient at the student's log-probabilities."""
    import torch

    own_N, lists = scores.student_logp_N.detach().requires_grad_(), scores.candidates
    if lists is not None:
        lists = replace(lists, student_logp_NC=lists.student_logp_NC.detach().requires_grad_())
    scores = replace(scores, student_logp_N=own_N, candidates=lists)
    with torch.enable_grad():
        found = evaluated(scores, params)
    with torch.no_grad():  # a few tokens may have nothing to train with
        require_values(found, len(own_N))
    with torch.enable_grad():
        value_N = as_values(found, len(own_N))
        return value_N.detach(), gradients(value_N.sum(), scores)


def gradients(total: Tensor, scores: TokenScores) -> list[Tensor]:
    """Those of a loss at the student's log-probabilities, of the tokens (N) and of the lists (N, C)."""
    import torch

    at = [scores.student_logp_N] + ([] if scores.candidates is None else [scores.candidates.student_logp_NC])
    if not total.requires_grad:
        return [torch.zeros_like(tensor) for tensor in at]
    return list(torch.autograd.grad(total, at, retain_graph=True, materialize_grads=True))


def evaluated(scores: TokenScores, params: Params) -> object:
    """What the function returns. Raises ValueError for MISTAKES in it, but for a lack of memory."""
    import torch

    own = function(params.source)
    try:
        return own(scores, params)
    except torch.OutOfMemoryError:
        raise
    except MISTAKES as error:
        raise ValueError(
            f"{KEY}: {type(error).__name__}: {error}; a run knows the function's text alone: import inside it, and "
            "read what opd_lib/types.TokenScores and method.options have"
        ) from error


def check_served(params: Params) -> None:
    """Refuse: a server says of the teacher what is asked for, and what a text reads is not known. Raises ValueError."""
    raise ValueError(
        "method.name: own: a served teacher scores the sampled tokens and its own lists only, and the objective reads "
        "the student's; use machine.teacher_url: null"
    )


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse a text that is no Python or defines no function `value(scores, params)`, and lists that cannot be.

    Raises ValueError naming key, reason and remedy.
    """
    if not has_teacher:
        raise ValueError("teacher: null: distillation compares with a teacher; name one")
    if params.k > vocabulary:
        raise ValueError(f"method.k: {params.k}: the vocabulary has {vocabulary} tokens; use k ≤ {vocabulary}")
    try:
        body = ast.parse(params.source).body
        compile(params.source, KEY, "exec")
    except SyntaxError as error:
        line = params.source.splitlines()[error.lineno - 1] if error.lineno else ""
        raise ValueError(f"{KEY}, line {error.lineno}: {error.msg}: {line.strip()!r}") from None
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    own = functions.get(FUNCTION) or functions.get(OLDER)
    if own is None:
        raise ValueError(f"{KEY}: defines no function {FUNCTION}; write def {FUNCTION}(scores, params): …")
    if len(own.args.args) != 2:
        raise ValueError(f"{KEY}: {own.name} takes {len(own.args.args)} arguments; take (scores, params)")


@functools.lru_cache(maxsize=8)
def function(source: str) -> Callable[[TokenScores, Params], object]:
    """The function that a text defines. Raises ValueError if the text cannot be executed."""
    namespace: dict[str, Any] = {"__name__": "own"}
    try:
        exec(compile(source, KEY, "exec"), namespace)
        name = FUNCTION if FUNCTION in namespace else OLDER
        found: Callable[[TokenScores, Params], object] = namespace[name]
    except MISTAKES as error:
        raise ValueError(f"{KEY}: {type(error).__name__}: {error}") from error
    return found
