"""One file per method; the folder listing is the catalogue.

A method module states its paper and equation, its frozen `Params`, what it NEEDS and its `loss`:

    class Params(BaseModel)                         every key required, none added
    NEEDS: frozenset[str]                           of {"teacher", "reward"}
    loss(scores, params) -> Loss                    a SUM over tokens and their count

and, where they apply,

    reads(params) -> Reads                          what it reads of the scores (else the sampled tokens alone)
    advantages(reward_PG, params) -> Tensor (P, G)  sequence-level advantages from the rewards of a group
    check(params, vocabulary, has_teacher)          refuse what cannot or should not be trained, with the reason
    check_served(params)                            refuse what a teacher behind a server cannot feed (engine/served)
    check_others(params, kind)                      refuse responses of another author than the student (source.kind)
    oracle(student_logits_NV, teacher_logits_NV, token_N, params) -> (float, Tensor (N, V))
                                                    the loss and its exact gradient at the logits, written independently

A file whose name begins with _ is part of a method, none itself. A method never sees a model, a tokenizer or a file.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from opd_lib.types import Reads

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
    loss: Callable[..., Any]
    reads: Callable[[Any], Reads]
    advantages: Callable[..., Any] | None
    check: Callable[[Any, int, bool], None] | None
    check_served: Callable[[Any], None] | None
    check_others: Callable[[Any, str], None] | None
    oracle: Callable[..., Any] | None


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
    missing = [part for part in ("Params", "NEEDS", "loss") if not hasattr(module, part)]
    if missing:
        raise ValueError(f"method.name: {name}: {file(name)} defines no {', '.join(missing)}; see {Path(__file__)}")
    if not isinstance(module.NEEDS, frozenset) or not {"teacher", "reward"} >= module.NEEDS:
        raise ValueError(f"method.name: {name}: {file(name)}: NEEDS: write a frozenset of teacher, reward or nothing")
    if not isinstance(module.Params, type) or not issubclass(module.Params, BaseModel):
        raise ValueError(f"method.name: {name}: {file(name)}: Params: write a frozen class of pydantic's BaseModel")
    optional = ("advantages", "check", "check_served", "check_others", "oracle")
    offered = {part: getattr(module, part, None) for part in optional}
    reads = getattr(module, "reads", lambda params: Reads())
    return Method(name=name, Params=module.Params, needs=module.NEEDS, loss=module.loss, reads=reads, **offered)


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
