"""An objective of your own, given as text: one Python function `loss(scores, params)`, as a notebook cell defines it.

    loss(scores, params) -> Loss      the SUM over the tokens of a value per token, and how many tokens there are

`scores` (opd_lib/types.TokenScores) has at every position the student's and the teacher's `k` most likely tokens with
both models' log-probabilities: `scores.candidates`. `params` has `k` and `options`, numbers of your own by name.

The text is all that a run knows: it trains in a process of its own, so imports stand inside the function. The text is
a parameter like any other: it stands in the run's record, and a changed text is another run. It is executed: train on
nobody's text whom you would not let run code here.

A token's value must depend on that token's scores alone: a batch is scored a few tokens at a time, and a mean over
those at hand is not one over the batch. What has no paper and is worth keeping becomes a file of this folder.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from opd_lib.types import Loss, Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher"})
FUNCTION = "loss"
KEY = "method.source"
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
    source: str = Field(description="Python that defines loss(scores, params)")
    k: Annotated[int, Field(ge=1, le=10**6, description="length of both models' lists of most likely tokens")]
    options: Annotated[dict[str, float | int | bool | str], BeforeValidator(_finite)] = Field(
        description="numbers of your own: params.options['name']"
    )


def method(function: Callable[[TokenScores, Params], Loss], k: int, **options: float | bool | str) -> dict[str, Any]:
    """The section `method` of a params file for a function as a notebook cell has defined it.

    Raises ValueError if the function is not called `loss` or its text is not to be had.
    """
    if function.__name__ != FUNCTION:
        raise ValueError(f"{function.__name__}: the function of an objective is called {FUNCTION}; rename it")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise ValueError(f"{FUNCTION}: its text is not to be had ({error}); define it in a cell or a file") from None
    return {"name": "own", "source": source.rstrip() + "\n", "k": k, "options": options}


def reads(params: Params) -> Reads:
    """Both lists, each token's log-probability as it is: whatever a function may read, its gradient is exact."""
    return Reads(k=params.k, lists=frozenset({"student", "teacher"}))


