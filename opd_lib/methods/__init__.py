"""One file per method; the folder listing is the catalogue.

A method module states its paper and equation, its frozen `Params`, what it NEEDS and its `value`:

    class Params(BaseModel)                         every key required, none added
    NEEDS: frozenset[str]                           of {"teacher", "teachers" (by name), "reward"}
    value(scores, params) -> Tensor (N,)            nats per token, differentiable; of each token's own scores alone
                                                    (with `aligned`: of its unit's)

and, where they apply,

    reads(params) -> Reads                          what it reads of the scores (else the sampled tokens alone)
    check(params, vocabulary, has_teacher)          refuse what cannot or should not be trained, with the reason
    check_teachers(params, teachers, contents)      refuse teachers that do not fit: their names if there are several,
                                                    "self" for the student itself, nothing for one without a name;
                                                    and the contents that prompts come from
    check_served(params)                            refuse what a teacher behind a server cannot feed (engine/served)
    check_others(params, kind)                      refuse responses of another author than the student (source.kind)
    check_ungraded(params)                          refuse a task that grades nothing (beside what "reward" refuses)

What is seen of a step before anything is trained (seam.View: all responses of this process), without gradient and
called in this order:

    advantages(view, params) -> Tensor (B,) or (N,) becomes scores.advantage_N, of all tokens of a response or of each
    weights(view, params) -> Tensor (N,)            ≥ 0: multiplies each token's value
    select(view, params) -> Tensor (B,) bool        which responses are trained on
    shares(view, params) -> {name: Tensor (N,)}     ≥ 0: the value is taken against each named teacher, and added
    notes(view, params) -> {column: (value, weight)}  columns of steps.csv, Σ value / Σ weight over processes

Who teaches, and what the teacher is shown:

    shown(prompts, groups, params, say) -> Shown    the teacher's chats instead of the student's, one per response;
                                                    `groups` are the responses to each prompt, `say` lets a model write
    taught(logp, params) -> Tensor                  {name: (n, V) log-probabilities} of named teachers → one (n, V)
    aligned(student, teacher, params) -> Alignment  two spellings of a response (spelling.Spelling) → units: the teacher
                                                    has a tokenizer of its own, and `scores.units` are there

The step, and what lies between steps:

    branches(params) -> tuple[Branch, ...]          further parts of a step, each with a divisor of its own
    after_step(world, row, state, params) -> State  the only function that may change anything (seam.World): called
                                                    before step 1 with {"step": 0}, then after each update

The loop multiplies `value` by the weights, sums, and divides once: by the number of tokens of the selected responses,
over all micro-batches and processes. Weights never enter the divisor.

An option `control: true` says that a run is a negative control (`blind`): it may train without regard to its teacher.

Reuse is an import, and takes along what guards a function (`NEEDS, reads, check, check_served` beside `value`). A file
whose name begins with _ is part of a method, none itself. A method never sees a model, a tokenizer or a file.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from opd_lib.seam import Branch, Group, Say, Shown, State, View, World
from opd_lib.spelling import Alignment
from opd_lib.types import Prompt, Reads, TokenScores

if TYPE_CHECKING:
    from torch import Tensor

KINDS = frozenset({"teacher", "teachers", "reward"})
"""What a method may need: a teacher, several by name, rewards."""
BROKEN = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError,
)  # fmt: skip
"""What goes wrong when a file that somebody is writing is imported (pydantic's own errors are TypeErrors and such)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a method module offers; optional functions are None where it offers none."""

    name: str
    Params: type[BaseModel]
    needs: frozenset[str]
    value: Callable[[TokenScores, Any], Tensor]
    reads: Callable[[Any], Reads]
    advantages: Callable[[View, Any], Tensor] | None
    weights: Callable[[View, Any], Tensor] | None
    select: Callable[[View, Any], Tensor] | None
    shares: Callable[[View, Any], Mapping[str, Tensor]] | None
    notes: Callable[[View, Any], Mapping[str, tuple[float, float]]] | None
    shown: Callable[[Sequence[Prompt], Sequence[Group], Any, Say], Shown] | None
    taught: Callable[..., Tensor] | None
    aligned: Callable[..., Alignment] | None
    branches: Callable[[Any], Sequence[Branch]] | None
    after_step: Callable[[World, Mapping[str, float], State, Any], State] | None
    check: Callable[[Any, int, bool], None] | None
    check_teachers: Callable[[Any, frozenset[str], frozenset[str]], None] | None
    check_served: Callable[[Any], None] | None
    check_others: Callable[[Any, str], None] | None
    check_ungraded: Callable[[Any], None] | None

    @property
    def views(self) -> bool:
        """Whether it looks at a step's responses before anything is trained."""
        return any((self.advantages, self.weights, self.select, self.shares, self.notes))


def names() -> tuple[str, ...]:
    """The methods there are, by the files of this folder."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def load(name: str) -> Method:
    """The method of a file's name.

    Raises ValueError listing the names there are, or naming the file and what is wrong in it; ModuleNotFoundError where
    it needs torch and torch is not installed.
    """
    if name not in names():
        raise ValueError(f"method.name: {name!r} is unknown; choose from {', '.join(names())}")
    module = _imported(name)
    missing = [part for part in ("Params", "NEEDS", "value") if not hasattr(module, part)]
    if missing:
        raise ValueError(f"method.name: {name}: {file(name)} defines no {', '.join(missing)}; see {Path(__file__)}")
    if not isinstance(module.NEEDS, frozenset) or not KINDS >= module.NEEDS:
        known = ", ".join(sorted(KINDS))
        raise ValueError(f"method.name: {name}: {file(name)}: NEEDS: write a frozenset of {known} or nothing")
    if not isinstance(module.Params, type) or not issubclass(module.Params, BaseModel):
        raise ValueError(f"method.name: {name}: {file(name)}: Params: write a frozen class of pydantic's BaseModel")
    required = ("name", "Params", "needs", "value", "reads")
    offered = {part.name: getattr(module, part.name, None) for part in fields(Method) if part.name not in required}
    reads = getattr(module, "reads", lambda params: Reads())
    return Method(name=name, Params=module.Params, needs=module.NEEDS, value=module.value, reads=reads, **offered)


def file(name: str) -> Path:
    """Where a method of this name is written."""
    return Path(__file__).with_name(f"{name}.py")


def _imported(name: str) -> Any:
    """The module of a method's file. Raises ValueError naming the file if it cannot be imported."""
    try:
        return import_module(f"{__name__}.{name}")
    except BROKEN as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise
        line = error.lineno if isinstance(error, SyntaxError) else _line(error, file(name))
        place = f"{file(name)}, line {line}" if line else f"{file(name)}"
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"method.name: {name}: {place}: {type(error).__name__}: {reason}; mend the file") from error


def _line(error: BaseException, source: Path) -> int:
    """The last line of a file that led to an error, 0 if none did."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if Path(frame.filename) == source), 0)