def loss(scores: TokenScores, params: Params) -> Loss:
    """What the text makes of the scores.

    Raises ValueError for a name that the text does not define, for a result that is no loss of these tokens, and for
    one that is not the sum of what its halves have, or whose gradient is not theirs.
    """
    n = len(scores.token_N)
    found = require_loss(evaluated(scores, params), n)
    halves = [trial(part(scores, rows), params) for rows in (slice(n // 2), slice(n // 2, n))]
    require_sum(found.total.detach(), [total for total, _ in halves])
    if found.total.requires_grad:
        require_gradients(gradients(found.total, scores), [parts for _, parts in halves])
    return found


def trial(scores: TokenScores, params: Params) -> tuple[Tensor, list[Tensor]]:
    """The loss of constants like these scores, and its gradient at each of the student's log-probabilities."""
    import torch

    own_N, lists = scores.student_logp_N.detach().requires_grad_(), scores.candidates
    if lists is not None:
        lists = replace(lists, student_logp_NC=lists.student_logp_NC.detach().requires_grad_())
    scores = replace(scores, student_logp_N=own_N, candidates=lists)
    with torch.enable_grad():
        found = evaluated(scores, params)
    with torch.no_grad():  # a few tokens may have nothing to train with
        total = require_loss(found, len(own_N)).total
    return total.detach(), gradients(total, scores)


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

    defined = function(params.source)
    try:
        return defined(scores, params)
    except torch.OutOfMemoryError:
        raise
    except MISTAKES as error:
        raise ValueError(
            f"{KEY}: {type(error).__name__}: {error}; a run knows the function's text alone: import inside it, and "
            "read what opd_lib/types.TokenScores and method.options have"
        ) from error


def require_loss(found: object, n_tokens: int) -> Loss:
    """What was found, if it is a sum over this many tokens. Raises ValueError otherwise."""
    import torch

    if not isinstance(found, Loss) or not isinstance(found.total, torch.Tensor) or found.total.shape != ():
        raise ValueError(f"{KEY}: {FUNCTION} returned {found!r}; write Loss(total=A SUM, n_tokens=len(scores.token_N))")
    if found.n_tokens != n_tokens:
        raise ValueError(f"{KEY}: {FUNCTION} counts {found.n_tokens} tokens of {n_tokens}; count every one, also at 0")
    if torch.is_grad_enabled() and not found.total.requires_grad:
        raise ValueError(f"{KEY}: {FUNCTION} does not depend on the student's log-probabilities: nothing to train with")
    return found


def require_sum(whole: Tensor, halves: Sequence[Tensor]) -> None:
    """Raise ValueError unless the tokens' values add up: a batch is scored in parts, whose sums are added."""
    import torch

    size = float(halves[0].abs() + halves[1].abs())  # what rounding goes with, also where the halves cancel
    allowed = 1e-4 + (1e-3 * size if math.isfinite(size) else 0.0)
    if not torch.isclose(whole, halves[0] + halves[1], rtol=0.0, atol=allowed, equal_nan=True):
        raise ValueError(
            f"{KEY}: {FUNCTION} is {float(whole):.6g} of a batch and {float(halves[0] + halves[1]):.6g} of its two "
            "halves; a token's value must depend on that token alone: take no mean or maximum over tokens, return a sum"
        )


def require_gradients(whole: Sequence[Tensor], halves: Sequence[Sequence[Tensor]]) -> None:
    """Raise ValueError unless each token has the gradient it has in half of the batch.

    Sums may add up where gradients do not: that of values less their mean is 0 in a batch and in its halves.
    """
    import torch

    for among_all, *parts in zip(whole, *halves, strict=True):
        apart = torch.cat(parts)
        allowed = 1e-3 * float(among_all.abs().max()) if len(among_all) else 0.0
        allowed = allowed if math.isfinite(allowed) else 0.0
        if not torch.isclose(among_all, apart, rtol=1e-3, atol=allowed, equal_nan=True).all():
            raise ValueError(
                f"{KEY}: {FUNCTION} has another gradient at a token of a batch than at the same token of half the "
                "batch; a token's value must depend on that token alone: take no mean or maximum over tokens"
            )


def part(scores: TokenScores, rows: slice) -> TokenScores:
    """Some of the tokens."""
    lists, both = scores.candidates, scores.distributions
    cut = {f.name: value[rows] for f in fields(scores) if hasattr(value := getattr(scores, f.name), "shape")}
    if lists is not None:
        cut["candidates"] = replace(lists, **{f.name: getattr(lists, f.name)[rows] for f in fields(lists)})
    return replace(scores, **cut, distributions=both and (both[0][rows], both[1][rows]))


def check(params: Params, vocabulary: int, has_teacher: bool) -> None:
    """Refuse a text that is no Python or defines no function `loss(scores, params)`, and lists that cannot be.

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
    defined = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION]
    if not defined:
        raise ValueError(f"{KEY}: defines no function {FUNCTION}; write def {FUNCTION}(scores, params): …")
    if len(defined[-1].args.args) != 2:
        raise ValueError(f"{KEY}: {FUNCTION} takes {len(defined[-1].args.args)} arguments; take (scores, params)")


@functools.lru_cache(maxsize=8)
def function(source: str) -> Callable[[TokenScores, Params], object]:
    """The function that a text defines. Raises ValueError if the text cannot be executed."""
    namespace: dict[str, Any] = {"__name__": "own"}
    try:
        exec(compile(source, KEY, "exec"), namespace)
        found: Callable[[TokenScores, Params], object] = namespace[FUNCTION]
    except MISTAKES as error:
        raise ValueError(f"{KEY}: {type(error).__name__}: {error}") from error
    return found
